"""[data]."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from r1ranker.sections import Section


class DataConfig(Section):
    """[data]: the data sets, mixed if there are several."""

    names: tuple[str, ...] = Field(("rec-movie",), min_length=1)
    sources: dict[str, str] = Field(default_factory=dict)
    """By data set: the folder with its raw files, where it is not fetched by itself."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By data set: its builder's options, such as [data.options.rec-movie] history = 5."""
    mix: Literal["balanced", "proportional"] = "balanced"
    """With several data sets: each has the same share of the training states, or one by how many examples it has."""
    weights: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """By data set, in balance: how many shares of the training states it has; 1 where nothing is said."""
    first_stage: dict[str, str] = Field(default_factory=dict)
    """By data set: the baseline in whose order lists stand, such as [data.first_stage] passage-5 = "bm25"; the prompt
    says so. Without one, candidates stand in an order that means nothing, as in the paper."""
    first_stage_share: float = Field(1.0, gt=0, le=1)
    """How many of the lists stand in that order, in training and in the evaluation after it; the others do not."""

    @field_validator("names", mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        """One name need not stand in a list."""
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        if len(set(self.names)) < len(self.names):
            twice = max(self.names, key=self.names.count)
            raise ValueError(f"data.names lists '{twice}' twice: data.weights gives it a larger share")
        if self.weights and self.mix != "balanced":
            raise ValueError("data.weights are shares of a balanced mix: leave them out, or set data.mix = 'balanced'")
        for table in ("sources", "options", "weights", "first_stage"):
            if odd := [name for name in getattr(self, table) if name not in self.names]:
                raise ValueError(f"[data.{table}] names '{odd[0]}', which is not among data.names {list(self.names)}")
        return self
