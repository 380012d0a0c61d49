"""A trained LoRA folder made into one to give away: smaller, with a model card and checksums. No typer here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ranker.assets import ASSETS, refuse_checkpoint
from r1ranker.assets.shipped import ADAPTER_CONFIG, CARD, base_name, shipped_adapters, write_sums
from r1ranker.cli.console import clock
from r1ranker.config import RankerConfig
from r1ranker.datasets.catalogue import DATASETS
from r1ranker.errors import AssetError, InputError
from r1ranker.evaluation import Row
from r1ranker.files import new_folder, share_weights, write_atomic, write_problem
from r1ranker.modelfolder import MEAN_OF, RANKER, read_facts, read_ranker

LIMIT = 10_000_000
"""Bytes that a packed folder may take: an adapter is small, and more is a mistake."""


def pack_adapter(folder: Path, out: Path, reports: Sequence[Path] = ()) -> None:
    """Write `out` from RUN/model: the adapter in float16, its config, ranker.json, a model card, SHA256SUMS.

    The config names the base by its hub id, where it has one: peft knows no other names.
    reports: report.json files (or their folders) of `evaluate`, `train` or `bench`, for the card's figures.
    Raises AssetError for a folder that is no adapter trained here, or cannot be given away as it is (its base or its
    wording lies on this machine; more than 10 MB), InputError for a report that cannot be read.
    """
    from safetensors.torch import save_file

    from r1ranker.llm.lora import ADAPTER_WEIGHTS, read_lora

    asked = read_adapter_ranker(folder)
    if out.exists():
        raise AssetError(f"{out} is there already: choose a new folder")
    config, tensors = read_lora(folder)
    half = {key: tensor.half() for key, tensor in tensors.items()}
    if odd := [key for key, tensor in half.items() if not tensor.isfinite().all()]:
        raise AssetError(f"{folder}: {odd[0]} holds values that float16 cannot: train anew with a lower learning rate")
    card = model_card(out.name, folder, asked, sum(tensor.numel() for tensor in half.values()), reports)
    base = base_name(folder / ADAPTER_CONFIG)
    ranker = {**json.loads((folder / RANKER).read_text(encoding="utf-8")), "base": base}
    config["base_model_name_or_path"] = _hub_name(base)
    try:
        with new_folder(out) as made:
            save_file(half, str(made / ADAPTER_WEIGHTS), metadata={"format": "pt"})
            write_atomic(made / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")
            write_atomic(made / RANKER, json.dumps(ranker, indent=2) + "\n")
            write_atomic(made / CARD, card)
            share_weights(made)
            write_sums(made)
            size = sum(path.stat().st_size for path in made.iterdir())
            if size > LIMIT:
                raise AssetError(
                    f"{folder} takes {size / 1e6:,.1f} MB packed, and {LIMIT / 1e6:,.0f} MB are allowed: train with a "
                    "lower model.lora_rank or more model.frozen_layers"
                )
    except OSError as error:
        raise AssetError(write_problem(out, error)) from error


def read_adapter_ranker(folder: Path) -> RankerConfig:
    """How the adapter in the model's folder of a run is asked.

    Raises AssetError for a checkpoint, a folder without an adapter, or one that was not trained here.
    """
    refuse_checkpoint(folder)
    if not (folder / ADAPTER_CONFIG).exists():
        raise AssetError(f"{folder} holds no LoRA adapter: train with model.lora_rank > 0 and give RUN/model")
    if (asked := read_ranker(folder)) is None:
        raise AssetError(f"{folder} has no {RANKER}: give the model's folder of a run of r1ranker train")
    return asked


def _hub_name(base: str) -> str:
    """A model's hub id, where its known name has one."""
    return ASSETS[base].hub_id or base if base in ASSETS else base


def _training(facts: Mapping[str, Any]) -> str:
    """A training, and the one that it began at."""
    words = {"recipe": "{}", "algorithm": "{}", "steps": "{} steps", "seed": "seed {}", "data": "on {}"}
    known = ", ".join(form.format(facts[key]) for key, form in words.items() if key in facts)
    each = " and ".join(f"({_training(told)})" for told in facts.get(MEAN_OF, ()))
    told = ", ".join(filter(None, [known, each and f"the mean of {each}"]))
    return f"{told}; before that {_training(facts['began_at'])}" if facts.get("began_at") else told


def model_card(name: str, folder: Path, asked: RankerConfig, parameters: int, reports: Sequence[Path]) -> str:
    """A model card (Markdown, with the hub's header) from what `ranker.json` says of the run."""
    if asked.templates:
        raise AssetError(
            f"{folder / RANKER} takes its wording from {asked.templates}, which lies on this machine: train with the "
            "wording that ships with r1ranker"
        )
    base = base_name(folder / ADAPTER_CONFIG)
    if base not in ASSETS and base not in shipped_adapters() and not re.fullmatch(r"\w[\w-]*/\w[\w.-]*", base):
        raise AssetError(
            f"{folder / ADAPTER_CONFIG} names the base {base}, which lies on this machine: write a known name or "
            "organisation/name there"
        )
    facts: Mapping[str, Any] = read_facts(folder)
    asset = ASSETS.get(base)
    licence = asset.licence if asset else "see the base model"
    way = "iteratively, one exclusion a turn" if asked.kind == "iterative" else "directly, the whole list at once"
    thinking = "with" if asked.thinking else "without"
    learned = "by supervision" if facts.get("algorithm") == "listwise" else "by reinforcement learning"
    software = ", ".join(f"{package} {version}" for package, version in (facts.get("versions") or {}).items())
    rows = {
        "base model": f"`{base}`" + (f" ({asset.hub_id})" if asset and asset.hub_id else ""),
        "licence": f"{licence}, as the base model",
        "ranks": f"{way}, {thinking} thinking; {RANKER} says all of it",
        "began at": _training(facts.get("began_at") or {}),
        "mean of": "; ".join(map(_training, facts.get(MEAN_OF, ()))),
        "recipe": facts.get("recipe"),
        "algorithm": facts.get("algorithm"),
        "steps": facts.get("steps"),
        "seed": facts.get("seed"),
        "training time": clock(facts["seconds"]) if "seconds" in facts else None,
        "software": software,
        "weights": f"{parameters:,} in float16",
        "training data, SHA-256": facts.get("fingerprint"),
    }
    header = ["---", *([f"license: {licence.lower()}"] if asset else [])]
    header += [f"base_model: {_hub_name(base)}", "library_name: peft", "---"]
    parts = [
        *header,
        "",
        f"# {name}",
        "",
        f"A LoRA adapter that makes `{base}` a ranker, trained {learned} with r1ranker, an",
        "implementation of R1-Ranker (arXiv 2506.21638). `r1ranker rank --model FOLDER` ranks with it.",
        "",
        *_table(("", ""), [(key, str(value)) for key, value in rows.items() if value not in (None, "")]),
        "## Trained on",
        "",
        *_table(("data set", "what", "from", "licence"), _data_rows(facts, folder.parent / "config.json")),
        "The folder holds weights alone, and no row of a data set.",
        "",
        *_figures(reports),
        "## Check",
        "",
        "    sha256sum -c SHA256SUMS",
    ]
    return "\n".join(parts) + "\n"


def _data_rows(facts: Mapping[str, Any], config: Path) -> Iterator[tuple[str, str, str, str]]:
    """The data sets, and by the run's config, where it is there, the folder that each was read from."""
    recipe = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    sources: Mapping[str, str] = recipe.get("data", {}).get("sources", {})
    for name in str(facts.get("data", "")).split("+"):
        if (info := DATASETS.get(name)) is None:
            yield f"`{Path(name).name}`", "not known to r1ranker", "own lists", "say it here before you give this away"
        else:
            read = f"; read from {Path(sources[name]).name}" if name in sources else ""
            yield f"`{name}`", info.description, info.source + read, info.licence


def _figures(reports: Sequence[Path]) -> list[str]:
    """MRR by ranker and data set, with 95% intervals."""
    if not reports:
        return []
    cells: dict[tuple[str, str], Row] = {}
    for path in reports:
        for row in read_rows(path):
            if (row.name, row.dataset) in cells:
                raise InputError(f"{path}: '{row.name}' on {row.dataset} stands in two of the reports: leave one out")
            cells[row.name, row.dataset] = row
    datasets = list(dict.fromkeys(row.dataset for row in cells.values()))
    names = list(dict.fromkeys(row.name for row in cells.values()))
    lines = [(name, *(_cell(cells.get((name, dataset))) for dataset in datasets)) for name in names]
    queries = ", ".join(
        f"{dataset} {max(row.queries for row in cells.values() if row.dataset == dataset):,}" for dataset in datasets
    )
    table = _table(("ranker", *datasets), lines)
    return ["## Figures", "", f"MRR with 95% intervals, on held-out queries ({queries}).", "", *table]


def read_rows(path: Path) -> list[Row]:
    """The rows of a report of `evaluate` or `train`, or the cells of one of `bench`. Raises InputError for none."""
    file = path / "report.json" if path.is_dir() else path
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        rows = written.get("rows") or written["cells"]
        return [Row.from_dict(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no report that can be read ({error!r}): give a report.json") from error


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    low, high = row.intervals["MRR"]
    return f"{row.measures['MRR']:.3f} [{low:.3f}, {high:.3f}]"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty one after it."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (headers, ["---"] * len(headers), *rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
