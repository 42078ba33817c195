"""`run.py serve` as a process: the answers of `infer`, a token, SIGTERM; and refused addresses."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from instruct.errors import UserError
from instruct.eval.infer import infer
from instruct.serve.serve_config import ServeConfig, is_loopback
from instruct.serve.server import serve
from tests.eval.letters_run import write_run
from tests.waiting import LIMIT_SECS

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 24
PROMPTS = [f"question {n} " + chr(97 + n) * (n * 5 % 17) for n in range(20)]
HEADERS = {"Authorization": "Bearer abc123"}


def ask(
    port: int,
    prompt: str,
    max_tokens: int,
    stream: bool,
    sent: Callable[[], None] = lambda: None,
) -> str:
    """The text of an answer; "refused" for one of a server that is about to end.

    Calls `sent` once the server has the request.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECS)
    fields = {"prompt": prompt, "max_tokens": max_tokens, "stream": stream}
    connection.request("POST", "/v1/completions", json.dumps(fields), HEADERS)
    sent()
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    if reply.status == 503:
        return "refused"
    assert reply.status == 200, text
    if not stream:
        return json.loads(text)["choices"][0]["text"]
    events = [part.removeprefix("data: ") for part in text.split("\n\n")][:-2]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def exchange(process: subprocess.Popen, expected: list[str]) -> list[str]:
    """Compares answers, then sends SIGTERM among others, which are returned."""
    assert process.stderr is not None
    told = ""
    while not (address := re.search(r"serving run at http://127.0.0.1:(\d+)", told)):
        line = process.stderr.readline()
        assert line, told
        told += line
    port = int(address[1])
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        limits = [STEPS if n % 3 else 1 + n % 5 for n in range(len(PROMPTS))]
        asked = zip(PROMPTS, limits, (n % 2 == 1 for n in range(len(PROMPTS))))
        texts = list(pool.map(lambda one: ask(port, *one), asked))
        # A letter is a byte and a token.
        assert texts == [text[:limit] for text, limit in zip(expected, limits)]
        sent = threading.Semaphore(0)
        answers = [pool.submit(ask, port, prompt, STEPS, False, sent.release) for prompt in PROMPTS]
        # A server that has ended cannot even refuse: on a busy machine a request may come so late.
        assert all(sent.acquire(timeout=LIMIT_SECS) for _ in PROMPTS)
        answers[0].result()
        process.send_signal(signal.SIGTERM)
        return [answer.result() for answer in answers]


@pytest.mark.slow
def test_answers_are_those_of_infer_and_sigterm_loses_none(tmp_path):
    model_dir = write_run(tmp_path / "run", inputs_length=40)
    lines = "".join(json.dumps({"inputs": prompt}) + "\n" for prompt in PROMPTS)
    (tmp_path / "in.jsonl").write_text(lines)
    (tmp_path / "token").write_text("abc123\n")
    output = tmp_path / "out.jsonl"
    infer(
        model_dir,
        input_path=str(tmp_path / "in.jsonl"),
        output_path=str(output),
        max_decode_steps=STEPS,
    )
    expected = [json.loads(line)["prediction"] for line in output.read_text().splitlines()]
    assert len(set(expected)) > 5 and len({len(text) for text in expected}) > 3
    settings = {"MODEL_DIR": model_dir, "PORT": 0, "BATCH_SIZE": 8, "MAX_DECODE_STEPS": STEPS}
    command = [sys.executable, "run.py", "serve", "--gin_file=gin/runs/serve.gin"]
    command += [f"--gin.{name}={value}" for name, value in settings.items()]
    command += ["--gin.batching.BatchConfig.max_shapes=1", f"--token_file={tmp_path / 'token'}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            late = exchange(process, expected)
            assert process.wait(LIMIT_SECS) == 0
        finally:
            process.kill()
    told = [text for text in late if text != "refused"]
    assert [t for t, e in zip(late, expected) if t != "refused" and t != e] == [] and told


def test_other_machines_need_a_token(tmp_path):
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.7", "example.org", "")))
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(UserError, match="there is no token"):
            serve(str(tmp_path), ServeConfig(host=host))


def test_an_address_that_is_taken(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"cannot listen on HOST '127.0.0.1', PORT \d+ \(Add"):
            serve(str(tmp_path), ServeConfig(port=other.getsockname()[1]))
    with pytest.raises(UserError, match="cannot listen on HOST"):
        serve(str(tmp_path), ServeConfig(host="a..example"), token="abc")
