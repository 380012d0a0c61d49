"""What a client sends and gets: the rerank format that Cohere and Jina have made common, and what rankers here add.

A client may send more than is named here (each vendor has fields of its own): what is not known changes nothing.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, FailFast, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1ranker.fit import MIN_TOKENS
from r1ranker.rankers import RankerKind
from r1ranker.records import turn_record
from r1ranker.reranker import RankedDocument, RankResult
from r1ranker.types import Scenario


class Document(BaseModel):
    """A candidate with more than its text. name: what an answer may call it by, such as an LLM's. title: read first.

    Clients send ids and more of their own, also the same id for several parts of a document: results tell the index.
    """

    text: str
    name: str | None = None
    title: str | None = None

    @field_validator("name", "title", mode="before")
    @classmethod
    def _only_text(cls, name: object) -> object:
        return name if isinstance(name, str) else None


class RerankRequest(BaseModel):
    """Rank documents for a query, for a history of items, or for both."""

    model: str | None = Field(None, description="The served model's name, or one of its aliases; without it, the same.")
    query: str = ""
    documents: Annotated[list[str | Document], FailFast()] = Field(min_length=1)
    top_n: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="How many results are returned; without it, or 0: all. Also called top_k.",
    )
    return_documents: bool = True
    max_tokens_per_doc: int | None = Field(
        None, ge=MIN_TOKENS, description="Longer texts are cut to so many tokens, between words."
    )
    history: Annotated[list[str], FailFast()] = Field(
        [], description="Items of the past, oldest first; the documents may come next."
    )
    presorted: bool = Field(False, description="The documents stand in the order of an earlier ranking, best first.")
    scenario: Scenario | None = Field(
        None,
        description="'recommendation' with a history, else 'passage'; 'routing': which LLM answers the query best.",
    )
    item_type: str = Field("", description="What one document is called in the prompt, such as film.")
    goal: str = Field("", description="In routing how the query is to be answered; else 'well and at a low cost'.")
    trace: bool = Field(False, description="Also every turn: what was excluded, and how likely each was.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, raw: object) -> object:
        """Typed clients send null for what they leave out."""
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw

    @model_validator(mode="before")
    @classmethod
    def _one_top(cls, raw: object) -> object:
        if isinstance(raw, dict):
            top_n, top_k = raw.get("top_n"), raw.get("top_k")
            if top_n is not None and top_k is not None and top_n != top_k:
                raise PydanticCustomError("two_tops", "top_n and top_k mean the same: send one, or both alike")
        return raw


class ReturnedDocument(BaseModel):
    """The text as it was sent, after its title."""

    text: str


class Result(BaseModel):
    """A document in its place. index: its place in the request, from 0. model_score: see `RankedDocument`."""

    model_config = ConfigDict(protected_namespaces=())  # for model_score
    index: int
    relevance_score: float
    document: ReturnedDocument | None = None
    model_score: float | None = None


class TokenUsage(BaseModel):
    """Tokens of all turns; cached: read before, not computed again."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    calls: int


class RerankResponse(BaseModel):
    """Results best first. truncated: texts that were cut or left out. defaulted: turns whose answer named no candidate.
    trace: turns, if they were asked for; documents are called by their index.
    """

    id: str = ""
    model: str
    results: list[Result]
    usage: TokenUsage
    meta: dict[str, Any]
    truncated: int
    defaulted: int
    trace: list[dict[str, Any]] | None = None


def relevance(document: RankedDocument, kind: RankerKind) -> float:
    """In [0, 1], falling. pointwise: the probability of yes, comparable between queries (0 for what was not judged).

    Other kinds compare candidates with each other: a place, (n - rank + 1) / n.
    """
    if kind != "pointwise":
        return document.score
    return 0.0 if document.model_score is None else (1 + math.tanh(document.model_score / 2)) / 2


def response(
    result: RankResult, request: RerankRequest, *, model: str, kind: RankerKind, sharpness: float
) -> RerankResponse:
    """What is answered. kind, sharpness: of the ranker's settings."""
    usage = result.usage
    results = [
        Result(
            index=document.index,
            relevance_score=relevance(document, kind),
            document=ReturnedDocument(text=document.text) if request.return_documents else None,
            model_score=document.model_score,
        )
        for document in result
    ]
    return RerankResponse(
        model=model,
        results=results,
        usage=TokenUsage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            calls=usage.calls,
        ),
        meta={
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
        },
        truncated=result.trace.truncated,
        defaulted=result.defaulted,
        trace=[turn_record(turn, sharpness) for turn in result.trace.turns] if request.trace else None,
    )
