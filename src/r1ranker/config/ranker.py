"""[ranker], and the ranker that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from r1ranker.answers import QUOTE_WORDS, AnswerForm
from r1ranker.errors import ConfigError
from r1ranker.fit import MIN_TOKENS
from r1ranker.prompts import Layout, PromptTemplates
from r1ranker.rankers import AnyRanker, RankerKind, make_ranker
from r1ranker.schedules import Budget, ScheduledRanker, Tournament, Windows
from r1ranker.sections import Section
from r1ranker.thoughts import ThoughtBank

SCORING = ("first_step", "pointwise")
"""Kinds that only score: they do not think, and are no way to train."""
SCHEDULE = ("orders", "fusion", "exclude_per_turn", "stop_at", "window", "tournament", "budget_calls", "budget_tokens")
"""Keys of [ranker] that change how a list is gone through, and not how the model is asked in a turn."""


class RankerConfig(Section):
    """[ranker]: how the model is asked."""

    kind: RankerKind = "iterative"
    thinking: bool = True
    """For first_step and pointwise always false."""
    answer_form: AnswerForm | None = None
    """None: the form that suits the scenario and the model's size."""
    quote_words: int = Field(QUOTE_WORDS, ge=1)
    layout: Layout = "rebuild"
    templates: str | None = None
    """A TOML file with other wording."""
    thoughts: str | None = None
    """For iterative and first_step: a bank of thoughts (`r1ranker thoughts record`), shown as examples of reasoning."""
    thoughts_shown: int = Field(1, ge=1)
    """How many of the bank's thoughts stand in a prompt at most: the nearest ones."""
    sharpness: float = Field(3.0, gt=0)
    """Without thinking: the policy is the softmax of this times a label's mean token log-prob."""
    max_tokens: int = Field(1024, ge=1)
    """Longest completion."""
    document_tokens: int | None = Field(None, ge=MIN_TOKENS)
    """Tokens of a candidate's text in a prompt at most; a longer one is cut between words. None: what fits."""
    constrained: bool = False
    """For iterative and first_step: only a label that is left can be the answer. Without thinking it is written, or
    where several are compared it counts how probable each is to be written; all_actions and listwise train that
    probability. For direct: the answer can only be a whole list, each candidate once."""
    orders: int = Field(1, ge=1)
    """For first_step: in how many orders the list is shown, a call each; scores are averaged over them."""
    fusion: float = Field(0.0, ge=0, allow_inf_nan=False)
    """For first_step on lists in the order of a first stage: how much the model's scores count beside its places.
    0: the prompt tells of that order instead."""
    exclude_per_turn: float = 1
    """For iterative: a whole number, or a share of those that are left, between 0 and 1."""
    stop_at: int = Field(1, ge=1)
    """For iterative: once so many are left, one more turn orders them all."""
    window: int | None = Field(None, ge=2)
    """Candidates in a prompt; the window slides from the back of the list to its front."""
    stride: int | None = Field(None, ge=1)
    """By how many a window moves on; None: half a window."""
    tournament: int | None = Field(None, ge=2)
    """Candidates in a prompt; groups of so many play rounds."""
    advance: float = Field(0.5, gt=0, lt=1)
    """The share of a tournament's group that goes on."""
    budget_calls: int | None = Field(None, ge=1)
    """LLM calls of one list at most; what is not ranked by then stays as it is."""
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens of one list at most, read and written."""

    @model_validator(mode="before")
    @classmethod
    def _scoring_does_not_think(cls, raw: Any) -> Any:
        """With a kind that only scores thinking is off where nothing is said of it. A kind may have a hyphen."""
        if not isinstance(raw, Mapping) or not isinstance(kind := raw.get("kind"), str):
            return raw
        raw = {**raw, "kind": kind.replace("-", "_")}
        return {"thinking": False, **raw} if raw["kind"] in SCORING else raw

    @model_validator(mode="after")
    def _fits_together(self) -> RankerConfig:
        if self.window and self.tournament:
            raise ValueError("window and tournament are two ways to rank many candidates: give one of them")
        if self.stride and not self.window:
            raise ValueError("stride is by how many a window moves on: give window too, or leave it out")
        if self.kind != "iterative" and (self.exclude_per_turn, self.stop_at) != (1, 1):
            raise ValueError(
                f"exclude_per_turn and stop_at are for kind = 'iterative', not '{self.kind}': leave them out"
            )
        if self.orders > 1 and self.kind != "first_step":
            raise ValueError(f"orders are for kind = 'first_step', not '{self.kind}': leave them out")
        if self.fusion and self.kind != "first_step":
            raise ValueError(f"fusion is for kind = 'first_step', not '{self.kind}': leave it out")
        if self.thoughts and self.kind not in ("iterative", "first_step"):
            raise ValueError(
                f"thoughts are of exclusions, for kind = 'iterative' or 'first_step', not '{self.kind}': leave them out"
            )
        if self.thoughts_shown != 1 and not self.thoughts:
            raise ValueError("thoughts_shown is how many thoughts of a bank are shown: give thoughts too")
        try:
            self._build(None, PromptTemplates.default())
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def schedule(self) -> list[str]:
        """Which of the keys of a schedule are set; none where a list is gone through as in the paper."""
        defaults = type(self).model_fields
        return [name for name in SCHEDULE if getattr(self, name) != defaults[name].default]

    def build(self, parameters: int | None) -> ScheduledRanker:
        """The ranker these settings describe. parameters: the model's size, for the answer form."""
        templates = PromptTemplates.load(Path(self.templates)) if self.templates else PromptTemplates.default()
        bank = ThoughtBank.read(Path(self.thoughts)) if self.thoughts else None
        return self._build(parameters, templates, bank)

    def _build(
        self, parameters: int | None, templates: PromptTemplates, bank: ThoughtBank | None = None
    ) -> ScheduledRanker:
        own: dict[str, object] = {}
        # To judge a candidate alone there are two words in any case.
        if self.kind != "pointwise":
            own = {"constrained": self.constrained}
        if self.kind in ("iterative", "first_step"):
            own |= {"thoughts": bank, "thoughts_shown": self.thoughts_shown}
        if self.kind == "first_step":
            own |= {"orders": self.orders, "fusion": self.fusion}
        if self.kind == "iterative":
            own |= {"exclude_per_turn": self.exclude_per_turn, "stop_at": self.stop_at}
        ranker = make_ranker(
            self.kind,
            thinking=self.thinking,
            answer_form=self.answer_form,
            quote_words=self.quote_words,
            layout=self.layout,
            parameters=parameters,
            document_tokens=self.document_tokens,
            templates=templates,
            **own,
        )
        scheduled: AnyRanker | Windows | Tournament = ranker
        if self.window:
            scheduled = Windows(ranker, self.window, self.stride or self.window // 2)
        if self.tournament:
            scheduled = Tournament(ranker, self.tournament, self.advance)
        if self.budget_calls or self.budget_tokens:
            return Budget(scheduled, self.budget_calls, self.budget_tokens, self.max_tokens)
        return scheduled
