"""Options that several commands share, and the values they are given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1ranker.assets.shipped import default_model

if TYPE_CHECKING:
    from r1ranker.datasets import Dataset

DEFAULT_MODEL = default_model()


class RankerKind(str, Enum):
    """--ranker"""

    iterative = "iterative"
    direct = "direct"
    first_step = "first-step"
    pointwise = "pointwise"

    def __str__(self) -> str:
        """As it is written: typer before 0.29 looks what the parser gave up by its text."""
        return self.value


def _kind(text: str | RankerKind) -> RankerKind:
    """Also as recipes spell it: first_step."""
    try:
        return RankerKind(text.replace("_", "-"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(repr(k.value) for k in RankerKind)}.") from None


class Scenario(str, Enum):
    """--scenario"""

    passage = "passage"
    recommendation = "recommendation"
    routing = "routing"


class AnswerForm(str, Enum):
    """--answer-form"""

    id = "id"
    name = "name"
    quote = "quote"


class Layout(str, Enum):
    """--layout"""

    rebuild = "rebuild"
    append = "append"


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A known name, a folder, organisation/name on the hub, a .gguf file, vllm:MODEL, or openai:MODEL\\[@URL].",
    ),
]
Kind = Annotated[
    RankerKind | None,
    typer.Option(
        "--ranker",
        parser=_kind,
        metavar=f"[{'|'.join(kind.value for kind in RankerKind)}]",
        help="Exclude one candidate a turn, write the whole list at once, score the first turn, or judge each alone.",
    ),
]
Think = Annotated[
    bool | None,
    typer.Option("--think/--no-think", help="Let the model reason before it answers."),
]
Form = Annotated[
    AnswerForm | None,
    typer.Option("--answer-form", help="Answer with a candidate's number, its name, or its first words."),
]
LayoutOption = Annotated[
    Layout | None,
    typer.Option("--layout", help="List what is left anew each turn, or keep the list and name what is excluded."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Longest reply, in tokens."),
]
DocumentTokens = Annotated[
    int | None,
    typer.Option(
        "--document-tokens", min=4, metavar="N", help="Cut candidates' texts to N tokens: long lists go faster."
    ),
]
Constrained = Annotated[
    bool | None,
    typer.Option(
        "--constrained/--free",
        help="Whether the answer can only be a candidate that is left (direct: a whole list of them).",
    ),
]
Orders = Annotated[
    int | None,
    typer.Option("--orders", min=1, metavar="N", help="With first-step: average the scores of N orders of the list."),
]
Fusion = Annotated[
    float | None,
    typer.Option(
        "--fusion",
        min=0,
        metavar="W",
        help="With first-step: rank sorted lists by their places and W times the model's scores, such as 0.3.",
    ),
]
ExcludePerTurn = Annotated[
    float | None,
    typer.Option("--exclude-per-turn", help="How many candidates a turn excludes, or which share of those left (0.5)."),
]
StopAt = Annotated[
    int | None,
    typer.Option("--stop-at", min=1, metavar="K", help="Once K candidates are left, one more turn orders them all."),
]
Window = Annotated[
    int | None,
    typer.Option("--window", min=2, metavar="N", help="Show N at a time, in a window that slides from the back."),
]
Tournament = Annotated[
    int | None,
    typer.Option("--tournament", min=2, metavar="N", help="Show N at a time; the better half of each group goes on."),
]
BudgetCalls = Annotated[
    int | None,
    typer.Option("--budget-calls", min=1, help="LLM calls a list at most; what is left then stays as it is."),
]
BudgetTokens = Annotated[
    int | None,
    typer.Option("--budget-tokens", min=1, help="Tokens a list at most, read and written."),
]
Thoughts = Annotated[
    str | None,
    typer.Option("--thoughts", metavar="FILE", help="Show the nearest thought of a bank (r1ranker thoughts record)."),
]
RANKER: dict[str, Any] = {
    "kind": Kind,
    "thinking": Think,
    "answer_form": Form,
    "layout": LayoutOption,
    "max_tokens": MaxTokens,
    "document_tokens": DocumentTokens,
    "constrained": Constrained,
    "orders": Orders,
    "fusion": Fusion,
    "exclude_per_turn": ExcludePerTurn,
    "stop_at": StopAt,
    "window": Window,
    "tournament": Tournament,
    "budget_calls": BudgetCalls,
    "budget_tokens": BudgetTokens,
    "thoughts": Thoughts,
}
"""Key of [ranker] -> its option, for commands that rank (see `takes_ranker`)."""
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Source = Annotated[
    Path | None,
    typer.Option("--source", help="The folder (or file) with the raw files, where they are not fetched."),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="A setting of the data set; repeat it for more."),
]


def examples(*lines: str) -> str:
    """A help page's last part; each line is shown as it stands."""
    return "\n\n".join(["[bold]Examples[/bold]", *(line.replace("[", "\\[") for line in lines)])


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given; choices as a recipe spells them, which is their name."""
    return {k: v.name if isinstance(v, Enum) else v for k, v in settings.items() if v is not None}


def takes_ranker(command: Callable[..., None]) -> Callable[..., None]:
    """Puts the options of `RANKER` where a command has the parameter `settings`, which gets those that were given."""
    signature = inspect.signature(command, eval_str=True)
    place = list(signature.parameters).index("settings")
    parameters = [p for p in signature.parameters.values() if p.name != "settings"]
    parameters[place:place] = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for key, option in RANKER.items()
    ]

    @wraps(command)
    def run(**values: Any) -> None:
        settings = given(**{key: values.pop(key) for key in RANKER})
        command(**values, settings=settings)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def key_values(items: Sequence[str], option: str = "--option") -> dict[str, Any]:
    """`key=value` texts, values as in TOML. Raises ConfigError for one without an equals sign."""
    from r1ranker.errors import ConfigError
    from r1ranker.sections import parse_value

    settings = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{option} {item}: write it as key=value, such as candidates=10")
        settings[key.strip()] = parse_value(text.strip())
    return settings


def as_folder(name: str) -> str:
    """A model's or a data set's name as a folder's; of a file of lists, its own name."""
    if name.endswith((".jsonl", ".jsonl.gz")):
        name = Path(name).name.removesuffix(".gz").removesuffix(".jsonl")
    return re.sub(r"[/:@]", "-", name)


def load_data(name: str, source: Path | str | None, options: dict[str, Any]) -> Dataset:
    """`load_dataset`, with what it says on stderr."""
    from r1ranker.cli.console import loading
    from r1ranker.datasets import load_dataset

    with loading():
        return load_dataset(name, source=source, **options)
