from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from r1ranker.llm.kv import GrowingCache, Prefix, PrefixStore, preload, take_trunks
from r1ranker.llm.packing import PAD_BRANCH

LAYERS, HEADS, DIM = 2, 2, 3


def states(rows: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, HEADS, tokens, DIM, generator=generator)
    return keys, values


def test_a_growing_cache_holds_what_plain_cat_holds() -> None:
    cache = GrowingCache(1, 2, torch.device("cpu"))
    keys, values = [], []
    for step, tokens in enumerate((3, 1, 1, 5, 1, 9, 1)):
        k, v = states(2, tokens, step)
        keys.append(k)
        values.append(v)
        held = cache.update(k, v, 0)
        assert torch.equal(held[0], torch.cat(keys, 2))
        assert torch.equal(held[1], torch.cat(values, 2))
        assert cache.get_seq_length() == sum(x.shape[2] for x in keys)


def test_growing_copies_seldom() -> None:
    cache = GrowingCache(1, 1, torch.device("cpu"))
    buffers = set()
    for step in range(200):
        held, _ = cache.update(*states(1, 1, step), 0)
        buffers.add(held.untyped_storage().data_ptr())
    assert held.shape[2] == 200
    assert len(buffers) <= 10


def test_keep_rows_drops_the_others_and_growing_goes_on() -> None:
    cache = GrowingCache(LAYERS, 3, torch.device("cpu"))
    firsts, seconds = [states(3, 4, s) for s in range(LAYERS)], [states(2, 2, 9 + s) for s in range(LAYERS)]
    for layer, (k, v) in enumerate(firsts):
        cache.update(k, v, layer)
    cache.append_branch(torch.tensor([[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 1, PAD_BRANCH]]))
    rows = torch.tensor([2, 0])
    cache.keep_rows(rows)
    assert cache.branch.tolist() == [[0, 1, 1, PAD_BRANCH], [0, 0, 0, 1]]
    for layer in range(LAYERS):
        held = cache.update(*seconds[layer], layer)
        for which in range(2):
            assert torch.equal(held[which], torch.cat([firsts[layer][which][rows], seconds[layer][which]], 2))
    cache.append_branch(torch.tensor([[1, 1], [2, 2]]))
    assert cache.branch.tolist() == [[0, 1, 1, PAD_BRANCH, 1, 1], [0, 0, 0, 1, 2, 2]]


def prefix(tokens: Sequence[int], seed: int = 0) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    return Prefix(tuple(tokens), torch.randn(LAYERS, 2, HEADS, len(tokens), DIM, generator=generator))


def test_the_store_finds_the_longest_common_beginning() -> None:
    store = PrefixStore(100)
    held = prefix([1, 2, 3, 4])
    store.put("a", held)
    assert store.common("a", [1, 2, 9, 4]) == (2, held)
    assert store.common("a", [1, 2, 3, 4, 5, 6]) == (4, held)
    # At least one token is always left to compute.
    assert store.common("a", [1, 2, 3, 4]) == (3, held)
    assert store.common("a", [1, 2]) == (1, held)
    assert store.common("a", [9, 2, 3, 4]) == (0, None)
    assert store.common("a", [1]) == (0, None)
    assert store.common("b", [1, 2, 3, 4]) == (0, None)
    assert store.common("", [1, 2, 3, 4]) == (0, None)
    store.clear()
    assert store.common("a", [1, 2, 3, 4]) == (0, None)


def held_in(store: PrefixStore, sessions: str) -> str:
    # Newest last, as asked for: looking does not change the order of these.
    return "".join(s for s in sessions if store.common(s, range(100))[0])


def test_the_longest_unused_go_first() -> None:
    store = PrefixStore(10)
    for session in "abc":
        store.put(session, prefix(range(3)))
    assert store.common("a", range(9))[0] == 3  # used: b is now the longest unused
    store.put("d", prefix(range(4)))
    assert held_in(store, "abcd") == "acd"
    # A session's new trunk takes the place of its old one, and only the difference counts.
    store.put("c", prefix(range(3)))
    assert held_in(store, "acd") == "acd"
    store.put("d", prefix(range(5)))
    assert held_in(store, "acd") == "cd"


def test_a_trunk_too_long_for_the_store_is_not_held_and_drops_no_other() -> None:
    store = PrefixStore(10)
    store.put("a", prefix(range(3)))
    store.put("b", prefix(range(11)))
    assert held_in(store, "ab") == "a"
    # A session whose trunk has grown too long loses its old one, and the room is free again.
    store.put("a", prefix(range(11)))
    store.put("c", prefix(range(10)))
    assert held_in(store, "abc") == "c"


def test_trunks_go_in_and_come_out_again() -> None:
    long, short = prefix([1, 2, 3, 4, 5], 1), prefix([7, 8, 9], 2)
    cache = GrowingCache(LAYERS, 3, torch.device("cpu"))
    preload(cache, [(2, short), (0, None), (5, long)])
    assert cache.branch.tolist() == [[-1, -1, -1, 0, 0], [-1] * 5, [0] * 5]
    first, none, second = take_trunks(cache)
    assert torch.equal(first, short.states[:, :, :, :2])
    assert none.shape == (LAYERS, 2, HEADS, 0, DIM)
    assert torch.equal(second, long.states)
    # What is appended to the trunk comes out with it; branches and padding do not.
    new = [states(3, 2, s) for s in range(LAYERS)]
    for layer, (k, v) in enumerate(new):
        cache.update(k, v, layer)
    cache.append_branch(torch.tensor([[0, 1], [0, 0], [0, PAD_BRANCH]]))
    trunks = take_trunks(cache)
    assert [t.shape[3] for t in trunks] == [3, 2, 6]
    assert torch.equal(trunks[0][:, :, :, :2], short.states[:, :, :, :2])
    for layer, (k, v) in enumerate(new):
        assert torch.equal(trunks[0][layer, 0, :, 2], k[0, :, 0])
        assert torch.equal(trunks[1][layer, 1], v[1])


def test_preloading_nothing_leaves_the_cache_empty() -> None:
    cache = GrowingCache(LAYERS, 2, torch.device("cpu"))
    preload(cache, [(0, None), (0, None)])
    assert cache.branch.shape == (2, 0)
    assert cache.get_seq_length() == 0
