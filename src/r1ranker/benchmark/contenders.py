"""A benchmark's rows: what each ranks with, which data sets it is for, and what decides its results."""

from __future__ import annotations

import difflib
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from r1ranker.assets import fetch_model
from r1ranker.baselines import BASELINES, Baseline, fit_baseline, presort
from r1ranker.benchmark.cache import Chunk
from r1ranker.benchmark.config import BenchConfig, RowConfig, named
from r1ranker.benchmark.runrow import RunRow
from r1ranker.config import RankerConfig
from r1ranker.datasets import Dataset, example_to_dict
from r1ranker.errors import AssetError, ConfigError
from r1ranker.evaluation import Outcome
from r1ranker.evaluation.harness import RANDOM, run_ranker
from r1ranker.evaluation.runs import check_file_names
from r1ranker.files import sha256
from r1ranker.fingerprints import code_fingerprint, digest, library_versions, model_fingerprint
from r1ranker.llm.base import CountingLLM, notes_of
from r1ranker.llm.servers import VLLM, is_vllm, without_credentials
from r1ranker.modelfolder import facts_of, short_name
from r1ranker.reranker import UNTRAINED, Reranker, locate, with_settings
from r1ranker.types import RankingExample, Sampling

OnCalls = Callable[[int], None]
_NAMES_A_MODEL = ("cross-encoder",)
_NOT_IN_ALL = (*_NAMES_A_MODEL, "trained-cross-encoder")  # a model must be named; training takes long
_SEEDED = ("bpr", "sasrec", "trained-cross-encoder")
_TORCH = ("torch", "transformers", "tokenizers")
_LIBRARIES = {
    "": (),
    "eval": ("bm25s",),
    "embeddings": ("sentence-transformers", "scikit-learn", *_TORCH),
    "recommenders": ("cornac", "torch"),
}
"""What the baselines of an extra compute with."""
_CORE = (
    *("answers.py", "firststep.py", "fit.py", "parsing.py", "pointwise.py", "prompted.py", "prompts.py", "rankers.py"),
    *("rollout.py", "schedules.py", "templates/default.toml", "thoughts.py"),
)
_CHAT = ("llm/chat.py", "llm/constrained.py")
_SERVER = ("llm/openai.py",)
_GGUF = (*_CHAT, "llm/choices.py", "llm/llamacpp.py", "llm/llamaserver.py")
_VLLM = (*_CHAT, "llm/choices.py", "llm/load.py", "llm/lora.py", "llm/sliding.py", "llm/vllm.py")
_LOCAL = (
    *(*_CHAT, "llm/attention.py", "llm/blocks.py", "llm/groups.py", "llm/head.py", "llm/kv.py", "llm/linear.py"),
    *("llm/load.py", "llm/logprobs.py", "llm/lora.py", "llm/norms.py", "llm/packing.py", "llm/sampling.py"),
    *("llm/sliding.py", "llm/tied.py", "llm/transformers.py"),
)


class Contender(Protocol):
    """One row.

    together: how many lists are ranked at a time; None ranks all of a data set at once.
    optional: it is left out, with a note, where a package, a model or what it learns from is missing.
    """

    name: str
    config: RowConfig
    together: int | None
    uses_llm: bool
    optional: bool

    def applies(self, dataset: Dataset) -> bool:
        """Whether it can rank this data set, and is meant to."""

    def seeds(self) -> tuple[int, ...]:
        """The seeds it runs with; the first alone where nothing in it is random."""

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """Everything that decides its results but the lists and the seed, as JSON values."""

    def facts(self) -> dict[str, Any]:
        """What is known of the training that made it; nothing where there was none."""

    def steps(self, examples: Sequence[RankingExample]) -> int:
        """How many steps of progress these lists are."""

    def rank(self, dataset: Dataset, examples: Sequence[RankingExample], seed: int, on_calls: OnCalls) -> Chunk:
        """Rank the lists; the result depends on nothing that was ranked before. on_calls: told of LLM calls so far."""

    def close(self) -> None:
        """Give memory back."""


class ModelRow:
    """A model, asked in some way; loaded when it is first needed."""

    uses_llm = True
    optional = False

    def __init__(self, row: RowConfig, bench: BenchConfig) -> None:
        assert row.model is not None
        self.config = row
        self.together: int | None = bench.concurrency
        self._bench = bench
        self._place, trained = locate(row.model)
        self.asked: RankerConfig = with_settings(trained or UNTRAINED, row.ranker)
        self._ranker = self.asked.build(None)  # files that cannot be read are told before anything long begins
        self.name = row.name or f"{short_name(row.model)} {self.asked.kind}"
        self._loaded: Reranker | None = None
        self._first_fitted: tuple[object, Baseline] | None = None
        self._first_stages = {
            pattern: BaselineRow(RowConfig(baseline=name), bench) for pattern, name in row.first_stage.items()
        }

    def applies(self, dataset: Dataset) -> bool:
        first = self._first_stage(dataset)
        wanted = named(self._bench, dataset.name, self.config.datasets)
        if wanted and self._goal(dataset) and any(example.scenario != "routing" for example in dataset.test):
            raise ConfigError(f"the row '{self.name}' has a goal for {dataset.name}, which is no routing: leave it out")
        return wanted and (first.applies(dataset) if first else not self._first_stages)

    def _first_stage(self, dataset: Dataset) -> BaselineRow | None:
        """Of the last pattern that matches."""
        matching = [row for pattern, row in self._first_stages.items() if named(self._bench, dataset.name, [pattern])]
        return matching[-1] if matching else None

    def _goal(self, dataset: Dataset) -> str:
        """Of the last pattern that matches; empty where lists stay as they are."""
        goals = self.config.goals.items()
        return next((goal for pattern, goal in reversed(goals) if named(self._bench, dataset.name, [pattern])), "")

    def seeds(self) -> tuple[int, ...]:
        return self._bench.seeds if self.config.temperature else self._bench.seeds[:1]

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        files = {"templates": self.asked.templates, "thoughts": self.asked.thoughts}
        # Without a limit as it was before there was one: what is measured stays.
        left_out = {*files, *(["document_tokens"] if self.asked.document_tokens is None else [])}
        first = self._first_stage(dataset)
        return {
            **self._backend(),
            "ranker": self.asked.model_dump(mode="json", exclude=left_out),
            **{name: sha256(Path(path)) if path else "" for name, path in files.items()},
            "temperature": self.config.temperature,
            **({"first stage": self._first_identity(first, dataset)} if first else {}),
            **({"goal": goal} if (goal := self._goal(dataset)) else {}),
        }

    def facts(self) -> dict[str, Any]:
        return facts_of(self._place)

    def _first_identity(self, first: BaselineRow, dataset: Dataset) -> dict[str, Any]:
        lists = ranked_lists(self.config, self._bench, dataset) if BASELINES[first.baseline].reads_lists else ()
        read = {"reads": digest([example_to_dict(e) | {"relevance": None} for e in lists])} if lists else {}
        return {**first.identity(dataset), **read}

    def _backend(self) -> dict[str, Any]:
        if isinstance(self._place, Path) and self._place.is_file():
            return {
                "model": sha256(self._place),
                "code": code_fingerprint(*_CORE, *_GGUF),
                "libraries": library_versions("xllamacpp"),
            }
        if isinstance(self._place, str) and is_vllm(self._place):
            model = model_fingerprint(Path(self._place.removeprefix(VLLM)))
            return {
                "model": f"{VLLM}{model}",
                "code": code_fingerprint(*_CORE, *_VLLM),
                "libraries": library_versions("vllm"),
            }
        if isinstance(self._place, str):  # a server
            return {"model": without_credentials(self._place), "code": code_fingerprint(*_CORE, *_SERVER)}
        from r1ranker.llm.load import pick_device, pick_dtype

        device = pick_device(self._bench.device)
        return {
            "model": model_fingerprint(self._place),
            "device": device.type,
            "dtype": str(pick_dtype(self._bench.dtype, device)),
            "code": code_fingerprint(*_CORE, *_LOCAL),
            "libraries": library_versions(*_TORCH),
        }

    def steps(self, examples: Sequence[RankingExample]) -> int:
        return sum(self._ranker.calls(len(e.candidates)) for e in examples)

    def rank(self, dataset: Dataset, examples: Sequence[RankingExample], seed: int, on_calls: OnCalls) -> Chunk:
        begin = time.perf_counter()
        flops = 0.0
        if first := self._first_stage(dataset):
            baseline = self._fit_first_stage(first, dataset, seed)
            before = baseline.flops
            examples = presort(examples, baseline)
            flops = baseline.flops - before
        if goal := self._goal(dataset):
            examples = [replace(example, goal=goal) for example in examples]
        presorted = time.perf_counter() - begin
        reranker = self._load()
        # Prefixes that earlier chunks left would decide what this one costs, and after a stop they are not there.
        if prefixes := getattr(reranker.llm, "prefixes", None):
            prefixes.clear()
        given = reranker.sampling
        # A seed of its own for each chunk: one for all would draw the same noise in every chunk.
        drawn = random.Random(f"{seed}/{examples[0].id}").getrandbits(62)
        sampling = Sampling(self.config.temperature, given.max_tokens, given.sharpness, drawn)
        llm = CountingLLM(reranker.llm, on_calls)
        traces, seconds = run_ranker(self.name, reranker.ranker, examples, llm, sampling, concurrency=len(examples))
        outcomes = tuple(map(Outcome.of, traces))
        computed = sum(o.prompt_tokens - o.cached_tokens + o.completion_tokens for o in outcomes)
        flops += 2.0 * (reranker.llm.parameters or 0) * computed
        return Chunk(outcomes, presorted + seconds, flops, notes_of(reranker.llm))

    def _fit_first_stage(self, first: BaselineRow, dataset: Dataset, seed: int) -> Baseline:
        """Fitted once for all lists of a data set, as the baseline's own row is."""
        key = (dataset.name, seed)
        if self._first_fitted is None or self._first_fitted[0] != key:
            self._first_fitted = (key, first.fit(dataset, ranked_lists(self.config, self._bench, dataset), seed))
        return self._first_fitted[1]

    def close(self) -> None:
        self._loaded = self._first_fitted = None
        gc.collect()

    def _load(self) -> Reranker:
        if self._loaded is None:
            self._loaded = Reranker.load(
                self._place, device=self._bench.device, dtype=self._bench.dtype, **self.asked.model_dump()
            )
        return self._loaded


class BaselineRow:
    """A baseline, fitted to each data set anew."""

    uses_llm = False
    together: int | None = None

    def __init__(self, row: RowConfig, bench: BenchConfig, *, optional: bool = False) -> None:
        assert row.baseline is not None
        self.optional = optional
        if row.baseline not in BASELINES:
            near = difflib.get_close_matches(row.baseline, list(BASELINES), n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ConfigError(f"unknown baseline '{row.baseline}'{hint}; there are {', '.join(BASELINES)}")
        known = BASELINES[row.baseline].options
        if odd := [key for key in row.options if key not in known]:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"baseline '{row.baseline}' has no option '{odd[0]}': {there}")
        if row.baseline in _NAMES_A_MODEL and "model" not in row.options:
            raise ConfigError(
                f"baseline '{row.baseline}' has no model of its own: give it [[rows]] with baseline = "
                f'"{row.baseline}" and options = {{ model = "..." }}'
            )
        self.config = row
        self.baseline = row.baseline
        self.name = row.name or row.baseline
        self._bench = bench

    def applies(self, dataset: Dataset) -> bool:
        scenarios = {example.scenario for example in dataset.test}
        return named(self._bench, dataset.name, self.config.datasets) and scenarios <= set(
            BASELINES[self.baseline].scenarios
        )

    def seeds(self) -> tuple[int, ...]:
        return self._bench.seeds if self.baseline in _SEEDED else self._bench.seeds[:1]

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "options": self.config.options,
            "encoder": self._encoder(),
            "learns from": digest(
                [[example_to_dict(e) for e in dataset.train], dict(dataset.popularity), dataset.sequences]
            ),
            "code": code_fingerprint("baselines/*.py"),
            "libraries": library_versions(*_LIBRARIES[BASELINES[self.baseline].needs]),
        }

    def facts(self) -> dict[str, Any]:
        return {}

    def _encoder(self) -> str:
        """The fingerprint of the model that the options name."""
        if (model := str(self.config.options.get("model", ""))) == "":
            return ""
        try:
            return model_fingerprint(fetch_model(model))
        except AssetError:
            return ""  # it cannot rank either: fitting says why

    def steps(self, examples: Sequence[RankingExample]) -> int:
        return len(examples)

    def rank(self, dataset: Dataset, examples: Sequence[RankingExample], seed: int, on_calls: OnCalls) -> Chunk:
        begin = time.perf_counter()
        # What takes long is fitting: the share of it that is done is told as lists.
        baseline = self.fit(dataset, examples, seed, lambda share: on_calls(int(share * len(examples))))
        baseline.warm(examples)
        traces, _ = run_ranker(self.name, baseline, examples)
        return Chunk(tuple(map(Outcome.of, traces)), time.perf_counter() - begin, baseline.flops)

    def fit(
        self,
        dataset: Dataset,
        examples: Sequence[RankingExample],
        seed: int,
        on_share: Callable[[float], None] | None = None,
    ) -> Baseline:
        """The baseline, fitted. on_share: see `fit_baseline`."""
        return fit_baseline(self.baseline, dataset, examples, seed=seed, on_share=on_share, **self.config.options)

    def close(self) -> None:
        """Nothing is kept."""


def contenders(bench: BenchConfig) -> list[Contender]:
    """The rows of a benchmark, baselines first. Raises ConfigError for names that stand twice or mean nothing."""
    named = [name for name in bench.baselines if name != "all"]
    rows: list[Contender] = []
    if "all" in bench.baselines:
        every = [name for name in BASELINES if name not in (*_NOT_IN_ALL, *named)]
        rows += [BaselineRow(RowConfig(baseline=name), bench, optional=True) for name in every]
    rows += [BaselineRow(RowConfig(baseline=name), bench) for name in named]
    rows += [_row(row, bench) for row in bench.rows]
    seen = [row.name for row in rows] + [RANDOM]
    if twice := next((name for name in seen if seen.count(name) > 1), None):
        raise ConfigError(f"two rows are called '{twice}': give one of them a 'name' of its own")
    check_file_names("rows", seen)
    return rows


def _row(row: RowConfig, bench: BenchConfig) -> Contender:
    if row.run is not None:
        return RunRow(row, bench)
    return BaselineRow(row, bench) if row.model is None else ModelRow(row, bench)


def ranked_lists(config: RowConfig, bench: BenchConfig, dataset: Dataset) -> Sequence[RankingExample]:
    """All that a row ranks of a data set."""
    limits = [limit for limit in (config.limit, bench.limit) if limit is not None]
    return dataset.test[: min(limits, default=None)]
