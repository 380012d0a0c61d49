"""The routes, over scripted LLMs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from r1ranker.config import RankerConfig
from r1ranker.errors import AssetError, InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.reranker import Reranker
from r1ranker.serve import app as server
from r1ranker.serve import batching, guard, metrics
from r1ranker.types import Completion, Request, Sampling

DOCUMENTS = ["A town.", "Jane Austen wrote Emma.", "Melville wrote Moby-Dick."]
ASK = {"query": "who wrote Emma?", "documents": DOCUMENTS}
NO_THINKING = RankerConfig(thinking=False, answer_form="name")


def least_like_emma(request: Request) -> str:
    """Excludes the town first, then Melville."""
    return next(c for word in ("town", "Melville", "Emma") for c in request.choices if word in c)


@contextmanager
def client(llm: ScriptedLLM | None = None, config: RankerConfig = NO_THINKING, **settings: Any) -> Iterator[TestClient]:
    reranker = Reranker(llm or ScriptedLLM(least_like_emma), config)
    with TestClient(server.create_app(reranker, "tiny", **settings), raise_server_exceptions=False) as asked:
        yield asked


def places(reply: Any) -> list[int]:
    assert reply.status_code == 200, reply.text
    return [result["index"] for result in reply.json()["results"]]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_come_back_best_first(path: str) -> None:
    with client() as asked:
        reply = asked.post(path, json={**ASK, "model": "tiny", "priority": 3, "rank_fields": ["text"]})
    assert places(reply) == [1, 2, 0]
    answer = reply.json()
    assert [r["relevance_score"] for r in answer["results"]] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [r["document"]["text"] for r in answer["results"]] == [DOCUMENTS[k] for k in (1, 2, 0)]
    assert all(r.keys() == {"index", "relevance_score", "document"} for r in answer["results"])
    assert answer["model"] == "tiny"
    assert (answer["truncated"], answer["defaulted"]) == (0, 0)
    assert "trace" not in answer


def test_tokens_are_those_of_all_turns() -> None:
    llm = ScriptedLLM(least_like_emma)
    with client(llm) as asked:
        answer = asked.post("/rerank", json=ASK).json()
    prompts = [len(f"{r.prompt.system} {r.prompt.user}".split()) for r in llm.requests]
    labels = [sum(len(c.split()) for c in r.choices) for r in llm.requests]
    assert len(prompts) == 2
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (sum(prompts), sum(labels))
    assert usage["total_tokens"] == sum(prompts) + sum(labels)
    assert usage["calls"] == 2
    assert answer["meta"]["tokens"] == {"input_tokens": sum(prompts), "output_tokens": sum(labels)}
    assert answer["meta"]["billed_units"] == {"search_units": 1}


@pytest.mark.parametrize(("top_n", "expected"), [(None, [1, 2, 0]), (0, [1, 2, 0]), (2, [1, 2]), (9, [1, 2, 0])])
def test_top_n(top_n: int | None, expected: list[int]) -> None:
    with client() as asked:
        reply = asked.post("/rerank", json={**ASK, "top_n": top_n})
    assert places(reply) == expected
    assert reply.json()["results"][1]["relevance_score"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"top_k": 2}, [1, 2]),
        ({"top_k": 0}, [1, 2, 0]),
        ({"top_k": 1, "top_n": 1}, [1]),
        ({"top_k": 2, "top_n": None}, [1, 2]),
        ({"top_k": None, "top_n": 1}, [1]),
    ],
)
def test_top_k_is_another_name_of_top_n(top: dict[str, int | None], expected: list[int]) -> None:
    with client() as asked:
        assert places(asked.post("/rerank", json={**ASK, **top})) == expected


def test_documents_can_be_objects_and_need_not_come_back() -> None:
    documents = [{"id": "x", "text": "A town."}, {"id": "x", "text": "Emma", "name": 7}, "Melville wrote Moby-Dick."]
    with client() as asked:
        reply = asked.post("/rerank", json={"query": "q", "documents": documents, "return_documents": False})
    assert places(reply) == [1, 2, 0]
    assert all("document" not in result for result in reply.json()["results"])


def test_a_title_is_read_before_its_text() -> None:
    titled = [{"title": "Ohio", "text": "A town."}, {"title": 3, "text": "Emma"}]
    with client() as asked:
        reply = asked.post("/rerank", json={"query": "q", "documents": titled}).json()
    assert {r["index"]: r["document"]["text"] for r in reply["results"]} == {0: "Ohio A town.", 1: "Emma"}


def test_a_trace_tells_every_turn() -> None:
    with client() as asked:
        trace = asked.post("/rerank", json={**ASK, "trace": True}).json()["trace"]
    assert [(turn["remaining"], turn["excluded"]) for turn in trace] == [(["0", "1", "2"], "0"), (["1", "2"], "2")]
    # Scores of 0 and -1, times the sharpness of 3.
    assert trace[1]["probabilities"] == pytest.approx({"1": 0.0474, "2": 0.9526}, abs=1e-4)


def test_turns_whose_answer_names_no_candidate_are_counted() -> None:
    replies = ["t</think><answer>a b</answer>", "t</think><answer>Nobody</answer>", "t"]
    documents = ["a b", "c d", "e f", "g h"]
    with client(ScriptedLLM(replies), RankerConfig(answer_form="name")) as asked:
        reply = asked.post("/rerank", json={"query": "q", "documents": documents, "trace": True})
    # The second turn names none and the third has no answer: each time the last that is left goes.
    assert places(reply) == [1, 2, 3, 0]
    assert [turn["status"] for turn in reply.json()["trace"]] == ["exact", "defaulted", "failed"]
    assert reply.json()["defaulted"] == 2


def test_what_rankers_here_add_reaches_the_prompt() -> None:
    llm = ScriptedLLM(lambda request: request.choices[0])
    film = {"history": ["Heat (1995)"], "documents": ["Babe (1995)", "Fargo (1996)"], "item_type": "film"}
    route = {"query": "prove it", "documents": [{"name": "small", "text": "cheap"}, {"name": "large", "text": "dear"}]}
    with client(llm) as asked:
        assert places(asked.post("/rerank", json=film)) == [1, 0]
        assert places(asked.post("/rerank", json={**route, "scenario": "routing", "goal": "fast"})) == [1, 0]
        assert places(asked.post("/rerank", json={**ASK, "presorted": True})) == [2, 1, 0]
        assert places(asked.post("/rerank", json=ASK)) == [2, 1, 0]
    films, routing, presorted, _, plain, _ = (request.prompt.user for request in llm.requests)
    assert "Heat (1995)" in films
    assert "film" in films
    assert "small: cheap" in routing
    assert "answer this query, fast." in routing
    assert len(presorted) > len(plain)


class Judge(ScriptedLLM):
    """Gives yes log-prob 0, and no 2 less for each word of the candidate."""

    def __init__(self) -> None:
        super().__init__(lambda _: "yes")

    def complete(self, requests: Any, sampling: Sampling) -> list[Completion]:
        def judged(request: Request, completion: Completion) -> Completion:
            words = len(request.prompt.user.rpartition("Candidate:\n")[2].split())
            return replace(completion, choice_logprobs=(0.0, -2.0 * words))

        told = super().complete(requests, sampling)
        return [judged(r, c) for r, c in zip(requests, told, strict=True)]


def test_pointwise_answers_with_probabilities() -> None:
    with client(Judge(), RankerConfig(kind="pointwise")) as asked:
        reply = asked.post("/rerank", json={"query": "q", "documents": ["one", "one two", "one two three"]})
        cut = asked.post("/rerank", json={"query": "q", "documents": ["one", "one two"], "trace": True}).json()
    assert places(reply) == [2, 1, 0]
    results = reply.json()["results"]
    assert [r["model_score"] for r in results] == pytest.approx([6, 4, 2])
    # 1 / (1 + e^-6), …
    assert [r["relevance_score"] for r in results] == pytest.approx([0.99753, 0.98201, 0.88080], abs=1e-5)
    assert [turn["yes"] for turn in cut["trace"]] == pytest.approx([0.88080, 0.98201], abs=1e-5)


def test_a_single_document_is_judged_too() -> None:
    with client(Judge(), RankerConfig(kind="pointwise")) as asked:
        (result,) = asked.post("/rerank", json={"query": "q", "documents": ["one two"]}).json()["results"]
    assert result["relevance_score"] == pytest.approx(0.98201, abs=1e-5)
    with client() as asked:
        (result,) = asked.post("/rerank", json={"query": "q", "documents": ["one two"]}).json()["results"]
    assert result["relevance_score"] == 1.0  # of one place the first


def test_what_a_budget_left_unjudged_scores_nothing() -> None:
    with client(Judge(), RankerConfig(kind="pointwise", budget_calls=1)) as asked:
        results = asked.post("/rerank", json={"query": "q", "documents": ["one", "one two"]}).json()["results"]
    assert [(r["index"], r["relevance_score"]) for r in results] == [(0, pytest.approx(0.8808, abs=1e-4)), (1, 0.0)]


def test_documents_without_a_text_come_last_unasked() -> None:
    judge, llm = Judge(), ScriptedLLM(least_like_emma)
    with client(judge, RankerConfig(kind="pointwise")) as asked:
        reply = asked.post("/rerank", json={"query": "q", "documents": ["", "one", " \n", "one two"]})
    assert places(reply) == [3, 1, 0, 2]
    results = reply.json()["results"]
    assert [r["relevance_score"] for r in results] == pytest.approx([0.98201, 0.88080, 0, 0], abs=1e-5)
    assert ["model_score" in r for r in results] == [True, True, False, False]
    assert len(judge.requests) == 2
    with client(judge, RankerConfig(kind="pointwise")) as asked:
        assert places(asked.post("/rerank", json={"query": "q", "documents": ["", " "]})) == [0, 1]
    with client(llm) as asked:
        reply = asked.post("/rerank", json={**ASK, "documents": ["", *DOCUMENTS]})
        assert places(reply) == [2, 3, 1, 0]
        assert [r["relevance_score"] for r in reply.json()["results"]] == [1, 0.75, 0.5, 0.25]
        assert len(llm.requests) == 2


@pytest.mark.parametrize(("own", "asked_for", "words"), [(None, 6, 6), (4, 6, 4), (8, 6, 6), (8, None, 8)])
def test_texts_are_cut_to_what_is_asked_for(own: int | None, asked_for: int | None, words: int) -> None:
    llm = ScriptedLLM(lambda request: request.choices[0])
    long = [" ".join(f"{name}{k}" for k in range(20)) for name in "xy"]
    with client(llm, NO_THINKING.model_copy(update={"document_tokens": own})) as asked:
        body = {"query": "q", "documents": long, "max_tokens_per_doc": asked_for}
        answer = asked.post("/rerank", json=body).json()
    assert answer["truncated"] == 2
    assert [r["document"]["text"] for r in answer["results"]] == long[::-1]  # as it was sent
    prompt = llm.requests[0].prompt.user
    assert f"x{words - 1}…" in prompt
    assert f"x{words}" not in prompt


# What is refused


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({**ASK, "model": "large"}, 404, "'large' is not served here, 'tiny' is"),
        ({**ASK, "documents": []}, 422, "documents"),
        ({"query": "q"}, 422, "documents: Field required"),
        ({"documents": ["a"]}, 400, "there is no context"),
        ({**ASK, "documents": ["a", 3]}, 422, "documents.1"),
        ({**ASK, "documents": [{"id": "a"}]}, 422, "documents.0"),
        ({**ASK, "model": "\ud800\n"}, 404, r"'\ud800\n' is not served here"),
        ({**ASK, "documents": ["x"] * 6}, 413, "6 documents: this server takes 5 at most"),
        (
            {**ASK, "history": ["x" * 12, "y" * 10], "item_type": "book", "goal": "ok"},
            413,
            "43 characters of query, history, item type and goal: this server takes 42 at most (--max-query-char",
        ),
        ({**ASK, "goal": "well"}, 400, "a goal is for routing; passage has none: leave it out"),
        ({**ASK, "query": "x" * 43}, 413, "43 characters"),
        ({**ASK, "top_n": -1}, 422, "top_n"),
        ({**ASK, "top_k": -1}, 422, "top_k"),
        ({**ASK, "top_n": 1, "top_k": 2}, 422, "top_n and top_k mean the same: send one, or both alike"),
        ({**ASK, "top_n": 0, "top_k": 2}, 422, "top_n and top_k mean the same: send one, or both alike"),
        ({**ASK, "max_tokens_per_doc": 1}, 422, "max_tokens_per_doc"),
        ({**ASK, "scenario": "music"}, 422, "scenario"),
        ({**ASK, "history": "Heat"}, 422, "history"),
        ({**ASK, "query": "\ud800"}, 400, "give texts that UTF-8 can hold"),
    ],
)
def test_what_cannot_be_ranked_is_refused_with_one_message(body: dict[str, Any], status: int, said: str) -> None:
    llm = ScriptedLLM(least_like_emma)
    with client(llm, max_documents=5, max_query_characters=42) as asked:
        reply = asked.post("/rerank", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert places(asked.post("/rerank", json=ASK)) == [1, 2, 0]  # the next one is served
    assert reply.status_code == status
    assert reply.json().keys() == {"message"}
    assert said in reply.json()["message"]
    assert "\n" not in reply.json()["message"]


def test_the_query_and_history_may_have_as_many_characters_as_are_taken() -> None:
    with client(max_query_characters=42) as asked:  # 15 of the query, 13 and 14
        assert places(asked.post("/rerank", json={**ASK, "history": ["x" * 13, "y" * 14]})) == [1, 2, 0]
    with client() as asked:
        for n, status in ((20_000, 200), (20_001, 413)):
            assert asked.post("/rerank", json={**ASK, "query": "x" * n}).status_code == status


def test_what_is_no_json_is_refused() -> None:
    with client() as asked:
        reply = asked.post("/rerank", content="{query", headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json().keys()) == (422, {"message"})
        other = asked.get("/nowhere")
        assert (other.status_code, other.json()) == (404, {"message": "Not Found"})


def test_a_list_that_cannot_fit_leaves_the_others() -> None:
    llm = ScriptedLLM(least_like_emma, context_tokens=700)
    with client(llm) as asked:
        reply = asked.post("/rerank", json={**ASK, "documents": ["a b c d e"] * 80})
        assert places(asked.post("/rerank", json=ASK)) == [1, 2, 0]
    assert reply.status_code == 400
    assert "80 candidates do not fit" in reply.json()["message"]


def test_a_large_request_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LARGEST_BODY", 1000)
    read = 0

    def parts() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 100
            yield b"x" * 100

    with client() as asked:
        told = {"message": "the request has more than 1,000 bytes"}
        reply = asked.post("/rerank", json={**ASK, "query": "x" * 1000})
        assert (reply.status_code, reply.json()) == (413, told)
        reply = asked.post("/rerank", content=parts(), headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json()) == (413, told)
        assert places(asked.post("/rerank", json=ASK)) == [1, 2, 0]
    assert read


def test_a_body_that_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "READ_SECONDS", 0.05)
    sent: list[Any] = []

    async def play() -> None:
        messages: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive() -> Any:
            return messages.pop(0) if messages else await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/rerank", "headers": headers, "query_string": b""}
        await asyncio.wait_for(server.create_app(Reranker(ScriptedLLM([])), "tiny")(scope, receive, send), 20)

    asyncio.run(play())
    assert sent[0]["status"] == 408
    assert b"nothing more of the request came" in sent[1]["body"]


def test_a_client_that_leaves_is_not_ranked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY", 0.02)
    begun, go = threading.Event(), threading.Event()

    def waits(request: Request) -> str:
        begun.set()
        assert go.wait(20)
        return least_like_emma(request)

    llm = ScriptedLLM(waits)

    async def ask(app: Any, query: str, stays: asyncio.Event) -> int:
        body, sent = json.dumps({**ASK, "query": query}).encode(), []
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if not messages:
                await stays.wait()
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/rerank", "headers": headers, "query_string": b""}
        await app(scope, receive, send)
        return int(sent[0]["status"])

    async def play() -> list[int]:
        app = server.create_app(Reranker(llm, NO_THINKING), "tiny")
        forever, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(ask(app, "first", forever))
        assert await asyncio.to_thread(begun.wait, 20)
        gone = asyncio.create_task(ask(app, "gone", leaves))
        await asyncio.sleep(0.1)
        leaves.set()
        statuses = [await gone]
        go.set()
        return [*statuses, await first]

    assert asyncio.run(play()) == [499, 200]
    assert llm.requests
    assert not any("gone" in request.prompt.user for request in llm.requests)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (AssetError("http://far did not answer"), 502, "http://far did not answer"),
        (RuntimeError("secret"), 500, "the ranking failed (RuntimeError): the server's log says more"),
    ],
)
def test_a_model_that_fails_is_told_and_asked_again(error: Exception, status: int, said: str) -> None:
    def fails(request: Request) -> str:
        if "boom" in request.prompt.user:
            raise error
        return least_like_emma(request)

    with client(ScriptedLLM(fails)) as asked:
        reply = asked.post("/rerank", json={**ASK, "query": "boom"})
        assert (reply.status_code, reply.json()) == (status, {"message": said})
        assert places(asked.post("/rerank", json=ASK)) == [1, 2, 0]


# Who may ask, and for what


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "s3cret-ключ", "Bearer", "Basic s3cret-ключ", "Bearer  ", "Bearer s3cret"]
)
def test_without_the_key_nothing_is_read(header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    with client(api_key="s3cret-ключ") as asked:
        for reply in (
            asked.post("/rerank", content="{no json", headers={**headers, "Content-Type": "application/json"}),
            asked.get("/v1/models", headers=headers),
            asked.get("/openapi.json", headers=headers),
            asked.get("/metrics", headers=headers),
            asked.get("/nowhere", headers=headers),
        ):
            assert reply.status_code == 401
            assert "Authorization: Bearer KEY" in reply.json()["message"]
        assert asked.get("/health").status_code == asked.head("/health").status_code == 200  # for probes
        assert asked.get("/").status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_key_anyone_may_ask(scheme: str) -> None:
    own = {"Authorization": f"{scheme} s3cret-ключ".encode()}
    with client(api_key="s3cret-ключ") as asked:
        assert places(asked.post("/rerank", json=ASK, headers=own)) == [1, 2, 0]
        assert asked.get("/v1/models", headers=own).status_code == 200
        assert asked.get("/metrics", headers=own).status_code == 200


@pytest.mark.parametrize("key", ["", " "])
def test_an_empty_key_is_none_at_all(key: str) -> None:
    with pytest.raises(InputError, match="the key is empty"), client(api_key=key):
        pass


def test_a_page_of_another_site_can_ask_nothing() -> None:
    body = json.dumps(ASK)
    with client(hosts={"localhost", "127.0.0.1", "[::1]"}) as asked:
        for kind in ({}, {"Content-Type": "text/plain"}):
            reply = asked.post("/rerank", content=body, headers={"Host": "localhost", **kind})
            assert (reply.status_code, reply.json()["message"][:17]) == (415, "a request is JSON")
        for host in ("evil.example", "evil.example:8080", "localhost.evil.example", ""):
            reply = asked.get("/health", headers={"Host": host})
            assert reply.status_code == 400
            assert "is not this machine's name" in reply.json()["message"]
        for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080"):
            assert places(asked.post("/rerank", json=ASK, headers={"Host": host})) == [1, 2, 0]


def test_null_is_the_same_as_nothing() -> None:
    fields = ["model", "top_n", "return_documents", "max_tokens_per_doc", "history", "presorted", "item_type", "goal"]
    nothing = dict.fromkeys([*fields, "trace"])
    with client() as asked:
        reply = asked.post("/rerank", json={**ASK, **nothing})
        assert places(reply) == [1, 2, 0]
        assert all("document" in result for result in reply.json()["results"])
        assert asked.post("/rerank", json={**ASK, "documents": None}).status_code == 422


def test_many_wrong_documents_are_told_as_one() -> None:
    with client() as asked:
        reply = asked.post("/rerank", json={**ASK, "documents": [0] * 10_000})
        assert reply.status_code == 422
        assert len(reply.content) < 1000
        wrong = {**ASK, "top_n": -1, "presorted": [], "item_type": 1, "trace": 7, "query": 5, "max_tokens_per_doc": 1}
        assert asked.post("/rerank", json=wrong).json()["message"].endswith("; and 1 more")


def test_the_same_request_has_the_same_ranking_in_shuffled_orders() -> None:
    llm = ScriptedLLM(lambda request: request.choices[0])  # goes by the order alone
    with client(llm, RankerConfig(kind="first_step", orders=4)) as asked:
        replies = [places(asked.post("/rerank", json={**ASK, "documents": list("abcdefgh")})) for _ in range(4)]
        ids = {asked.post("/rerank", json=ASK).json()["id"] for _ in range(2)}
    assert len(set(map(tuple, replies))) == 1
    assert len(ids) == 2


def test_a_model_has_its_name_and_aliases() -> None:
    with client(aliases=["rerank-v3.5"]) as asked:
        names = [row["id"] for row in asked.get("/v1/models").json()["data"]]
        assert names == ["tiny", "rerank-v3.5"]
        for name in (*names, "", None):
            reply = asked.post("/rerank", json={**ASK, "model": name})
            assert places(reply) == [1, 2, 0]
            assert reply.json()["model"] == "tiny"
        idle = {"waiting": 0, "running": 0, "running_seconds": 0.0}
        assert asked.get("/health").json() == {"status": "ok", "model": "tiny", **idle}


# What is told of the server itself


def numbers(asked: TestClient) -> dict[str, float]:
    """What /metrics tells, by name and label, but for when each began."""
    reply = asked.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    samples = [s for family in text_string_to_metric_families(reply.text) for s in family.samples]
    return {"/".join([s.name, *s.labels.values()]): s.value for s in samples if not s.name.endswith("_created")}


class Counting(ScriptedLLM):
    """Every turn reads 100 tokens, 40 of them from its cache, and writes 7."""

    def complete(self, requests: Any, sampling: Sampling) -> list[Completion]:
        told = super().complete(requests, sampling)
        return [replace(c, prompt_tokens=100, cached_tokens=40, completion_tokens=7) for c in told]


def test_what_is_ranked_is_counted() -> None:
    replies = ["t</think><answer>Nobody</answer>", "t</think><answer>A town.</answer>", "t"]
    with client(Counting(replies), RankerConfig(answer_form="name")) as asked, client() as other:
        asked.post("/rerank", json={**ASK, "top_n": 1})
        long = [" ".join(f"{name}{k}" for k in range(20)) for name in "xy"]
        asked.post("/rerank", json={"query": "q", "documents": long, "max_tokens_per_doc": 6})
        told, others = numbers(asked), numbers(other)
    assert told["r1ranker_documents_total"] == 5
    # Two turns of three documents, and one of two.
    assert [told[f"r1ranker_tokens_total/{kind}"] for kind in ("prompt", "completion", "cached")] == [300, 21, 120]
    assert told["r1ranker_truncated_texts_total"] == 2
    assert told["r1ranker_defaulted_turns_total"] == 2
    assert told["r1ranker_requests_total/200"] == 2
    assert others["r1ranker_documents_total"] == 0  # each app has its own


def test_requests_are_counted_by_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are refused unread, and those that fail."""
    clock = iter(range(0, 1000, 3))  # 3 seconds each
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def fails(request: Request) -> str:
        if "boom" in request.prompt.user:
            raise RuntimeError
        return least_like_emma(request)

    own = {"Authorization": "Bearer key"}
    with client(ScriptedLLM(fails), api_key="key") as asked:
        for path in ("/rerank", "/v2/rerank"):
            asked.post(path, json=ASK, headers=own)
        for body in ({}, {**ASK, "top_n": -1}, {**ASK, "model": "x"}, {**ASK, "query": "boom"}):
            asked.post("/v1/rerank", json=body, headers=own)
        asked.post("/rerank", json=ASK)
        asked.get("/health")
        asked.get("/nowhere", headers=own)
        asked.headers.update(own)
        told = numbers(asked)
    requests = {name: n for name, n in told.items() if name.startswith("r1ranker_requests")}
    assert requests == {
        f"r1ranker_requests_total/{k}": n for k, n in ((200, 2), (422, 2), (404, 1), (500, 1), (401, 1))
    }
    # Of those that were ranked, each took 3 seconds.
    assert (told["r1ranker_request_seconds_count"], told["r1ranker_request_seconds_sum"]) == (2, 6)
    assert [told[f"r1ranker_request_seconds_bucket/{le}"] for le in ("2.5", "5.0", "+Inf")] == [0, 2, 2]


def test_a_server_that_is_stuck_is_told_from_an_idle_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now, begun, go = 100.0, threading.Event(), threading.Event()
    monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: now))

    def waits(request: Request) -> str:
        begun.set()
        assert go.wait(20)
        return least_like_emma(request)

    gauges = ("r1ranker_lists_waiting", "r1ranker_lists_running", "r1ranker_running_seconds")
    with client(ScriptedLLM(waits)) as asked, ThreadPoolExecutor() as threads:
        reply = threads.submit(asked.post, "/rerank", json=ASK)
        try:
            assert begun.wait(20)
            now = 107.5
            health, told = asked.get("/health").json(), numbers(asked)
        finally:
            go.set()
        assert places(reply.result(20)) == [1, 2, 0]
        after = numbers(asked)
    assert (health["waiting"], health["running"], health["running_seconds"]) == (0, 1, 7.5)
    assert [told[name] for name in gauges] == [0, 1, 7.5]
    assert [after[name] for name in gauges] == [0, 0, 0]


# The page


def test_the_page_asks_no_other_server() -> None:
    with client() as asked:
        page = asked.get("/")
        described = asked.get("/openapi.json").json()
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>r1ranker</title>" in page.text
    assert "//" not in page.text
    assert "answer.defaulted" in page.text
    fields = described["components"]["schemas"]["RerankRequest"]["properties"]
    assert {"query", "documents", "top_n", "max_tokens_per_doc", "history"} <= fields.keys()
