from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from r1ranker.llm.kv import SLACK, GrowingCache, Prefix, PrefixStore, preload
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
    branch = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 1, PAD_BRANCH]])
    cache.record(branch, torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2], [0, 1, 2, 0]]))
    rows = torch.tensor([2, 0])
    cache.keep_rows(rows)
    assert cache.branch.tolist() == [[0, 1, 1, PAD_BRANCH], [0, 0, 0, 1]]
    assert cache.positions.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3]]
    for layer in range(LAYERS):
        held = cache.update(*seconds[layer], layer)
        for which in range(2):
            assert torch.equal(held[which], torch.cat([firsts[layer][which][rows], seconds[layer][which]], 2))
    cache.record(torch.tensor([[1, 1], [2, 2]]), torch.tensor([[3, 4], [3, 4]]))
    assert cache.branch.tolist() == [[0, 1, 1, PAD_BRANCH, 1, 1], [0, 0, 0, 1, 2, 2]]
    assert cache.positions.tolist() == [[0, 1, 2, 0, 3, 4], [0, 1, 2, 3, 3, 4]]


def cache_of(tokens: int, seed: int = 0, padding: int = 0) -> GrowingCache:
    """A cache whose one row holds a trunk after some padding."""
    cache = GrowingCache(LAYERS, 1, torch.device("cpu"))
    for layer in range(LAYERS):
        cache.update(*states(1, padding + tokens, seed + layer), layer)
    branch = torch.tensor([[PAD_BRANCH] * padding + [0] * tokens])
    cache.record(branch, torch.tensor([[0] * padding + list(range(tokens))]))
    return cache


def put(store: PrefixStore, session: str, tokens: Sequence[int], seed: int = 0) -> None:
    store.put(session, list(tokens), cache_of(len(tokens), seed), 0)


def test_the_store_finds_the_longest_common_beginning() -> None:
    store = PrefixStore(100)
    assert store.common("a", [1, 2, 3, 4]) == (0, None)
    put(store, "a", [1, 2, 3, 4])
    _, held = store.common("a", [1])
    assert store.common("a", [1, 2, 9, 4])[0] == 2
    assert store.common("a", [1, 2, 3, 4, 5, 6])[0] == 4
    # At least one token is always left to compute.
    assert store.common("a", [1, 2, 3, 4])[0] == 3
    assert store.common("a", [1, 2])[0] == 1
    assert store.common("a", [9, 2, 3, 4]) == (0, None)
    assert store.common("a", [1]) == (0, None)
    assert held is None
    store.clear()
    assert store.common("a", [1, 2, 3, 4]) == (0, None)


def test_a_new_session_begins_with_what_it_shares_with_the_last_one() -> None:
    store = PrefixStore(100)
    put(store, "a", [1, 2, 3, 4])
    put(store, "b", [1, 2, 5])
    for session in ("c", ""):
        length, prefix = store.common(session, [1, 2, 3, 4, 5])
        assert (length, prefix and prefix.tokens) == (2, (1, 2, 5))
    assert store.common("c", [7, 8])[0] == 0


def test_a_new_session_begins_with_one_of_its_family() -> None:
    store = PrefixStore(100)
    for session, tokens in (("q#0", [1, 2, 3, 4]), ("q", [1, 2, 3]), ("r#0", [1, 9, 9])):
        put(store, session, tokens)
    for session, family in (("q#1", (1, 2, 3)), ("r#1", (1, 9, 9)), ("s#0", (1, 9, 9))):
        _, prefix = store.common(session, [1, 2, 3, 4, 5])
        assert prefix is not None
        assert prefix.tokens == family, session


def held_in(store: PrefixStore, sessions: str) -> str:
    """Which of the sessions have a trunk of their own."""
    return "".join(s for s in sessions if s in store._held)


def calls(store: PrefixStore, n: int = 2) -> None:
    for _ in range(n):
        store.next_call()


def test_the_longest_unused_go_first() -> None:
    store = PrefixStore(15)
    for session in "abc":
        put(store, session, range(4))  # room for 4 * 1.25 = 5 each
        calls(store, 1)
    assert store.common("a", range(9))[0] == 4  # used: b is now the longest unused
    calls(store)
    put(store, "d", range(4))
    assert held_in(store, "abcd") == "acd"


def test_sessions_under_way_are_not_driven_out_by_one_more() -> None:
    """32 sessions asked in turn in a store for 27: were the oldest to go, none would ever be found."""
    store = PrefixStore(10)
    found = []
    for _ in range(5):
        store.next_call()
        for session in "abc":
            found.append(store.common(session, [*range(4), ord(session)])[0])
            put(store, session, range(4))
    assert held_in(store, "abc") == "ab"
    # "c" begins with what it shares with another; "a" and "b" find their own from the second call on.
    assert found[3:] == [4, 4, 4] * 4
    calls(store)
    put(store, "c", range(4))
    assert held_in(store, "abc") == "bc"


def test_a_trunk_too_long_for_the_store_is_not_held_and_drops_no_other() -> None:
    store = PrefixStore(10)
    put(store, "a", range(3))
    put(store, "b", range(11))
    assert held_in(store, "ab") == "a"
    # A session whose trunk has grown too long keeps its last one, which is still its beginning.
    put(store, "a", range(11))
    assert store.common("a", range(20))[0] == 3


def test_a_trunk_that_grows_is_copied_only_where_it_is_new() -> None:
    store = PrefixStore(100)
    first = cache_of(8, 1, padding=3)
    store.put("a", range(8), first, 0)
    _, prefix = store.common("a", range(20))
    assert prefix is not None
    assert prefix.room == int(8 * SLACK) == 10
    for layer in range(LAYERS):
        assert torch.equal(prefix.states[layer, 0, :, :8], first.growing[layer].keys[0, :, 3:])
        assert torch.equal(prefix.states[layer, 1, :, :8], first.growing[layer].values[0, :, 3:])
    # Two tokens more, after six in common: the six stay as they were, whatever the cache holds there.
    later = cache_of(10, 5)
    tokens = [0, 1, 2, 3, 4, 5, 60, 70, 80, 90]
    store.put("a", tokens, later, 0)
    _, longer = store.common("a", [*tokens, 1])
    assert longer is not None
    assert longer.states is prefix.states
    assert longer.tokens == tuple(tokens)
    assert torch.equal(longer.states[0, 0, :, :6], first.growing[0].keys[0, :, 3:9])
    assert torch.equal(longer.states[0, 0, :, 6:], later.growing[0].keys[0, :, 6:])
    # One that has outgrown its room gets a new one, and all of it comes from the cache.
    most = cache_of(11, 9)
    store.put("a", [*tokens, 5], most, 0)
    _, moved = store.common("a", [*tokens, 5, 6])
    assert moved is not None
    assert moved.room == int(11 * SLACK)
    assert torch.equal(moved.states[1, 1, :, :11], most.growing[1].values[0])


def prefix_of(tokens: Sequence[int], seed: int) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    return Prefix(tuple(tokens), torch.randn(LAYERS, 2, HEADS, len(tokens), DIM, generator=generator))


def test_trunks_go_in_and_come_out_again() -> None:
    long, short = prefix_of([1, 2, 3, 4, 5], 1), prefix_of([7, 8, 9], 2)
    cache = GrowingCache(LAYERS, 3, torch.device("cpu"))
    preload(cache, [(2, short), (0, None), (5, long)], room=4)
    assert cache.branch.tolist() == [[-1, -1, -1, 0, 0], [-1] * 5, [0] * 5]
    assert cache.positions.tolist() == [[0, 0, 0, 0, 1], [0] * 5, [0, 1, 2, 3, 4]]
    assert cache.get_seq_length() == 5
    for layer, held in enumerate(cache.growing):
        for which, got in enumerate((held.keys, held.values)):
            assert torch.equal(got[0, :, 3:], short.states[layer, which, :, :2])
            assert torch.equal(got[2], long.states[layer, which])
            assert not got[0, :, :3].any()  # numbers, whatever the memory held before
            assert not got[1].any()
    # What is appended to the trunk comes out with it; branches and padding do not.
    new = [states(3, 2, s) for s in range(LAYERS)]
    places = [held.keys.untyped_storage().data_ptr() for held in cache.growing]
    for layer, (k, v) in enumerate(new):
        cache.update(k, v, layer)
    assert [held.keys.untyped_storage().data_ptr() for held in cache.growing] == places  # there was room
    cache.record(torch.tensor([[0, 1], [0, 0], [0, PAD_BRANCH]]), torch.tensor([[2, 3], [0, 1], [5, 0]]))
    store = PrefixStore(100)
    for row, tokens in enumerate(([7, 8, 60], [50, 51], [1, 2, 3, 4, 5, 6])):
        store.put(f"row {row}", tokens, cache, row)
        length, out = store.common(f"row {row}", [*tokens, 0])
        assert out is not None
        assert length == len(tokens)
        for layer, (k, v) in enumerate(new):
            assert torch.equal(out.states[layer, 0, :, length - 1], (k[row, :, int(row == 1)]))
            assert torch.equal(out.states[layer, 1, :, length - 1], (v[row, :, int(row == 1)]))


def test_of_layers_with_unlike_keys_nothing_is_held() -> None:
    cache = GrowingCache(2, 1, torch.device("cpu"))
    keys, values = states(1, 4, 0)
    cache.update(keys, values, 0)
    cache.update(keys[..., :2], values[..., :2], 1)
    cache.record(torch.zeros(1, 4, dtype=torch.long), torch.arange(4)[None])
    store = PrefixStore(100)
    store.put("a", [1, 2, 3, 4], cache, 0)
    assert store.common("a", [1, 2, 3, 4, 5]) == (0, None)
    assert store.max_tokens == 0


def test_preloading_nothing_leaves_the_cache_empty() -> None:
    cache = GrowingCache(LAYERS, 2, torch.device("cpu"))
    preload(cache, [(0, None), (0, None)], room=8)
    assert cache.branch.shape == (2, 0)
    assert cache.get_seq_length() == 0
