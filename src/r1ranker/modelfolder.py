"""A trained ranker's folder: weights and tokenizer, and `ranker.json`, which says how the model must be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from r1ranker.config import RankerConfig
from r1ranker.errors import AssetError
from r1ranker.files import share_weights, write_atomic
from r1ranker.llm.servers import VLLM, is_server, split_spec

if TYPE_CHECKING:
    from torch import nn

RANKER = "ranker.json"
MEAN_OF = "mean_of"
"""In its facts: the trainings whose adapters' mean the model is."""


def save_ranker(
    folder: Path, model: nn.Module, tokenizer: Any, ranker: RankerConfig, *, base: str, facts: dict[str, Any]
) -> None:
    """Save a model (or, with LoRA, its adapter) in the folder, `ranker.json` last.

    base: the known name or folder of the model that was trained. facts: what is worth knowing of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        for config in model.peft_config.values():  # type: ignore[operator]
            config.base_model_name_or_path = base
        # "auto", the default, asks the hub about the base.
        model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
    else:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)  # type: ignore[operator]
    text = json.dumps({"ranker": ranker.model_dump(mode="json"), "base": base, "facts": facts}, indent=2)
    write_atomic(folder / RANKER, text + "\n")
    share_weights(folder)


def read_ranker(folder: Path) -> RankerConfig | None:
    """How the model in this folder must be asked; None for a model that was not trained here.

    Raises AssetError for a `ranker.json` that cannot be read.
    """
    path = folder / RANKER
    if not path.exists():
        return None
    try:
        return RankerConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))["ranker"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise AssetError(f"{path}: cannot be read ({str(error).splitlines()[0]}); save the model again") from error


def read_facts(folder: Path) -> dict[str, Any]:
    """What `ranker.json` tells of the run that trained this model; nothing where it was not trained here.

    Raises AssetError for a `ranker.json` that cannot be read.
    """
    path = folder / RANKER
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8")).get("facts")
    except (OSError, ValueError, AttributeError) as error:
        raise AssetError(f"{path}: cannot be read ({str(error).splitlines()[0]}); save the model again") from error
    return dict(facts) if isinstance(facts, dict) else {}


def facts_of(place: Path | str) -> dict[str, Any]:
    """`read_facts` of a place as `reranker.locate` gives it: a folder, a GGUF file beside its `ranker.json`, or vLLM's
    folder; nothing of a server.
    """
    name = str(place)
    if is_server(name):
        return {}
    path = Path(name.removeprefix(VLLM))
    return read_facts(path if path.is_dir() else path.parent)


def gguf_file(place: Path) -> Path | None:
    """The GGUF file of a place: itself, or the one in a folder that holds no other model; else None.

    Raises AssetError for a file that is not there, or a folder with several.
    """
    if place.suffix == ".gguf" and not place.is_dir():
        if not place.is_file():
            raise AssetError(f"{place}: there is no such file; r1ranker model export FOLDER --out {place} writes one")
        return place
    files = sorted(place.glob("*.gguf"))
    if not files or (place / "config.json").exists() or (place / "adapter_config.json").exists():
        return None
    if len(files) > 1:
        raise AssetError(f"{place} holds several GGUF files: name one of them, such as {files[0]}")
    return files[0]


def short_name(model: str) -> str:
    """What tables call a model: its folder's name, with the run's where that is just "model"; an API's model name."""
    if is_server(model):
        return split_spec(model)[0]
    parts = [part for part in Path(model.removeprefix(VLLM)).parts if part not in ("/", ".", "..")]
    if not parts:
        return model
    return "/".join(parts[-2:]) if parts[-1] in ("model", "model.gguf") else parts[-1]
