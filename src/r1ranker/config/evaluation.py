"""How good a model is: while it trains, on lists kept out of training, and after it, on the test side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from r1ranker.sections import Section


class EvaluationConfig(Section):
    """[evaluation]: what is measured after (and before) training."""

    limit: int | None = Field(None, ge=1)
    """Test examples; None takes all."""
    direct: bool = True
    """Whether the base model is also asked for the whole list at once."""
    concurrency: int = Field(32, ge=1)
    """Rankings under way at once."""


class ValidationConfig(Section):
    """[validation]: what is measured while it trains, on training lists that are kept out of it; off if absent."""

    lists: int = Field(32, ge=1)
    """Lists of each data set that are kept out; no test list is ever among them."""
    every: int = Field(20, ge=1)
    """Steps from one measurement to the next. There is one before the first step too, and one after the last."""
    measure: Literal["MRR", "nDCG@5", "nDCG@10", "Hit@1", "Hit@5"] = "MRR"
    """By which steps are compared: its mean over data sets, each counting once."""
    first_step: bool = False
    """For iterative without thinking: rank by the first turn's scores alone, at a fraction of an elimination's cost."""
    keep_best: bool = True
    """The model that is saved is that of the best step, not of the last; the weights before the first never are."""
