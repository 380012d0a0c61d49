"""The Python API: load a ranker, rank documents, see why.

>>> reranker = Reranker.load("runs/demo/model")
>>> reranker.rank(history=["Heat (1995)"], documents=["Babe (1995)", "Casino (1995)"])[0].text
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from r1ranker.assets import fetch_model
from r1ranker.config import RankerConfig
from r1ranker.datasets import example_from_dict
from r1ranker.errors import InputError
from r1ranker.llm.base import LLM
from r1ranker.llm.openai import OpenAILLM
from r1ranker.llm.servers import VLLM, is_server, is_vllm, split_spec
from r1ranker.modelfolder import RANKER, gguf_file, read_ranker
from r1ranker.prompted import LABEL_TOKENS
from r1ranker.rollout import rollout
from r1ranker.schedules import ScheduledRanker, with_document_tokens
from r1ranker.sections import parse_section
from r1ranker.types import Candidate, RankingExample, Sampling, Scenario, Trace, Usage

UNTRAINED = RankerConfig(thinking=False)
"""How a model that was not trained here is asked: iteratively and without thinking, which any model can do."""

Document = str | dict[str, Any] | Candidate | Any
"""A text, an object with a `text`, or another library's document."""
Documents = Iterable[Document] | Mapping[str, str]
_TEXTS = ("text", "page_content", "content")
"""Where documents of other libraries have their text (LlamaIndex, LangChain, Haystack)."""
_READ = ("id", "_id", "text", "name", "title")
"""What is read of a document; the rest is the caller's own."""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in its place.

    index: its place in the list that was given, from 0. rank: its place in the ranking, from 1.
    score: (n - rank + 1) / n, in (0, 1]: a place, not a probability.
    model_score: what the model scored, in nats, higher is better; None for kinds that write or exclude turn by turn,
        and for what a budget left. pointwise: the log-odds of yes, which is comparable between queries. first_step:
        minus the mean log-prob of a token of its label as the one to exclude (of the whole label, constrained), or with
        fusion what `FirstStep` says; comparable within a list.
    """

    index: int
    rank: int
    score: float
    id: str
    text: str
    model_score: float | None = None
    document: Document | None = None
    """From `Reranker.rank`: what was given, with whatever else it holds."""


@dataclass(frozen=True, slots=True)
class RankResult(Sequence[RankedDocument]):
    """The ranked documents, best first (a sequence of them), and the trace that led there."""

    results: tuple[RankedDocument, ...]
    trace: Trace
    example: RankingExample
    usage: Usage

    @overload
    def __getitem__(self, index: int) -> RankedDocument: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RankedDocument]: ...
    def __getitem__(self, index: int | slice) -> RankedDocument | Sequence[RankedDocument]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    @property
    def defaulted(self) -> int:
        """Turns whose answer named no candidate: there the ranker took its default, such as the order as listed."""
        return sum(turn.parsed.status in ("defaulted", "failed") for turn in self.trace.turns)


class Reranker:
    """An LLM and the way it is asked."""

    def __init__(self, llm: LLM, config: RankerConfig = UNTRAINED, *, seed: int = 0) -> None:
        self.llm = llm
        self.config = config
        self.ranker: ScheduledRanker = config.build(llm.parameters)
        # Choices need no room for new tokens: only a label is read.
        room = min(config.max_tokens, LABEL_TOKENS) if self._scores else config.max_tokens
        self.sampling = Sampling(max_tokens=room, sharpness=config.sharpness, seed=seed)

    @property
    def _scores(self) -> bool:
        return self.config.kind != "direct" and not self.config.thinking

    @classmethod
    def load(
        cls, path_or_name: str | Path, *, device: str = "auto", dtype: str = "auto", seed: int = 0, **settings: Any
    ) -> Reranker:
        """Load a trained folder, a known model's name, a hub id, a `.gguf` file, `vllm:` and any of the first three, or
        `openai:MODEL[@BASE_URL]` (see `llm/openai.py`).

        device, dtype: of a model that transformers runs; llama.cpp, vLLM and servers have their own.
        settings: keys of [ranker] in a recipe (kind, thinking, answer_form, …) in place of those that the
            folder was trained with. A model that was not trained here is asked as `UNTRAINED` says; one behind
            a server that reasons by itself wants thinking=True.
        Raises AssetError for a model that cannot be had, ConfigError for an unknown setting.
        """
        place, own = locate(path_or_name)
        config = with_settings(own or UNTRAINED, settings)
        llm = _load_llm(place, device, dtype)
        if not isinstance(llm, OpenAILLM):
            llm.name = str(path_or_name)
        return cls(llm, config, seed=seed)

    def rank(
        self,
        query: str = "",
        documents: Documents = (),
        top_k: int | None = None,
        *,
        history: Sequence[str] = (),
        presorted: bool = False,
        scenario: Scenario | None = None,
        item_type: str = "",
        goal: str = "",
    ) -> RankResult:
        """Rank documents for a query, or for a history of items (then they are what may come next), or for both.

        documents: texts, or objects with `text` and perhaps `id`, `name` and `title`, or a mapping from ids to texts;
            also documents of LangChain, LlamaIndex and Haystack. One without any text comes last, unasked.
        top_k: how many results are returned; all are ranked in any case.
        presorted: the documents stand in the order of an earlier ranking, best first, and the model is told so (with
            `fusion` that order counts beside its scores instead); else their order is taken to mean nothing.
        scenario: what is asked: "passage" for a query and "recommendation" for a history where nothing is said;
            "routing" asks which LLM answers the query best, the documents being what is known of each.
        item_type: what one document is called in the prompt, such as "film".
        goal: in routing how the query is to be answered, such as "well, whatever it costs"; without it "well and at a
            low cost".
        Raises InputError if there are no documents, or no query and no history.
        """
        given = documents if isinstance(documents, str | Mapping) else list(documents)
        example = make_example(
            query, given, history=history, presorted=presorted, scenario=scenario, item_type=item_type, goal=goal
        )
        result = self.rank_batch([example], top_k=top_k)[0]
        known = list(given.values()) if isinstance(given, Mapping) else given
        return replace(result, results=tuple(replace(r, document=known[r.index]) for r in result))

    def limited(self, document_tokens: int) -> Reranker:
        """The same model and settings, with candidates' texts cut to so many tokens at most."""
        other = copy.copy(self)
        other.config = with_settings(self.config, {"document_tokens": document_tokens})
        other.ranker = with_document_tokens(self.ranker, document_tokens)
        return other

    def rank_batch(
        self, examples: Iterable[RankingExample | Mapping[str, Any]], top_k: int | None = None
    ) -> list[RankResult]:
        """Rank many examples at once; the results are in their order.

        examples: from `make_example`, or as lines of a file have them: {"query": …, "candidates": […], …}.
        """
        finished = dict(self.rank_stream(examples, top_k=top_k))
        return [finished[k] for k in sorted(finished)]

    def rank_stream(
        self,
        examples: Iterable[RankingExample | Mapping[str, Any]],
        top_k: int | None = None,
        *,
        concurrency: int = 32,
        on_error: Callable[[int, InputError], None] | None = None,
    ) -> Iterator[tuple[int, RankResult]]:
        """Yields (position, result) as each ranking is finished, so that what is done is never lost.

        examples: as for `rank_batch`; they are drawn as there is room, and may be an endless stream.
        on_error: called with an example that cannot be ranked, in place of raising; the others go on.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise InputError(f"top_k is {top_k!r}; it must be a whole number of at least 1, or None for all")
        seen: dict[int, tuple[int, RankingExample]] = {}

        def remember() -> Iterator[RankingExample]:
            drawn = 0  # an example that is none does not get as far as the driver
            for position, given in enumerate(examples):
                try:
                    example = given if isinstance(given, RankingExample) else _read(given, position)
                except InputError as error:
                    if on_error is None:
                        raise
                    on_error(position, error)
                    continue
                seen[drawn] = position, example
                drawn += 1
                yield _with_text(example)

        def give_up(number: int, error: InputError) -> None:
            position, _ = seen.pop(number)
            if on_error is not None:
                on_error(position, error)

        begin = time.perf_counter()
        refused = None if on_error is None else give_up
        driver = rollout(self.ranker, remember(), self.llm, self.sampling, concurrency=concurrency, on_error=refused)
        for number, trace in driver:
            seconds = time.perf_counter() - begin
            position, example = seen.pop(number)
            yield position, _result(example, trace, top_k, seconds)


def locate(path_or_name: str | Path) -> tuple[Path | str, RankerConfig | None]:
    """Where a model is, and how it was trained to be asked (None: not trained here).

    The place is a folder, fetched if need be, a `.gguf` file (a `ranker.json` beside it says how it is asked),
    `vllm:FOLDER`, or `openai:…` as it stands.
    Raises AssetError for a model that cannot be had, ConfigError for an `openai:…` that cannot be read.
    """
    name = str(path_or_name)
    if is_server(name):
        split_spec(name)
        return name, None
    path = Path(name)
    if path.suffix != ".gguf" or path.is_dir():
        path = fetch_model(name.removeprefix(VLLM))
    if not (path / RANKER).exists() and (path / "model" / RANKER).exists():
        path /= "model"  # the run's own folder was given
    own = read_ranker(path if path.is_dir() else path.parent)
    return (f"{VLLM}{path}" if is_vllm(name) else gguf_file(path) or path), own


def _load_llm(place: Path | str, device: str, dtype: str) -> LLM:
    if isinstance(place, str):
        if is_vllm(place):
            from r1ranker.llm.vllm import VllmLLM

            return VllmLLM.load(place.removeprefix(VLLM))
        return OpenAILLM.from_spec(place)
    if place.is_file():
        from r1ranker.llm.llamacpp import LlamaCppLLM

        return LlamaCppLLM(place)
    from r1ranker.llm.transformers import TransformersLLM

    return TransformersLLM.load(place, device=device, dtype=dtype)


def make_example(
    query: str,
    documents: Documents,
    *,
    history: Sequence[str] = (),
    id: str = "query",
    presorted: bool = False,
    scenario: Scenario | None = None,
    item_type: str = "",
    goal: str = "",
) -> RankingExample:
    """An example from a query (or a history, or both) and documents, as for `Reranker.rank`.

    A document without an id is called by its index, from 0 (in a line of a file: by its place, from 1).
    Raises InputError if a query and a history are both missing, or documents are, and for what is none.
    """
    if isinstance(documents, str):
        raise InputError("the documents are one text: give a list of texts")
    if isinstance(documents, Mapping):
        documents = [{"id": key, "text": text} for key, text in documents.items()]
    documents = list(documents)
    if not documents:
        raise InputError("there is nothing to rank: give at least one document")
    if isinstance(history, str):
        raise InputError("the history is one text: give a list of texts, oldest first")
    row: dict[str, Any] = {
        "id": id,
        "query": query,
        "history": list(history),
        "candidates": _documents(documents),
        "presorted": presorted,
        "item_type": item_type,
        "goal": goal,
        **({"scenario": scenario} if scenario else {}),
    }
    return example_from_dict(_plain(row))


def with_settings(config: RankerConfig, settings: dict[str, Any]) -> RankerConfig:
    """The config with some keys changed. Raises ConfigError for a key that does not exist or a wrong value."""
    return parse_section(RankerConfig, {**config.model_dump(), **settings}, "settings") if settings else config


def _documents(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Documents as lines of a file have them; one without an id is called by its index."""
    rows = [_document(index, document) for index, document in enumerate(documents)]
    taken = {str(own) for row in rows if (own := _own_id(row)) is not None}
    for index, row in enumerate(rows):
        if _own_id(row) is None:
            row["id"] = str(index) if str(index) not in taken else f"document {index}"
    return rows


def _own_id(row: Mapping[str, Any]) -> Any:
    return row.get("_id") if row.get("id") is None else row["id"]


def _document(index: int, document: Document) -> dict[str, Any]:
    if isinstance(document, Candidate):
        return {"id": document.id, "text": document.text, "name": document.name}
    if isinstance(document, str):
        return {"text": str(document)}  # also of numpy's kind
    if isinstance(document, Mapping) and isinstance(document.get("text"), str):
        return {key: document[key] for key in _READ if key in document}
    text = next((text for key in _TEXTS if isinstance(text := getattr(document, key, None), str)), None)
    if text is None:
        raise InputError(f"document {index}: give a text, or an object with 'text' (and perhaps 'id' and 'name')")
    return {"text": text}


def _plain(row: Any) -> Any:
    """An example as JSON has it, NumPy's values too. Raises InputError for a text that UTF-8 cannot hold."""
    try:
        return json.loads(json.dumps(row, ensure_ascii=False, default=_as_json).encode())
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise InputError(f"a text cannot be read ({error}): give texts that UTF-8 can hold") from error


def _as_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)  # of other objects nothing is read


def _read(given: Any, position: int) -> RankingExample:
    return example_from_dict(_plain(given), default_id=str(position + 1))


def _with_text(example: RankingExample) -> RankingExample:
    """Without the candidates that have nothing to be read: what the model would judge is their label."""
    known = [c.id for c in example.candidates if c.text.strip() or c.name]
    return example.restrict(known) if 0 < len(known) < len(example.candidates) else example


def _result(example: RankingExample, trace: Trace, top_k: int | None, seconds: float) -> RankResult:
    place = {candidate.id: (k, candidate) for k, candidate in enumerate(example.candidates)}
    ranked = set(trace.ranking)
    trace = replace(trace, ranking=(*trace.ranking, *(i for i in example.ids if i not in ranked)))  # without a text
    n = len(trace.ranking)
    results = []
    for rank, candidate_id in enumerate(trace.ranking[:top_k], start=1):
        index, candidate = place[candidate_id]
        score = trace.scores.get(candidate_id)
        results.append(RankedDocument(index, rank, (n - rank + 1) / n, candidate_id, candidate.text, score))
    return RankResult(tuple(results), trace, example, replace(trace.usage, seconds=seconds))
