"""Replies whose answer can only be one of some texts, or all of them as a list: which tokens may come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

THOUGHT_END, OPENING, LINE_END = "</think>", "<answer>", "\n"
Tree = dict[int, "Tree"]
"""Token -> what may follow it; empty where a reply ends."""


def token_tree(texts: Sequence[Sequence[int]]) -> Tree:
    """Texts as a tree: common beginnings stand in it once. No text may begin another."""
    tree: Tree = {}
    for tokens in texts:
        node = tree
        for token in tokens:
            node = node.setdefault(token, {})
    return tree


@dataclass(frozen=True, slots=True)
class HeldChoice:
    """One of some texts, as far as it must be read to be told from the others.

    among: for each of its tokens, those that could stand there, itself included. Where that is one, nothing is chosen.
    """

    tokens: tuple[int, ...]
    among: tuple[tuple[int, ...], ...]


def held_choices(texts: Sequence[Sequence[int]]) -> list[HeldChoice]:
    """Texts of which no two are alike and none begins another; of one alone, the first token is read."""
    tree, out = token_tree(texts), []
    for tokens in texts:
        node, among, length = tree, list[tuple[int, ...]](), 1
        for place, token in enumerate(tokens, start=1):
            among.append(tuple(node))
            length = place if len(node) > 1 else length
            node = node[token]
        out.append(HeldChoice(tuple(tokens[:length]), tuple(among[:length])))
    return out


class Spills:
    """The tokens that would end `<answer>` and begin an answer at once.

    vocabulary: token id -> text, of the tokens with a ">" that is followed by more than blanks.
    """

    def __init__(self, vocabulary: dict[int, str]) -> None:
        self._texts = vocabulary
        self._whole = [token for token, text in vocabulary.items() if _spills(text)]

    @classmethod
    def of(cls, tokenizer: Any) -> Spills:
        """Those of a tokenizer's whole vocabulary."""
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        texts = {k: str(tokenizer.decode([k])) for k, piece in enumerate(pieces) if ">" in (piece or "")[:-1]}
        return cls({k: text for k, text in texts.items() if text.partition(">")[2].strip()})

    def after(self, text: str) -> list[int]:
        """The tokens that would do so after `text`, in which no answer is opened."""
        if not any(text.endswith(OPENING[:k]) for k in range(1, len(OPENING))):
            return self._whole
        return [token for token, more in self._texts.items() if _spills(text + more)]


def _spills(text: str) -> bool:
    return bool(text.partition(OPENING)[2].strip())


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a constrained reply is made of, in token ids.

    answers: each with its end, of which no two are alike and none begins another.
    listed: whether all of them are written, each once, and `end` after the last one.
    close: `</think><answer>`, for a thought that has not ended; open: `<answer>`, for one that has.
    never: tokens that cannot stand in a thought, such as the end of the turn. spills: see the class.
    """

    answers: tuple[tuple[int, ...], ...]
    close: tuple[int, ...]
    open: tuple[int, ...]
    never: tuple[int, ...]
    spills: Spills
    listed: bool = False
    end: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest answer, or of the whole list."""
        lengths = [len(answer) for answer in self.answers]
        return sum(lengths) + len(self.end) if self.listed else max(lengths)

    @property
    def reserve(self) -> int:
        """Tokens that must be left when a thought is cut, so that an answer still fits."""
        return max(len(self.close), len(self.open)) + self.longest


class Guide:
    """Where one reply stands: in its thought, or in its answer.

    A thought is written freely, but for its end: when only `Grammar.reserve` of `max_tokens` are left, `<answer>` is
    written for it. From `<answer>` on only tokens of the answers that are still possible may come; in a list, those
    that do not stand in it yet.

    begun: the prompt ends with `<answer>` already.
    """

    def __init__(self, grammar: Grammar, max_tokens: int, *, begun: bool) -> None:
        self.grammar = grammar
        self._longest_thought = max_tokens - grammar.reserve
        self._left = list(grammar.answers)
        self._line: list[int] = []
        self._node: Tree | None = token_tree(self._left) if begun else None
        self._thought_ended = False
        self._tail = ""

    @property
    def done(self) -> bool:
        """Whether the answer is whole."""
        return self._node is not None and not self._node

    def allowed(self) -> list[int] | None:
        """The only tokens that may come next; None in a thought, where all may but `forbidden`."""
        return None if self._node is None else list(self._node)

    def forbidden(self) -> list[int]:
        """In a thought: the tokens that may not come next."""
        return [*self.grammar.never, *self.grammar.spills.after(self._tail)]

    def forced(self, written: int) -> list[int]:
        """The tokens that come next without a choice, given how many are written."""
        tokens: list[int] = []
        if self._node is None and written >= self._longest_thought:
            tokens += self.grammar.open if self._thought_ended else self.grammar.close
            self._node = token_tree(self._left)
        while self._node is not None and len(self._node) == 1:
            (token,) = self._node
            tokens.append(token)
            self._take(token)
        return tokens

    def push(self, token: int, tail: str) -> None:
        """A token was drawn; `tail` is the end of the text with it."""
        if self._node is not None:
            self._take(token)
            return
        self._tail = tail
        self._thought_ended = self._thought_ended or THOUGHT_END in tail
        if OPENING in tail:
            self._node = token_tree(self._left)

    def _take(self, token: int) -> None:
        """A token of the answer stands there. After a line of a list the next one begins."""
        assert self._node is not None
        self._node = self._node[token]
        self._line.append(token)
        if self._node or not self.grammar.listed or not self._left:
            return
        self._left.remove(tuple(self._line))
        self._line.clear()
        self._node = token_tree(self._left or [self.grammar.end])
