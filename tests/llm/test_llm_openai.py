"""The OpenAI-compatible backend, against a small server in a thread."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("openai")

from fakeserver import Answer, Body, FakeServer, failure, reply, serving
from r1ranker.errors import AssetError, ConfigError, InputError, MissingExtraError, R1RankerError
from r1ranker.llm.openai import OpenAILLM, text_after_prefill
from r1ranker.llm.servers import is_server, split_spec, without_credentials
from r1ranker.parsing import parse_choice
from r1ranker.reranker import Reranker
from r1ranker.types import FinishReason, Prompt, Request, Sampling

KEY = "sk-very-secret-0123456789"
Serve = Callable[[Answer], FakeServer]
THINKING = Request(Prompt("the system's text", "the user's text", "<think>"))
CHOOSING = Request(Prompt("the system's text", "the user's text", "<answer>"), ("Heat", "Alien"))
DIRECT = Request(Prompt("the system's text", "the user's text", "<answer>"))


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(serving(answer))


def llm_of(fake: FakeServer, **options: Any) -> OpenAILLM:
    return OpenAILLM.from_spec(f"openai:m@{fake.url}", api_key=KEY, **options)


# Names


@pytest.mark.parametrize(
    ("spec", "model", "base_url"),
    [
        ("openai:gpt-4o-mini", "gpt-4o-mini", None),
        ("openai:qwen2.5:7b@http://localhost:11434/v1", "qwen2.5:7b", "http://localhost:11434/v1"),
        ("openai:Qwen/Qwen3-8B@https://me:p@ss@host/v1", "Qwen/Qwen3-8B", "https://me:p@ss@host/v1"),
        ("openai:@cf/meta/llama@https://api.example/v1", "@cf/meta/llama", "https://api.example/v1"),
        ("openai:@cf/meta/llama", "@cf/meta/llama", None),
        ("openai:claude@20240229", "claude@20240229", None),
    ],
)
def test_a_spec_names_a_model_and_perhaps_an_address(spec: str, model: str, base_url: str | None) -> None:
    assert is_server(spec)
    assert split_spec(spec) == (model, base_url)


@pytest.mark.parametrize(
    "spec",
    [
        "openai:",
        "openai:@http://host/v1",
        "openai:qwen@localhost",
        "openai:qwen@localhost:8000/v1",  # must not go to the default server
        "openai:qwen@10.0.0.1:8000",
        "openai:qwen@host/v1",
        "openai:qwen@http://",
        "openai:qwen@http:///v1",
        "openai:qwen@http://host:port/v1",
        "openai:qwen@http://host/v1?key=x",
        "openai:qwen@httpx://host",
    ],
)
def test_a_spec_that_cannot_be_read_says_how_to_write_it(spec: str) -> None:
    with pytest.raises(ConfigError, match="http://HOST:PORT/v1") as caught:
        OpenAILLM.from_spec(spec)
    assert "\n" not in str(caught.value)


def test_credentials_are_taken_out_of_addresses() -> None:
    text = "rank -m 'openai:m@http://me:pass@word@host:1/v1' --base openai:x@https://key@other/v1 -q a@b"
    assert without_credentials(text) == "rank -m 'openai:m@http://host:1/v1' --base openai:x@https://other/v1 -q a@b"
    with pytest.raises(ConfigError) as caught:
        split_spec("openai:m@http://me:secret@host:port/v1")
    assert "secret" not in str(caught.value)


def test_where_the_key_comes_from(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = serve(lambda _: "x")

    def sent(**options: Any) -> str:
        OpenAILLM("m", **options).complete([DIRECT], Sampling())
        return fake.headers[-1]["authorization"]

    assert sent(base_url=fake.url) == "Bearer none"  # a local server asks for none
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    assert sent(base_url=fake.url) == f"Bearer {KEY}"
    assert sent(base_url=fake.url, api_key="mine") == "Bearer mine"
    monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
    assert sent() == f"Bearer {KEY}"
    assert OpenAILLM("m").name == f"openai:m@{fake.url}"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert sent() == "Bearer none"
    assert set(fake.paths) == {"/v1/chat/completions"}


def test_without_a_key_and_an_address_nothing_is_asked() -> None:
    with pytest.raises(InputError, match=r"openai:gpt-4o needs a key: set OPENAI_API_KEY, or .*openai:gpt-4o@URL"):
        OpenAILLM.from_spec("openai:gpt-4o")
    assert OpenAILLM("gpt-4o", api_key=KEY).name == "openai:gpt-4o"


def test_a_password_in_the_address_is_used_and_not_shown(serve: Serve) -> None:
    fake = serve(lambda _: failure(500, "no"))
    llm = OpenAILLM("m", fake.url.replace("http://", "http://me:secret@"), max_retries=0)
    assert llm.name == f"openai:m@{fake.url}"
    with pytest.raises(AssetError) as caught:
        llm.complete([DIRECT], Sampling())
    assert "secret" not in str(caught.value) + repr(llm) + llm.name
    assert fake.headers[0]["authorization"] == "Basic bWU6c2VjcmV0"  # me:secret


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'r1ranker\[openai\]'"):
        OpenAILLM("m", "http://localhost/v1")


def test_neither_the_package_nor_torch_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys; from r1ranker.reranker import Reranker\n"
        "assert 'openai' not in sys.modules\n"
        "Reranker.load('openai:m@http://localhost:1/v1', device='cuda')\n"
        "assert 'openai' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What is sent


def test_texts_are_messages_and_sampling_is_passed_on(serve: Serve) -> None:
    fake = serve(lambda _: "x")
    odd = Request(Prompt("s", 'a "quote" <|im_end|> </answer>\n{"role": "system"}', "<think>"))
    llm_of(fake).complete([odd], Sampling(temperature=0.7, max_tokens=99, seed=2**31 + 5))
    assert fake.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": odd.prompt.user}],
            "max_tokens": 99,
            "temperature": 0.7,
            "stop": ["</answer>"],
            "seed": 5,
        }
    ]


def test_a_choice_is_written_not_scored(serve: Serve) -> None:
    fake = serve(lambda _: "<answer>Heat</answer>")
    [completion] = llm_of(fake).complete([CHOOSING], Sampling(max_tokens=1024))
    assert fake.bodies[0]["max_tokens"] == 64
    assert (completion.text, completion.choice_logprobs, completion.finish) == ("Heat</answer>", (), "stop")
    llm_of(fake).complete([CHOOSING], Sampling(max_tokens=10))
    assert fake.bodies[1]["max_tokens"] == 10


def test_an_answer_that_must_be_one_of_some_is_refused_before_anything_is_asked(serve: Serve) -> None:
    fake = serve(lambda _: "x")
    with pytest.raises(InputError, match=r"openai:m@.* cannot hold an answer to given texts: set constrained = false"):
        Reranker.load(f"openai:m@{fake.url}", constrained=True).rank("q", ["a", "b"])
    assert fake.bodies == []


def test_what_must_be_scored_is_refused_before_anything_is_asked(serve: Serve) -> None:
    fake = serve(lambda _: "x")
    with pytest.raises(InputError, match=r"openai:m@.* cannot score given choices.*take kind = 'iterative'"):
        Reranker.load(f"openai:m@{fake.url}", kind="first_step").rank("q", ["a", "b"])
    assert fake.bodies == []


def test_equal_requests_get_seeds_of_their_own(serve: Serve) -> None:
    fake = serve(lambda _: "x")
    llm_of(fake).complete([DIRECT, THINKING, DIRECT, DIRECT, THINKING], Sampling(temperature=1.0, seed=7))
    assert sorted(body["seed"] for body in fake.bodies) == [7, 7, 8, 8, 9]


def test_completions_are_in_the_order_of_the_requests(serve: Serve) -> None:
    under_way, most = 0, 0

    def answer(body: Body) -> str:
        nonlocal under_way, most
        with fake.lock:
            under_way += 1
            most = max(most, under_way)
        text: str = body["messages"][1]["content"]
        time.sleep(0.03 if text in ("q0", "q5") else 0.01)  # the first ones are the last to answer
        with fake.lock:
            under_way -= 1
        return f"<answer>{text}</answer>"

    fake = serve(answer)
    requests = [Request(Prompt("s", f"q{k}", "<answer>")) for k in range(20)]
    completions = llm_of(fake, max_workers=4).complete(requests, Sampling())
    assert [c.text for c in completions] == [f"q{k}</answer>" for k in range(20)]
    assert 2 <= most <= 4
    assert llm_of(fake).complete([], Sampling()) == []


def test_usage_is_counted_where_it_is_told(serve: Serve) -> None:
    told = [
        {
            "prompt_tokens": 30,
            "completion_tokens": 4,
            "total_tokens": 34,
            "prompt_tokens_details": {"cached_tokens": 9},
        },
        {"prompt_tokens": 30, "completion_tokens": "many", "total_tokens": 34, "prompt_tokens_details": None},
        None,
    ]
    for usage, expected in zip(told, [(30, 4, 9), (30, 0, 0), (0, 0, 0)], strict=True):
        fake = serve(lambda _, usage=usage: reply("x", usage=usage))
        [c] = llm_of(fake).complete([DIRECT], Sampling())
        assert (c.prompt_tokens, c.completion_tokens, c.cached_tokens) == expected


def test_tokens_are_estimated() -> None:
    llm = OpenAILLM("m", "http://localhost/v1")
    assert [llm.count_tokens(t) for t in ("", "abc", "abcd", "abcde")] == [0, 1, 1, 2]
    assert (llm.parameters, llm.context_tokens) == (None, None)


# What is made of a reply


@pytest.mark.parametrize(
    ("request_", "message", "text", "status", "well_formed"),
    [
        # Thinking: the whole reply, with and without the stop text, with the thought opened by the server.
        (
            THINKING,
            {"content": "<think>t</think><answer>Heat</answer>"},
            "t</think><answer>Heat</answer>",
            "exact",
            True,
        ),
        (THINKING, {"content": "\n<think>t</think><answer>Heat"}, "t</think><answer>Heat</answer>", "exact", True),
        (THINKING, {"content": "t</think>\n<answer>Heat"}, "t</think>\n<answer>Heat</answer>", "exact", True),
        # The thought apart, under both names.
        (
            THINKING,
            {"content": "<answer>Heat", "reasoning_content": "t <answer>?"},
            "t <answer>?</think><answer>Heat</answer>",
            "exact",
            False,
        ),
        (THINKING, {"content": "<answer>Heat", "reasoning": "t"}, "t</think><answer>Heat</answer>", "exact", True),
        (
            THINKING,
            {"content": "<think>u</think><answer>Heat", "reasoning": "t"},
            "t\nu</think><answer>Heat</answer>",
            "exact",
            True,
        ),
        (THINKING, {"content": "Heat", "reasoning": "t"}, "t</think>Heat", "repaired", False),
        (THINKING, {"content": None, "reasoning": "t"}, "t</think>", "failed", False),
        # No thought, or no tags: nothing is made up.
        (THINKING, {"content": "<answer>Heat"}, "<answer>Heat</answer>", "exact", False),
        (THINKING, {"content": "Heat"}, "Heat", "failed", False),
        (THINKING, {"content": None}, "", "failed", False),
        # Choices.
        (CHOOSING, {"content": "<answer>Heat</answer>"}, "Heat</answer>", "exact", True),
        (CHOOSING, {"content": " <answer>Heat"}, "Heat</answer>", "exact", True),
        (CHOOSING, {"content": "Heat"}, "Heat", "repaired", False),
        (CHOOSING, {"content": "heat."}, "heat.", "repaired", False),
        (CHOOSING, {"content": "I say <answer>Heat"}, "I say <answer>Heat</answer>", "exact", False),
        (CHOOSING, {"content": "<answer>Heat", "reasoning": "t"}, "Heat</answer>", "exact", True),
        (
            CHOOSING,
            {"content": "<think>t</think><answer>Heat"},
            "<think>t</think><answer>Heat</answer>",
            "exact",
            False,
        ),
        (CHOOSING, {"content": "<answer>Rocky"}, "Rocky</answer>", "defaulted", True),
        (CHOOSING, {"content": ""}, "", "failed", False),
    ],
)
def test_a_reply_is_read_as_it_stands(
    serve: Serve, request_: Request, message: Body, text: str, status: str, well_formed: bool
) -> None:
    fake = serve(lambda _: reply(**message))
    [completion] = llm_of(fake).complete([request_], Sampling())
    assert completion.text == text
    prefill = request_.prompt.prefill
    parsed = parse_choice(prefill + text, ["Heat", "Alien"], ["1", "2"], thinking=prefill == "<think>")
    assert (parsed.status, parsed.well_formed) == (status, well_formed)


@pytest.mark.parametrize(
    ("content", "thought", "finish", "text"),
    [
        ("<think>t</think><answer>He", "", "length", "t</think><answer>He"),  # cut: the model did not stop
        ("", "long tho", "length", "long tho"),
        ("<answer>He", "t", "length", "t</think><answer>He"),
        ("<answer>a</answer><answer>b", "", "stop", "<answer>a</answer><answer>b</answer>"),
    ],
)
def test_what_was_cut_stays_open(content: str, thought: str, finish: FinishReason, text: str) -> None:
    assert text_after_prefill(THINKING, content, thought, finish) == text


def test_a_cut_reply_says_so(serve: Serve) -> None:
    fake = serve(lambda _: reply("<think>and so", finish="length"))
    [completion] = llm_of(fake).complete([THINKING], Sampling())
    assert (completion.text, completion.finish) == ("and so", "length")


# What goes wrong


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(serve: Serve, status: int) -> None:
    fake = serve(lambda _: failure(status, "busy") if len(fake.bodies) < 3 else "x")
    [completion] = llm_of(fake).complete([DIRECT], Sampling())
    assert (completion.text, len(fake.bodies)) == ("x", 3)


@pytest.mark.parametrize(
    ("answer", "kind", "asked", "words"),
    [
        (failure(401, f"wrong key {KEY}"), AssetError, 1, ["refuses the key (401)", "set OPENAI_API_KEY"]),
        (failure(403, f"wrong key {KEY}"), AssetError, 1, ["refuses the key (403)", "set OPENAI_API_KEY"]),
        (failure(404, "no such model"), AssetError, 1, ["has no model 'm'", "no such model", "/v1"]),
        (failure(429, "quota is\nused up"), AssetError, 3, ["after 2 retries", "quota is used up", "wait"]),
        (failure(500, f"trace with {KEY}"), AssetError, 3, ["after 2 retries (500: trace with ***)", "log"]),
        (failure(418, "a teapot"), AssetError, 1, ["(418: a teapot)"]),
        ((400, {"detail": "odd " * 200}), AssetError, 1, ["odd odd", "…"]),
        (
            failure(400, "'max_tokens' is too large: this model's maximum context length is 9 tokens"),
            InputError,
            1,
            ["longer than openai:m@", "reads", "rank fewer or shorter candidates"],
        ),
        (
            failure(400, "the request exceeds the available context size, try increasing it"),
            InputError,
            1,
            ["rank fewer or shorter candidates"],
        ),
        ((200, "<html>welcome</html>"), AssetError, 1, ["not as an OpenAI-compatible server", "ends in /v1"]),
        ((200, b"{oops"), AssetError, 1, ["not as an OpenAI-compatible server"]),
        ((200, {"choices": []}), AssetError, 1, ["not as an OpenAI-compatible server"]),
        ((200, {"error": {"message": "no"}}), AssetError, 1, ["not as an OpenAI-compatible server"]),
        (reply([{"type": "text"}]), AssetError, 1, ["not as an OpenAI-compatible server"]),  # type: ignore[arg-type]
    ],
)
def test_an_error_is_one_line_with_a_remedy_and_without_the_key(
    serve: Serve, answer: Any, kind: type[R1RankerError], asked: int, words: list[str]
) -> None:
    fake = serve(lambda _: answer)
    with pytest.raises(kind) as caught:
        llm_of(fake, max_retries=2).complete([DIRECT], Sampling())
    message = str(caught.value)
    assert len(fake.bodies) == asked
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert KEY not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert fake.url in message


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as held:  # bound but not listening: nobody answers there
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        llm = OpenAILLM("m", url.replace("http://", "http://me:secret@"), max_retries=0)
        with pytest.raises(AssetError, match="refused") as caught:
            llm.complete([DIRECT], Sampling())
    assert str(caught.value).startswith(f"cannot connect to {url}, ")
    assert "start the server" in str(caught.value)


def test_a_server_that_is_too_slow_is_named(serve: Serve) -> None:
    def slow(_: Body) -> str:
        time.sleep(0.4)
        return "x"

    fake = serve(slow)
    with pytest.raises(AssetError, match=r"did not answer within 0\.1 s.*longer timeout"):
        llm_of(fake, timeout=0.1, max_retries=0).complete([DIRECT], Sampling())


def test_after_an_error_the_rest_is_not_asked(serve: Serve) -> None:
    def answer(body: Body) -> Any:
        if body["messages"][1]["content"] == "q1":
            return failure(401, "no")
        time.sleep(0.05)
        return "x"

    fake = serve(answer)
    with pytest.raises(AssetError, match="401"):
        llm_of(fake, max_workers=2).complete([Request(Prompt("s", f"q{k}")) for k in range(30)], Sampling())
    time.sleep(0.5)  # two workers would ask twenty in this time
    assert len(fake.bodies) < 8


# What a server refuses


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("temperature", failure(400, "Only the default (1) value is supported.", param="temperature")),
        ("stop", failure(400, "Argument not supported on this model: stop")),
        ("seed", (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]})),
    ],
)
def test_a_setting_that_is_refused_is_left_out_from_then_on(serve: Serve, name: str, error: Any) -> None:
    fake = serve(lambda body: error if name in body else "<answer>Heat")
    llm = llm_of(fake)
    assert [c.text for c in llm.complete([CHOOSING], Sampling())] == ["Heat</answer>"]
    llm.complete([CHOOSING] * 4, Sampling())
    assert [name in body for body in fake.bodies] == [True] + [False] * 5
    others = {"model", "messages", "max_tokens", "temperature", "stop", "seed"} - {name}
    assert set(fake.bodies[-1]) == others
    assert llm.notes == [f"{llm.name} refuses '{name}': asked without it"]


def test_max_tokens_goes_by_its_newer_name_and_the_system_role_into_the_users(serve: Serve) -> None:
    def answer(body: Body) -> Any:
        if "max_tokens" in body:
            return failure(400, "Unsupported parameter. Use 'max_completion_tokens' instead.", param="max_tokens")
        if body["messages"][0]["role"] == "system":
            return failure(400, "System role not supported")
        if "temperature" in body:
            return failure(400, "Unsupported value: 'temperature' does not support 0")
        return "x"

    fake = serve(answer)
    llm = llm_of(fake)
    llm.complete([DIRECT], Sampling(max_tokens=99))
    assert fake.bodies[-1] == {
        "model": "m",
        "messages": [{"role": "user", "content": "the system's text\n\nthe user's text"}],
        "max_completion_tokens": 99,
        "stop": ["</answer>"],
        "seed": 0,
    }
    assert len(fake.bodies) == 4
    assert [note.partition(" refuses ")[2].partition(":")[0] for note in llm.notes] == [
        "'max_tokens'",
        "'system'",
        "'temperature'",
    ]


def test_many_at_once_note_a_refusal_once(serve: Serve) -> None:
    fake = serve(lambda body: failure(400, "'temperature' is deprecated") if "temperature" in body else "x")
    llm = llm_of(fake)
    assert len(llm.complete([DIRECT] * 16, Sampling())) == 16
    assert len(llm.notes) == 1


def test_what_is_refused_without_end_is_an_error(serve: Serve) -> None:
    fake = serve(lambda _: failure(400, "max_tokens, temperature, stop, seed and the system role are all wrong"))
    with pytest.raises(AssetError, match="are all wrong"):
        llm_of(fake).complete([DIRECT], Sampling())
    assert len(fake.bodies) == 6  # as it stands, and without each of the five


# The whole way


def test_a_reranker_over_a_server(serve: Serve) -> None:
    def answer(body: Body) -> str:
        user = body["messages"][1]["content"]
        return f"<answer>passage {2 if 'passage 2' in user.partition('Candidates:')[2] else 3}"

    fake = serve(answer)
    reranker = Reranker.load(f"openai:m@{fake.url}", device="cuda", dtype="float16")
    assert reranker.config.thinking is False
    result = reranker.rank("Where is Rome?", ["In Italy.", "A whale.", "Bread."])
    assert [document.text for document in result] == ["In Italy.", "Bread.", "A whale."]
    assert [turn.parsed.status for turn in result.trace.turns] == ["exact", "exact"]
    thinking = Reranker.load(f"openai:m@{fake.url}", thinking=True, max_tokens=300)
    thinking.rank("q", ["a", "b", "c"])
    assert fake.bodies[-1]["max_tokens"] == 300
