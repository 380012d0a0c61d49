"""What a benchmark is made of: one TOML file that names rows, data sets, limits and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from r1ranker.config import RankerConfig
from r1ranker.errors import ConfigError
from r1ranker.sections import Section, parse_section, read_tables

NINE = (
    "rec-movie",
    "rec-music",
    "rec-game",
    "router-performance",
    "router-balance",
    "router-cost",
    "passage-5",
    "passage-7",
    "passage-9",
)
"""The paper's data sets, in the order of its tables."""


class VariantConfig(Section):
    """[data.variants.NAME]: a data set once more, judged in another way.

    It is shown in a table of its own. What decides a list, such as its candidates, should stay the same: then
    nothing is asked again, and only the measures differ.
    """

    of: str
    """The data set's name."""
    options: dict[str, Any] = Field(min_length=1)
    """Builder options that go over those of the data set, such as ties = "first"."""


class BenchData(Section):
    """[data]: the data sets. Keys of `sources` and `options` are names or patterns such as "router-*"."""

    names: tuple[str, ...] = Field(NINE, min_length=1)
    sources: dict[str, str] = Field(default_factory=dict)
    """The folder with the raw files, where they are not fetched."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Builder options; where several patterns match, later ones go over earlier ones."""
    variants: dict[str, VariantConfig] = Field(default_factory=dict)

    def source(self, name: str) -> str | None:
        """The source of a data set: that of the last pattern that matches."""
        return next((path for pattern, path in reversed(self.sources.items()) if fnmatchcase(name, pattern)), None)

    def options_of(self, name: str) -> dict[str, Any]:
        """A data set's options, from all patterns that match."""
        merged: dict[str, Any] = {}
        for pattern, table in self.options.items():
            if fnmatchcase(name, pattern):
                merged |= table
        return merged

    @model_validator(mode="after")
    def _patterns_match(self) -> BenchData:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names lists '{max(self.names, key=self.names.count)}' twice")
        for table in ("sources", "options"):
            for pattern in getattr(self, table):
                if not any(fnmatchcase(name, pattern) for name in self.names):
                    raise ValueError(f"[data.{table}] '{pattern}' matches none of data.names {list(self.names)}")
        for name, variant in self.variants.items():
            if name in self.names or variant.of not in self.names:
                raise ValueError(
                    f"[data.variants] '{name}' of '{variant.of}': a variant has a name of its own, and is 'of' one of "
                    f"data.names {list(self.names)}"
                )
        return self


class RowConfig(Section):
    """[[rows]]: one ranker, a model asked in some way, a baseline, or another system's run."""

    name: str | None = None
    """What tables call it; by default the model's or the baseline's name, and how it is asked."""
    model: str | None = None
    """A known name, a folder, organisation/name on the hub, a .gguf file, vllm:MODEL, or openai:MODEL@URL."""
    baseline: str | None = None
    run: str | None = None
    """A TREC run file, whose queries are the lists' ids: the ranking of a system that is measured beside the others."""
    ranker: dict[str, Any] = Field(default_factory=dict)
    """Keys of [ranker] in a recipe, in place of those that a trained folder brings."""
    options: dict[str, Any] = Field(default_factory=dict)
    """A baseline's options."""
    temperature: float = Field(0.0, ge=0)
    """Of sampling; at 0, greedy, one seed is enough and the first one is taken."""
    first_stage: dict[str, str] = Field(default_factory=dict)
    """For a model: the baseline in whose order lists are handed to it, by the name or pattern of data sets, such as
    { "passage-*" = "bm25" }. Other data sets are left out of such a row."""
    goals: dict[str, str] = Field(default_factory=dict)
    """For a model, in routing: how prompts say that queries are to be answered (`RankingExample.goal`), by the name or
    pattern of data sets, such as { router-cost = "at the lowest cost" }. Lists of others stay as they are."""
    limit: int | None = Field(None, ge=1, strict=True)
    """Fewer test queries than the others, the first ones; it is compared on those it shares with the base row."""
    datasets: tuple[str, ...] = ("*",)
    """Names or patterns; a baseline is left out by itself where it does not apply."""

    @model_validator(mode="after")
    def _one_kind(self) -> RowConfig:
        if sum(place is not None for place in (self.model, self.baseline, self.run)) != 1:
            raise ValueError("a row has one of 'model', 'baseline' and 'run'")
        if self.model is None and (self.ranker or self.temperature or self.first_stage or self.goals):
            raise ValueError("'ranker', 'temperature', 'first_stage' and 'goals' belong to a row with a 'model'")
        if self.baseline is None and self.options:
            raise ValueError("'options' belong to a row with a 'baseline'")
        try:
            parse_section(RankerConfig, self.ranker, "ranker")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self


class OrderConfig(Section):
    """[order]: how much a model's ranking depends on the order in which candidates are listed."""

    listings: int = Field(0, ge=0)
    """Random orders in which each query's candidates are listed; 0 leaves the test out."""
    queries: int = Field(50, ge=1)
    """Test queries of each data set that are used for it: the first that the row ranks and that come in no order."""

    @model_validator(mode="after")
    def _enough(self) -> OrderConfig:
        if self.listings == 1:
            raise ValueError("one listing has nothing to be compared with: set order.listings to 0, or 2 or more")
        return self


class BenchConfig(Section):
    """A whole benchmark."""

    name: str = "bench"
    base: str = "random"
    """The row that all others are tested against."""
    limit: int | None = Field(200, ge=1, strict=True)
    """Test queries of each data set, the first ones; none in TOML is written limit = false."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """For what is random in a row: sampling, and baselines that are trained. Measures are means over the seeds."""
    baselines: tuple[str, ...] = ()
    """Baselines by name, or "all": rows without further settings."""
    rows: tuple[RowConfig, ...] = ()
    data: BenchData = BenchData()
    order: OrderConfig = OrderConfig()
    concurrency: int = Field(32, ge=1)
    """Lists that are ranked together; what a stopped run repeats at most."""
    device: str = "auto"
    dtype: str = "auto"
    quoted: bool = False
    """Whether the paper's own figures are shown beside, marked as quoted."""

    @model_validator(mode="before")
    @classmethod
    def _no_limit(cls, raw: Any) -> Any:
        return {**raw, "limit": None} if isinstance(raw, Mapping) and raw.get("limit") is False else raw

    @model_validator(mode="after")
    def _fits_together(self) -> BenchConfig:
        if not self.baselines and not self.rows:
            raise ValueError("there is nothing to rank with: name 'baselines', or give [[rows]]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds lists a seed twice")
        for row in self.rows:
            for table in ("datasets", "first_stage", "goals"):
                for pattern in getattr(row, table):
                    if not any(fnmatchcase(name, pattern) for name in self.data.names):
                        raise ValueError(f"a row's {table} has '{pattern}', which matches none of data.names")
        return self


def named(bench: BenchConfig, dataset: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the data set's name; a variant's, or that of what it is a variant of."""
    variant = bench.data.variants.get(dataset)
    names = [dataset, *([variant.of] if variant else [])]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def load_bench(path: Path, sets: Sequence[str] = ()) -> BenchConfig:
    """A benchmark's TOML file, with `--set` settings on top. Raises ConfigError as recipes do."""
    raw, given = read_tables(path, sets), read_tables(None, sets)
    if isinstance(data := given.get("data"), dict) and "names" in data:
        _forget_other_data(raw, data)
    return parse_section(BenchConfig, raw, str(path))


def _forget_other_data(raw: dict[str, Any], given: Mapping[str, Any]) -> None:
    """With other data sets by `--set data.names`, what the file says of its own ones is moot."""
    names, data = raw["data"]["names"], raw["data"]
    if not isinstance(names, list):
        return  # told when the values are checked

    def moot(pattern: str) -> bool:
        return not any(fnmatchcase(str(name), pattern) for name in names)

    for table in ("sources", "options"):
        if isinstance(data.get(table), dict):
            data[table] = {key: v for key, v in data[table].items() if key in given.get(table, ()) or not moot(key)}
    if isinstance(variants := data.get("variants"), dict):
        data["variants"] = {k: v for k, v in variants.items() if not isinstance(v, dict) or v.get("of") in names}
    for row in raw["rows"] if isinstance(raw.get("rows"), list) else ():
        if isinstance(row, dict) and isinstance(row.get("datasets"), list):
            row["datasets"] = [pattern for pattern in row["datasets"] if not moot(str(pattern))]
        if isinstance(row, dict) and isinstance(goals := row.get("goals"), dict):
            row["goals"] = {pattern: goal for pattern, goal in goals.items() if not moot(str(pattern))}
        if isinstance(row, dict) and isinstance(first := row.get("first_stage"), dict):
            row["first_stage"] = {pattern: name for pattern, name in first.items() if not moot(str(pattern))}
            if first and not row["first_stage"]:
                row["datasets"] = []  # the row is for its first stages' data sets, and none of them is left
