"""What came of one ranking, without its texts: small enough to keep for every query of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from r1ranker.errors import InputError
from r1ranker.types import Trace


@dataclass(frozen=True, slots=True)
class Outcome:
    """A ranking (candidate ids, best first) and what it cost.

    parse: how many turns have each parse status that occurred. truncated: texts cut to fit the context, or the
    ranker's document_tokens. cut_short: a budget ended the ranking.
    """

    example_id: str
    ranking: tuple[str, ...]
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    parse: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    cut_short: bool = False

    @classmethod
    def of(cls, trace: Trace) -> Outcome:
        """A trace's outcome."""
        usage = trace.usage
        return cls(
            trace.example_id,
            trace.ranking,
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            dict(Counter(turn.parsed.status for turn in trace.turns)),
            trace.truncated,
            trace.cut_short,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"ranking": list(self.ranking)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_dict`. Raises InputError for what is none."""
        try:
            return cls(**{**data, "ranking": tuple(data["ranking"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"this is not a ranking's outcome ({error})") from error
