"""Several trained LoRA folders made into one, whose weights are their mean. No typer here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ranker.assets.shipped import ADAPTER_CONFIG, base_name
from r1ranker.cli.pack import read_adapter_ranker
from r1ranker.config import RankerConfig
from r1ranker.errors import AssetError, InputError
from r1ranker.files import new_folder, share_weights, write_atomic, write_problem
from r1ranker.modelfolder import MEAN_OF, RANKER, read_facts

if TYPE_CHECKING:
    from r1ranker.llm.lora import LoraPair

_LEARNED_FROM = ("began_at", "data", "options", "fingerprint", "fingerprints")


def average_adapters(folders: Sequence[Path], out: Path) -> float:
    """Write to `out` the adapter whose addition to the base is the mean of theirs, as `RUN/model` is written.

    Its rank, alpha and target layers are the first one's. It is meant for adapters that began at the same weights, such
    as trainings that go on from one adapter (arXiv 2203.05482).
    Returns the share of the mean that this rank cannot hold, 0 to 1: the root of the squared Frobenius norms' ratio.
    Raises InputError for fewer than two folders or one given twice, AssetError for one that holds no plain LoRA
    adapter, or is of another base, of other layers, or asked in another way than the first.
    """
    from safetensors.torch import save_file

    from r1ranker.llm.averaging import mean_pair
    from r1ranker.llm.lora import ADAPTER_WEIGHTS, named_pairs, pairs_of, read_lora, scale_of

    _check_folders(folders)
    if out.exists():
        raise AssetError(f"{out} is there already: choose a new folder")
    adapters: list[tuple[dict[str, Any], dict[str, LoraPair]]] = []
    for folder in folders:
        config, tensors = read_lora(folder)
        pairs = pairs_of(tensors, folder)
        if adapters:
            _check_alike(adapters[0][1], pairs, folders[0], folder)
        adapters.append((config, pairs))
    first, own = adapters[0]
    means = {}
    for name, pair in own.items():
        scaled = [(scale_of(config, len(pairs[name].a)), pairs[name]) for config, pairs in adapters]
        means[name] = mean_pair(scaled, len(pair.a), scale_of(first, len(pair.a)))
    try:
        with new_folder(out) as made:
            tensors = named_pairs({name: mean.pair for name, mean in means.items()})
            save_file(tensors, str(made / ADAPTER_WEIGHTS), metadata={"format": "pt"})
            write_atomic(made / ADAPTER_CONFIG, json.dumps(first, indent=2) + "\n")
            told = json.loads((folders[0] / RANKER).read_text(encoding="utf-8"))
            told["facts"] = facts_of_mean([read_facts(folder) for folder in folders])
            write_atomic(made / RANKER, json.dumps(told, indent=2) + "\n")
            share_weights(made)
    except OSError as error:
        raise AssetError(write_problem(out, error)) from error
    whole = sum(mean.whole for mean in means.values())
    return math.sqrt(sum(mean.lost for mean in means.values()) / whole) if whole else 0.0


def facts_of_mean(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is true of all trainings, and under "mean_of" what is told of each beside that; the time is that of all.

    What each learned from is told together: where any of it differs, each tells all of it.
    """
    shared = {key: value for key, value in facts[0].items() if all(told.get(key) == value for told in facts)}
    if any(key in told and key not in shared for told in facts for key in _LEARNED_FROM):
        shared = {key: value for key, value in shared.items() if key not in _LEARNED_FROM}
    each = [{key: value for key, value in told.items() if key not in shared} for told in facts]
    seconds = [told["seconds"] for told in facts if "seconds" in told]
    return {**shared, MEAN_OF: each, **({"seconds": round(sum(seconds), 1)} if seconds else {})}


def _check_folders(folders: Sequence[Path]) -> None:
    if len(folders) < 2:
        raise InputError("a mean is of two adapters or more: give the folders of several")
    if twice := next((f for k, f in enumerate(folders) if f.resolve() in [g.resolve() for g in folders[:k]]), None):
        raise InputError(f"{twice} is given twice, and would count twice: give each adapter once")
    bases: list[str] = []
    asked: list[RankerConfig] = []
    for folder in folders:
        ranker = read_adapter_ranker(folder)
        bases.append(base_name(folder / ADAPTER_CONFIG))
        asked.append(ranker)
        if bases[-1] != bases[0]:
            raise AssetError(
                f"{folder} was trained on {bases[-1]}, and {folders[0]} on {bases[0]}: a mean is of adapters of one "
                "base"
            )
        if ranker != asked[0]:
            one, other = asked[0].model_dump(mode="json"), ranker.model_dump(mode="json")
            key = next(key for key in one if one[key] != other[key])
            raise AssetError(
                f"{folder / RANKER} has {key} = {other[key]!r}, and {folders[0] / RANKER} {one[key]!r}: a mean is of "
                "adapters that are asked in the same way"
            )


def _check_alike(first: Mapping[str, LoraPair], other: Mapping[str, LoraPair], folder: Path, of: Path) -> None:
    """Raises AssetError where two adapters add to other layers, or to layers of another size."""
    one, two = ({name: (len(b), a.shape[1]) for name, (a, b) in pairs.items()} for pairs in (first, other))
    if odd := sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name)):
        raise AssetError(
            f"{of} and {folder} differ in {odd[0]}: a mean is of adapters that were trained with the same "
            "model.frozen_layers, on one base"
        )
