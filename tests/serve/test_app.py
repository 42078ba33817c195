"""Requests over a socket to a server without a model: formats, limits, refusals, disconnects."""

import concurrent.futures
import contextlib
import http.client
import json
import signal
import socket
import threading

import pytest

from instruct.eval.decoding.decode import DecodeConfig
from instruct.serve import app
from tests.serve.echo import EchoServer, echo_server
from tests.waiting import LIMIT_SECS, wait_until

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together

SAMPLE = DecodeConfig("sample", 32, temperature=0.7, num_samples=2)


@pytest.fixture(scope="module")
def server():
    with echo_server(body_bytes=2000) as running:
        yield running


def test_an_answer_with_its_usage(server):
    status, body = server.ask(prompt="Hello there", model="echo")
    assert status == 200 and body["object"] == "text_completion" and body["model"] == "echo"
    choice = {"index": 0, "text": "Hello there", "logprobs": None, "finish_reason": "stop"}
    assert body["choices"] == [choice]
    counts = {"prompt_tokens": 12, "completion_tokens": 11, "total_tokens": 23}
    assert body["usage"] == counts and body["id"].startswith("cmpl-")


def test_several_prompts_are_answered_in_order(server):
    prompts = ["a long one to begin with", "b", "日本"]
    _, body = server.ask(prompt=prompts)
    assert [choice["text"] for choice in body["choices"]] == prompts
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]


def test_fewest_and_most_tokens(server):
    _, body = server.ask(prompt="abcdef", max_tokens=3)
    assert body["choices"][0]["text"] == "abc"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3
    # The token that ends the answer counts as one that is generated, as in `infer`.
    assert server.ask(prompt="abc", max_tokens=3)[1]["choices"][0]["finish_reason"] == "length"
    assert server.ask(prompt="abc", max_tokens=4)[1]["choices"][0]["finish_reason"] == "stop"
    assert server.ask(prompt="x" * 40)[1]["choices"][0]["finish_reason"] == "length"


def test_a_text_may_stop_an_answer():
    with echo_server(chunk_secs=0.01, ends=False) as server:
        _, body = server.ask(prompt="one two. and three", stop=[".", "zzz"])
        wait_until(lambda: len(server.decoder.removed) == 1)
    assert body["choices"][0]["text"] == "one two" and body["choices"][0]["finish_reason"] == "stop"


def test_a_stream_is_the_answer_in_pieces(server):
    *events, done = server.events(prompt=["some longer text", "日本語"])
    assert done == "[DONE]" and len({event["id"] for event in events}) == 1
    texts, reasons = ["", ""], ["", ""]
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == ["some longer text", "日本語"] and reasons == ["stop", "stop"]
    assert len(events) > 4
    *_, usage, done = server.events(prompt="abc", stream_options={"include_usage": True})
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3


def test_samples_depend_on_the_seed_and_are_as_many_as_asked():
    with echo_server(SAMPLE) as server:
        _, body = server.ask(prompt="abc", seed=7, n=2, temperature=0.7)
        assert [choice["text"] for choice in body["choices"]] == ["07:abc", "17:abc"]
        assert server.ask(prompt="abc", seed=7)[1]["choices"][0]["text"] == "07:abc"
        texts = [server.ask(prompt=["abc", "d"])[1]["choices"] for _ in range(2)]
        texts = [choice["text"] for choices in texts for choice in choices]
        assert texts == ["00:abc", "01:d", "02:abc", "03:d"], "each prompt is another example"
        status, body = server.ask(prompt="abc", temperature=0)
        assert status == 400 and "give 0.7 or leave it out" in body["error"]["message"]


def test_beams_are_told_at_their_end():
    with echo_server(DecodeConfig("beam", 16, num_beams=2)) as server:
        events = server.events(prompt="abc", n=2)
        assert [event["choices"][0]["text"] for event in events[:-1]] == ["0abc", "1abc"]
        status, body = server.ask(prompt="abc", max_tokens=5)
        assert status == 400 and "must be 16 or left out" in body["error"]["message"]


def test_a_conversation_by_the_chat_template(server):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    messages += [{"role": "user", "content": "No"}]
    path = "/v1/chat/completions"
    with echo_server(chat=True) as chat:
        status, body = chat.ask(path, messages=messages[:1], max_completion_tokens=20)
        assert status == 200 and body["object"] == "chat.completion"
        said = {"role": "assistant", "content": "<user>Hi</><assistan"}
        assert body["choices"][0]["message"] == said
        events = chat.events(path, messages=messages[:1])
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        text = "".join(event["choices"][0]["delta"]["content"] for event in events[:-1])
        assert text == "<user>Hi</><assistant>"
        for wrong in ([], [{"role": "tool", "content": "x"}], messages[:2], [{"role": "user"}]):
            assert chat.ask(path, messages=wrong)[0] == 400
        # What clients write of an answer without tools is nothing; another field is something.
        assert chat.ask(path, messages=[messages[0] | {"tool_calls": None}])[0] == 200
        status, body = chat.ask(path, messages=[messages[0] | {"name": "Ann"}])
        assert status == 400 and "'name' of a message is not supported" in body["error"]["message"]
        status, body = chat.ask(path, messages=messages, max_tokens=2, max_completion_tokens=2)
        assert status == 400 and "not both" in body["error"]["message"]
        status, body = chat.ask(path, messages=messages * 3)
        assert status == 400 and "tokens, the model reads at most 64" in body["error"]["message"]
    status, body = server.ask(path, messages=messages)
    assert status == 404 and body["error"]["code"] == "no_chat_template"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "`prompt` must be a text"),
        ({"prompt": [1, 2]}, "not of token ids"),
        ({"prompt": " "}, "`prompt` is empty"),
        ({"prompt": "\ud800"}, "half of a surrogate pair"),
        ({"prompt": ["a"] * 9}, "9 texts; this server takes at most 8"),
        ({"prompt": "x" * 64}, "the prompt has 65 tokens, the model reads at most 64"),
        ({"prompt": "a", "max_tokens": 33}, "`max_tokens` is 33; allowed: from 1 to 32"),
        ({"prompt": "a", "max_tokens": True}, "it must be a whole number"),
        ({"prompt": "a", "temperature": 1}, "greedy steps=32): give 0 or leave it out"),
        ({"prompt": "a", "top_p": "1"}, "give 1 or leave it out"),
        ({"prompt": "a", "n": 2}, "`n` is 2; allowed: 1 (greedy decoding has one answer)"),
        ({"prompt": "a", "stop": [""]}, "`stop` must be a text or a list"),
        ({"prompt": "a", "stream": 1}, "it must be true or false"),
        ({"prompt": "a", "logprobs": 5}, "`logprobs` is not supported"),
        ({"prompt": "a", "max_token": 5}, "unknown field 'max_token'; known: best_of"),
        ({"prompt": "a", "\ud800": 5}, r"unknown field '\ud800'; known: best_of"),
        ({"prompt": "a", "stream_options": {"x": 1}}, "unknown option 'x'; known: include_usage"),
        ({"prompt": "a", "stream_options": {"include_usage": 1}}, "it must be true or false"),
        ({"prompt": "a", "model": "other"}, "no model 'other'; this server has 'echo'"),
        ([], "must be a JSON object, not list"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server, fields, words):
    status, _, text = server.raw("POST", "/v1/completions", json.dumps(fields))
    error = json.loads(text)["error"]
    assert status == (404 if "no model" in words else 400)
    assert words in error["message"] and error["type"] == "invalid_request_error"


def test_bodies_that_are_no_json_or_too_large(server):
    for body in (b"{", b"\xff", b"[" * 300 + b"]" * 300, b""):
        status, _, text = server.raw("POST", "/v1/completions", body)
        assert status == 400 and json.loads(text)["error"]["code"] == "malformed_json"
    status, headers, text = server.raw("POST", "/v1/completions", b" " * 2001)
    assert status == 413 and "2,000 bytes" in text and headers["connection"] == "close"
    assert server.ask(prompt="ok")[0] == 200


def test_other_routes(server):
    status, _, text = server.raw("GET", "/v1/models")
    assert status == 200 and json.loads(text)["data"][0]["id"] == "echo"
    (model,) = json.loads(text)["data"]
    status, _, text = server.raw("GET", "/v1/models/echo")
    assert status == 200 and json.loads(text) == model
    for other in ("gpt-4o", "echo/b", "%C3%A9"):
        status, _, text = server.raw("GET", f"/v1/models/{other}")
        error = json.loads(text)["error"]
        assert status == 404 and error["code"] == "model_not_found" and error["param"] == "model"
        assert "this server has 'echo'" in error["message"]
    status, _, text = server.raw("GET", "/health")
    assert status == 200 and json.loads(text) == {"status": "ok", "model": "echo", "open": 0}
    status, headers, text = server.raw("GET", "/")
    assert status == 200 and "<textarea" in text and "default-src 'none'" in str(headers)
    assert server.raw("GET", "/v1/completions")[0] == 405
    status, _, text = server.raw("GET", "/v2")
    assert status == 404 and json.loads(text)["error"]["message"] == "GET /v2: Not Found."


def test_without_a_token_pages_of_other_sites_are_refused(server):
    body = json.dumps({"prompt": "a"})
    evil = ({"Host": "evil.example"}, {"Host": "[evil.example"}, {"Origin": "https://evil.example"})
    for header in (*evil, {"Origin": "null evil.example"}):
        status, _, text = server.raw("POST", "/v1/completions", body, **header)
        assert status == 403 and "evil.example" in text
    for header in ({"Host": "localhost:99"}, {"Origin": "http://127.0.0.1:8000"}):
        assert server.raw("POST", "/v1/completions", body, **header)[0] == 200


def test_a_token_is_asked_for():
    with echo_server(token="secret") as server:
        body = json.dumps({"prompt": "a"})
        for header in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "Basic secret"}):
            status, headers, text = server.raw("POST", "/v1/completions", body, **header)
            assert status == 401 and "Authorization: Bearer" in text
            assert headers["www-authenticate"] == "Bearer"
        assert server.raw("GET", "/v1/models")[0] == 401
        assert server.raw("GET", "/v1/models/echo")[0] == 401
        header = {"Authorization": "Bearer secret", "Host": "any.example"}
        assert server.raw("POST", "/v1/completions", body, **header)[0] == 200
        assert server.raw("GET", "/health")[0] == server.raw("GET", "/")[0] == 200


def test_more_than_may_wait_are_told_to_come_again():
    with echo_server(num_slots=1, queue_length=1) as server:
        # Held, so that neither ends before the third comes, however late that is.
        with concurrent.futures.ThreadPoolExecutor(2) as pool, server.decoder.held():
            answers = [pool.submit(server.ask, prompt="a fairly long prompt") for _ in range(2)]
            wait_until(lambda: server.engine.num_open == 2)
            status, headers, text = server.raw("POST", "/v1/completions", '{"prompt": "b"}')
            assert status == 503 and headers["retry-after"] == "1" and "overloaded" in text
        assert [answer.result()[0] for answer in answers] == [200, 200]
        assert server.ask(prompt="b")[0] == 200


@contextlib.contextmanager
def posted(server: EchoServer, **fields):
    """The connection of a request that is sent in one piece: its body cannot come late."""
    body = json.dumps(fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_SECS) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_a_late_answer_is_given_up(stream):
    with echo_server(chunk_secs=0.01, ends=False, request_secs=0.25) as server:
        with posted(server, prompt="a fairly long prompt", stream=stream) as client:
            reply = http.client.HTTPResponse(client)
            reply.begin()
            text = reply.read().decode()
        error = json.loads(text.strip().rpartition("data: ")[2])["error"]
        assert reply.status == (200 if stream else 504) and error["code"] == "timeout"
        assert "longer than 0.25 seconds" in error["message"]
        wait_until(lambda: not server.decoder.decoding)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(stream):
    with echo_server(chunk_secs=0.01, ends=False) as server:
        with posted(server, prompt="x" * 60, stream=stream):
            wait_until(lambda: server.decoder.decoding)
        wait_until(lambda: server.decoder.removed == [1])
        assert server.engine.num_open == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_decoder_that_fails_fails_its_requests_only(caplog):
    with echo_server(num_slots=1, chunk_secs=0.01) as server:
        status, body = server.ask(prompt="fail, please")
        assert status == 500 and "decoding failed" in body["error"]["message"]
        assert "as it was told" in caplog.text
        assert server.events(prompt="fail again")[-1]["error"]["type"] == "server_error"
        assert server.ask(prompt="go on")[0] == 200
        assert server.ask(prompt="stop the decoder")[0] == 500
        assert server.ask(prompt="go on")[0] == 503
        status, _, text = server.raw("GET", "/health")
        assert status == 503 and json.loads(text)["status"] == "failed"


def test_a_signal_drains_the_server():
    with echo_server(num_slots=2) as server:
        # Held, so that the server does not end before the late request, however late that is.
        with concurrent.futures.ThreadPoolExecutor(4) as pool, server.decoder.held():
            answers = [pool.submit(server.ask, prompt=f"prompt number {n}") for n in range(4)]
            wait_until(lambda: server.engine.num_open == 4)
            server.server.handle_exit(signal.SIGTERM, None)
            status, headers, text = server.raw("POST", "/v1/completions", '{"prompt": "late"}')
            assert status == 503 and "about to end" in text and headers["connection"] == "close"
            assert json.loads(server.raw("GET", "/health")[2])["status"] == "draining"
        texts = [answer.result()[1]["choices"][0]["text"] for answer in answers]
        assert texts == [f"prompt number {n}" for n in range(4)]
        server.thread.join(LIMIT_SECS)
        assert not server.thread.is_alive() and not server.server.is_cut_off


def test_a_second_signal_gives_up():
    with echo_server(chunk_secs=0.01, ends=False) as server:
        seen = []
        client = threading.Thread(target=lambda: seen.append(server.ask(prompt="x" * 60)))
        client.start()
        wait_until(lambda: server.decoder.decoding)
        for _ in range(2):
            server.server.handle_exit(signal.SIGINT, None)
        server.thread.join(LIMIT_SECS)
        client.join()
        assert server.server.is_cut_off and seen[0][0] == 500


def test_a_second_signal_ends_the_connection_of_a_client_that_sends_no_more():
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with echo_server() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head + b"{")
        wait_until(lambda: server.server.server_state.tasks)
        server.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: server.server.should_exit)
        server.server.handle_exit(signal.SIGTERM, None)
        server.thread.join(LIMIT_SECS)
        assert not server.thread.is_alive() and server.server.is_cut_off


def test_a_client_that_does_not_read_is_cut_off_in_time(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_bytes(b"x" * 50_000_000)  # more than the system keeps for a client
    monkeypatch.setattr(app, "_PAGE", page)
    with (
        echo_server(request_secs=0.5) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.server.server_state.tasks)
        server.server.handle_exit(signal.SIGTERM, None)
        server.thread.join(LIMIT_SECS)
        assert not server.thread.is_alive() and server.server.is_cut_off
