"""A decoder without a model, and a server with it: what they do to requests is all there is."""

import contextlib
import http.client
import json
import socket
import threading
import time
from typing import Any

import numpy as np

from instruct.data.vocab import ByteVocabulary
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial
from instruct.eval.loaded_model import PromptEncoder
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame
from instruct.serve.app import Service
from instruct.serve.engine import Engine
from instruct.serve.serve_config import ServeConfig
from instruct.serve.server import DrainingServer
from tests.waiting import LIMIT_SECS, wait_until

GREEDY = DecodeConfig(max_decode_steps=32)
CHAT = ChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class EchoDecoder:
    """Answers a prompt with itself and EOS, two tokens a chunk; sequence n in front of it says n.

    A prompt with "fail" raises while it is decoded, one with "stop the decoder" for good. With
    `ends` False the last token never comes: only `remove` ends an answer. While a test `held()` it,
    it decodes nothing.
    """

    def __init__(
        self,
        config: DecodeConfig,
        num_slots: int = 4,
        chunk_secs: float = 0.0,
        ends: bool = True,
    ):
        self.config, self.num_slots = config, num_slots
        self._chunk_secs, self._ends = chunk_secs, ends
        self.waiting: dict[int, tuple[list[int], int, int]] = {}
        self.decoding: dict[int, tuple[list[int], int, int]] = {}
        self.removed: list[int] = []
        self.may_decode = threading.Event()
        self.may_decode.set()
        self._number = 0
        self._is_broken = False

    @contextlib.contextmanager
    def held(self):
        """Prompts that come while the block runs are decoded after it."""
        self.may_decode.clear()
        try:
            yield
        finally:
            self.may_decode.set()

    def add(self, inputs, example_id=0, max_tokens=None):
        self._number += 1
        most = max_tokens or self.config.max_decode_steps
        self.waiting[self._number] = [token for token in inputs if token != 1], example_id, most
        return self._number

    def remove(self, key):
        self.removed.append(key)
        self.waiting.pop(key, None)
        self.decoding.pop(key, None)

    def reset(self):
        if self._is_broken:
            raise MemoryError("no room")
        lost = list(self.decoding)
        self.decoding = {}
        return lost

    def advance(self):
        time.sleep(self._chunk_secs)
        self.may_decode.wait(LIMIT_SECS)
        while self.waiting and len(self.decoding) < self.num_slots:
            key = next(iter(self.waiting))
            inputs, example_id, most = self.waiting.pop(key)
            text = ByteVocabulary().decode(inputs)
            self.decoding[key] = inputs, 0, most
            if "fail" in text:
                raise RuntimeError("as it was told")
            if "stop the decoder" in text:
                self._is_broken = True
                raise RuntimeError("for good")
            if self.config.strategy == "sample":
                inputs[:0] = ByteVocabulary().encode(f"{example_id}:")
        return [self._step(key) for key in list(self.decoding)]

    def _step(self, key) -> Partial:
        inputs, count, most = self.decoding[key]
        num = self.config.num_sequences
        whole = np.zeros((num, len(inputs) + 2), np.int32)
        for sequence in range(num):
            marks = ByteVocabulary().encode(str(sequence)) if num > 1 else []
            row = [*marks, *inputs, 1]
            whole[sequence, : len(row)] = row
        length = len(inputs) + 1 + (num > 1)
        last = min(length, most)
        count = min(count + 2, last if self._ends else last - 1)
        ended = count == last
        self.decoding[key] = inputs, count, most
        if ended:
            del self.decoding[key]
        return Partial(key, whole[:, :count], ended)


class EchoServer:
    """The server in a thread, and requests to it."""

    def __init__(self, decoder: EchoDecoder, token: str | None, chat: bool, **limits: Any):
        limits = {"queue_length": 4, **limits}
        frame = Frame(ByteVocabulary(), chat=CHAT if chat else None)
        self.decoder = decoder
        self.engine = Engine(decoder, limits["queue_length"])
        config = ServeConfig(port=0, **limits)
        self.service = Service("echo", self.engine, PromptEncoder(frame, 64), config, token)
        self.server = DrainingServer(self.service, self.engine)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.thread = threading.Thread(
            target=lambda: self.server.run(sockets=[self._socket]), daemon=True
        )
        self.thread.start()
        wait_until(lambda: self.server.started)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECS)

    def raw(self, method: str, path: str, body: Any = None, **headers: str):
        """(status, headers, body as text)."""
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()

    def ask(self, path: str = "/v1/completions", **fields: Any):
        """(status, JSON) of a request with these fields."""
        status, _, text = self.raw("POST", path, json.dumps(fields))
        return status, json.loads(text)

    def events(self, path: str = "/v1/completions", **fields: Any) -> list[Any]:
        """The events of a stream; "[DONE]" as text."""
        status, headers, text = self.raw("POST", path, json.dumps({**fields, "stream": True}))
        assert status == 200 and headers["content-type"].startswith("text/event-stream")
        parts = [part.removeprefix("data: ") for part in text.split("\n\n") if part]
        return [part if part == "[DONE]" else json.loads(part) for part in parts]

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.engine.close()
        self._socket.close()


@contextlib.contextmanager
def echo_server(
    config: DecodeConfig = GREEDY,
    token: str | None = None,
    chat: bool = False,
    num_slots: int = 4,
    chunk_secs: float = 0.0,
    ends: bool = True,
    **limits: Any,
):
    server = EchoServer(EchoDecoder(config, num_slots, chunk_secs, ends), token, chat, **limits)
    try:
        yield server
    finally:
        server.close()
