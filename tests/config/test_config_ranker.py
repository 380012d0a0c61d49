from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker.config import RankerConfig
from r1ranker.errors import ConfigError, InputError
from r1ranker.rankers import DRanker, FirstStep, IRanker
from r1ranker.sections import parse_section
from r1ranker.thoughts import ThoughtBank
from r1ranker.types import Thought


def test_the_first_step_never_thinks() -> None:
    assert RankerConfig(kind="first_step").thinking is False
    assert RankerConfig.model_validate(RankerConfig(kind="first_step").model_dump()).thinking is False
    assert RankerConfig(kind="iterative").thinking is RankerConfig(kind="direct").thinking is True
    with pytest.raises(ConfigError, match=r"^row: kind = 'first_step' scores .*: set thinking = false"):
        parse_section(RankerConfig, {"kind": "first_step", "thinking": True}, "row")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exclude_per_turn": 1.5}, "exclude_per_turn is 1.5: give a whole number from 1, or a share between 0 and 1"),
        ({"window": 5, "tournament": 5}, "two ways to rank many candidates: give one of them"),
        ({"stride": 2}, "give window too"),
        ({"window": 4, "stride": 4}, "stride 4 in a window of 4"),
        ({"window": 1}, "window: "),
        ({"advance": 1.0, "tournament": 4}, "advance: "),
        ({"budget_calls": 0}, "budget_calls: "),
        ({"kind": "direct", "stop_at": 3}, "for kind = 'iterative', not 'direct'"),
        ({"kind": "direct", "thoughts": "bank.jsonl"}, "for kind = 'iterative' or 'first_step', not 'direct': leave"),
        ({"kind": "pointwise", "thoughts": "bank.jsonl"}, "not 'pointwise': leave them out"),
        ({"thoughts_shown": 2}, "give thoughts too"),
        ({"thoughts_shown": 0}, "thoughts_shown: "),
        ({"constrained": True, "exclude_per_turn": 0.5}, "a constrained answer names one candidate"),
        ({"kind": "first_step", "exclude_per_turn": 2}, "for kind = 'iterative', not 'first_step'"),
    ],
)
def test_schedules_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(RankerConfig, settings, "row")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_ranker_is_built_from_its_settings(tmp_path: Path) -> None:
    ranker = RankerConfig(thinking=False, answer_form="id", layout="append", quote_words=3).build(135_000_000)
    assert isinstance(ranker, IRanker)
    assert (ranker.thinking, ranker.answer_form, ranker.layout, ranker.quote_words) == (False, "id", "append", 3)
    assert ranker.parameters == 135_000_000
    assert isinstance(RankerConfig(kind="direct").build(None), DRanker)
    assert isinstance(RankerConfig(kind="first_step").build(None), FirstStep)
    wording = tmp_path / "wording.toml"
    wording.write_text('[system]\nthinking = "Think hard."\n')
    templates = RankerConfig(templates=str(wording)).build(None).templates
    assert templates.text("system", "thinking") == "Think hard."
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        RankerConfig(templates=str(tmp_path / "none.toml")).build(None)


@pytest.mark.parametrize("kind", ["iterative", "first_step"])
def test_the_ranker_gets_its_thoughts(kind: str, tmp_path: Path) -> None:
    thought = Thought("e", "passage", "a query", "a thought", "x", 1.0, "m")
    ThoughtBank((thought,)).save(tmp_path / "bank.jsonl")
    config = RankerConfig.model_validate({"kind": kind, "thoughts": str(tmp_path / "bank.jsonl"), "thoughts_shown": 2})
    ranker = config.build(None)
    assert isinstance(ranker, IRanker | FirstStep)
    assert (ranker.thoughts and ranker.thoughts.thoughts, ranker.thoughts_shown) == ((thought,), 2)
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        RankerConfig(thoughts=str(tmp_path / "none.jsonl")).build(None)
