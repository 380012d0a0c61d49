"""Item-based collaborative filtering as words: which items of a history others chose along with a candidate.

Cosine between the sets of users who chose two items: Sarwar et al. 2001, Deshpande and Karypis 2004.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

from r1ranker.errors import InputError
from r1ranker.types import Candidate

SHARE = 0.03
"""Of all items, how many count as neighbours of one: chosen on train users, by what such a rule alone would rank."""
TOLD = "others chose it with "


class Neighbours:
    """Who chose what, and which items are therefore near each other.

    sequences: of each user the items, in any order; twice counts once.
    share: an item's neighbours are this share of all items, the nearest ones that any user chose with it.
    Raises InputError for a share that is not above 0 and at most 1.
    """

    def __init__(self, sequences: Sequence[Sequence[str]], share: float = SHARE) -> None:
        if not 0 < share <= 1:
            raise InputError(f"share is {share}; it must be above 0 and at most 1")
        self._items = [tuple(dict.fromkeys(items)) for items in sequences]
        self._users: dict[str, set[int]] = {}
        for user, items in enumerate(self._items):
            for item in items:
                self._users.setdefault(item, set()).add(user)
        self._most = math.ceil(share * len(self._users))
        self._limits: dict[str, float] = {}

    def similarity(self, one: str, other: str, without: Collection[str] = ()) -> float:
        """Users who chose both, divided by the geometric mean of who chose each; 0 to 1, 0 where nobody chose both.

        without: all items of a user who is left out of the counts: what they chose next is not to be read from them.
        """
        mine, theirs = self._users.get(one, set()), self._users.get(other, set())
        own = (one in without, other in without)
        both = len(mine & theirs) - all(own)
        return both / math.sqrt((len(mine) - own[0]) * (len(theirs) - own[1])) if both > 0 else 0.0

    def along_with(self, item: str, history: Sequence[str], most: int, without: Collection[str] = ()) -> list[str]:
        """The items of a history that `item` is a neighbour of, the nearest first, `most` at most; never `item` itself.

        How near a neighbour must be is told by all users, also by the one who is left out.
        """
        near = {past: self.similarity(past, item, without) for past in history if past != item}
        kept = [past for past, value in near.items() if value > 0 and value >= self._limit(past)]
        return sorted(kept, key=lambda past: -near[past])[:most]

    def told(self, candidate: Candidate, history: Sequence[str], most: int, without: Collection[str] = ()) -> Candidate:
        """The candidate, known by its title, with a text that ends in which items of the history others chose with it.

        A text that was its title alone becomes its name. Where others chose it with none, the candidate stays as it is.
        """
        title = candidate.called
        if not (along := self.along_with(title, history, most, without)):
            return candidate
        own = "" if candidate.text == title else f"{candidate.text}; "
        return Candidate(candidate.id, f"{own}{TOLD}{'; '.join(along)}", title)

    def _limit(self, item: str) -> float:
        """The similarity of an item's farthest neighbour; with everyone counted, so that it is computed once."""
        if item not in self._limits:
            mine = self._users.get(item, set())
            both = Counter(other for user in mine for other in self._items[user] if other != item)
            near = sorted(
                (n / math.sqrt(len(mine) * len(self._users[other])) for other, n in both.items()), reverse=True
            )
            self._limits[item] = near[: self._most][-1] if near else math.inf
        return self._limits[item]
