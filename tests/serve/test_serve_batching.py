"""What waits is ranked together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from factories import ExampleFactory
from r1ranker.config import RankerConfig
from r1ranker.errors import AssetError, InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.reranker import RankResult, Reranker
from r1ranker.serve import batching
from r1ranker.serve.batching import Batcher, Overloaded
from r1ranker.types import Completion, RankingExample, Request, Sampling


class Gated(ScriptedLLM):
    """Excludes the first candidate; waits at the first call until it is let go. Records which lists each call has."""

    def __init__(self) -> None:
        super().__init__(lambda request: request.choices[0])
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.batches.append([request.session for request in requests])
        self.begun.set()
        assert self.go.wait(20)
        return super().complete(requests, sampling)


class Stepped(ScriptedLLM):
    """Excludes the first candidate; waits at every call until it is let go on."""

    def __init__(self) -> None:
        super().__init__(lambda request: request.choices[0])
        self.called, self.lets = threading.Semaphore(0), threading.Semaphore(0)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.called.release()
        assert self.lets.acquire(timeout=20)
        return super().complete(requests, sampling)


async def begun(llm: Gated) -> None:
    assert await asyncio.to_thread(llm.begun.wait, 20)


def run(llm: ScriptedLLM, play: Callable[[Batcher], Awaitable[Any]], **settings: Any) -> Any:
    """What happens in `play`, beside a batcher that works."""

    async def all_of_it() -> Any:
        batcher = Batcher(Reranker(llm, RankerConfig(thinking=False)), **settings)
        try:
            return await asyncio.wait_for(play(batcher), 30)
        finally:
            batcher.close()

    return asyncio.run(all_of_it())


def asked(batcher: Batcher, example: RankingExample, limit: int | None = None) -> asyncio.Task[RankResult]:
    return asyncio.create_task(batcher.rank(example, limit))


def test_what_waits_goes_together_and_shorter_lists_are_answered_first(make_example: ExampleFactory) -> None:
    llm, order = Gated(), []

    async def play(batcher: Batcher) -> None:
        first = asked(batcher, make_example(2, id="first"))
        await begun(llm)
        others = [asked(batcher, make_example(n, id=f"of {n}")) for n in (4, 2, 3)]
        for task in others:
            task.add_done_callback(lambda task: order.append(task.result().example.id))
        await asyncio.sleep(0)
        assert batcher.waiting == 3
        llm.go.set()
        results = await asyncio.gather(first, *others)
        assert [r.example.id for r in results] == ["first", "of 4", "of 2", "of 3"]
        assert all(len(r) == len(r.example.candidates) for r in results)
        assert batcher.waiting == 0

    run(llm, play)
    assert llm.batches == [["first"], ["of 4", "of 2", "of 3"], ["of 4", "of 3"], ["of 4"]]
    assert order == ["of 2", "of 3", "of 4"]


def test_what_runs_and_for_how_long_is_told(make_example: ExampleFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, now = Stepped(), 100.0
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: now))

    async def play(batcher: Batcher) -> None:
        nonlocal now

        async def called() -> None:
            assert await asyncio.to_thread(llm.called.acquire, timeout=20)

        def told() -> tuple[int, int, float]:
            return batcher.waiting, batcher.running, batcher.running_seconds

        assert told() == (0, 0, 0.0)
        first = asked(batcher, make_example(2, id="first"))
        await called()
        longer, short = (asked(batcher, make_example(n, id=f"of {n}")) for n in (3, 2))
        await asyncio.sleep(0)
        now = 107.5
        assert told() == (2, 1, 7.5)
        llm.lets.release()
        await first
        await called()  # the second batch, begun at 107.5
        now = 110.0
        assert told() == (0, 2, 2.5)
        llm.lets.release()
        await short
        await called()
        now = 111.0
        assert told() == (0, 1, 3.5)  # of the batch, not of what is left of it
        llm.lets.release()
        await longer
        assert told() == (0, 0, 0.0)

    run(llm, play)


def test_a_batch_has_as_many_lists_as_go_side_by_side_and_one_limit(make_example: ExampleFactory) -> None:
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        limits = {"a": None, "b": None, "c": 8, "d": None, "e": 8, "f": None}
        tasks = [asked(batcher, make_example(2, id="first"))]
        await begun(llm)
        tasks += [asked(batcher, make_example(2, id=name), limit) for name, limit in limits.items()]
        await asyncio.sleep(0)
        llm.go.set()
        await asyncio.gather(*tasks)

    run(llm, play, concurrency=3)
    assert llm.batches == [["first"], ["a", "b", "d"], ["c", "e"], ["f"]]


def test_too_many_are_refused_and_those_that_wait_are_ranked(make_example: ExampleFactory) -> None:
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        first = asked(batcher, make_example(2, id="first"))
        await begun(llm)
        waiting = [asked(batcher, make_example(2, id=f"w{k}")) for k in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 lists wait already: try again later"):
            await batcher.rank(make_example(2, id="late"))
        llm.go.set()
        await asyncio.gather(first, *waiting)
        assert (await batcher.rank(make_example(2, id="again"))).example.id == "again"

    run(llm, play, most_waiting=2)


def test_who_leaves_is_not_ranked_for(make_example: ExampleFactory) -> None:
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        first = asked(batcher, make_example(2, id="first"))
        await begun(llm)
        gone, stays = (asked(batcher, make_example(2, id=name)) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        gone.cancel()
        await asyncio.wait([gone])
        assert batcher.waiting == 1
        late = asked(batcher, make_example(2, id="late"))  # there is room again
        llm.go.set()
        assert (await stays).example.id == "stays"
        await first
        await late

    run(llm, play, concurrency=1, most_waiting=2)
    assert llm.batches == [["first"], ["stays"], ["late"]]


def test_who_leaves_while_it_is_ranked_disturbs_no_other(make_example: ExampleFactory) -> None:
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        gone = asked(batcher, make_example(3, id="gone"))
        await begun(llm)
        gone.cancel()
        stays = asked(batcher, make_example(2, id="stays"))
        llm.go.set()
        assert (await stays).example.id == "stays"

    run(llm, play)
    assert llm.batches == [["gone"], ["gone"], ["stays"]]


def test_an_error_of_one_list_is_its_own(make_example: ExampleFactory) -> None:
    def refuses(request: Request) -> str:
        if request.session == "bad":
            raise InputError("not this one")
        return request.choices[0]

    async def play(batcher: Batcher) -> None:
        good, bad = (asked(batcher, make_example(2, id=name)) for name in ("good", "bad"))
        assert (await good).example.id == "good"
        with pytest.raises(InputError, match="not this one"):
            await bad
        assert (batcher.running, batcher.running_seconds) == (0, 0.0)

    run(ScriptedLLM(refuses), play)


@pytest.mark.parametrize("error", [AssetError("gone"), MemoryError("full")])
def test_an_error_of_the_model_is_everybodys_and_it_goes_on(make_example: ExampleFactory, error: Exception) -> None:
    failing = True

    def fails(request: Request) -> str:
        if failing:
            raise error
        return request.choices[0]

    async def play(batcher: Batcher) -> None:
        nonlocal failing
        tasks = [asked(batcher, make_example(2, id=f"e{k}")) for k in range(3)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes == [error] * 3
        assert (batcher.running, batcher.running_seconds) == (0, 0.0)
        failing = False
        assert (await batcher.rank(make_example(3, id="again"))).example.id == "again"

    run(ScriptedLLM(fails), play)


def test_the_same_list_twice_goes_one_after_the_other(make_example: ExampleFactory) -> None:
    """A model keeps what it read by a list's id."""
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        tasks = [asked(batcher, make_example(2, id="first"))]
        await begun(llm)
        tasks += [asked(batcher, make_example(2, id=name)) for name in ("a", "b", "a")]
        await asyncio.sleep(0)
        llm.go.set()
        assert [r.example.id for r in await asyncio.gather(*tasks)] == ["first", "a", "b", "a"]

    run(llm, play)
    assert llm.batches == [["first"], ["a", "b"], ["a"]]


@pytest.mark.parametrize(("own", "limits"), [(None, (None, 6)), (6, (None, 6, 9))])
def test_limits_that_change_nothing_part_no_batch(
    make_example: ExampleFactory, own: int | None, limits: tuple[int | None, ...]
) -> None:
    llm = Gated()

    async def play(batcher: Batcher) -> None:
        batcher.reranker = Reranker(llm, RankerConfig(thinking=False, document_tokens=own))
        tasks = [asked(batcher, make_example(2, id="first"))]
        await begun(llm)
        tasks += [asked(batcher, make_example(2, id=str(limit)), limit) for limit in limits]
        await asyncio.sleep(0)
        llm.go.set()
        await asyncio.gather(*tasks)

    run(llm, play)
    assert llm.batches[1:] == ([["None"], ["6"]] if own is None else [["None", "6", "9"]])


def test_what_is_closed_begins_again(make_example: ExampleFactory) -> None:
    async def play(batcher: Batcher) -> None:
        for name in ("a", "b"):
            assert (await batcher.rank(make_example(2, id=name))).example.id == name
            thread = batcher._thread
            assert thread is not None
            assert thread.daemon  # no process waits for it
            batcher.close()
            await asyncio.to_thread(thread.join, 20)
            assert not thread.is_alive()

    run(ScriptedLLM(lambda request: request.choices[0]), play)
