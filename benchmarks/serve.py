"""Throughput of `run.py serve`, beside transformers' `generate` behind the same application.

    PYTHONPATH=. python benchmarks/serve.py [--model decoder]
    PYTHONPATH=. python benchmarks/serve.py --requests=40 --clients=8 --size=tiny  # a first try

Random weights (float32, bytes, answers of letters), written as a Hugging Face folder that both
sides read. Prompts of 8 to 100 bytes, answers of 1 to 64 tokens, greedy, `clients` requests at a
time. Both sides decode up to 32 prompts together: this program in slots that are refilled,
transformers in batches of what has arrived, each as long as its longest request.

    round 1   every answer is compared with `infer`'s; wall and CPU seconds of the server
    round 2   the same; SIGTERM after a third of the answers: which were lost, how did it exit
    round 3   as round 1, with transformers

The sides run one after the other on the same machine: compare ratios. CPU seconds are those of the
server's process, without start and compilation; the clients are another process. Linux.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from instruct.checkpoints import huggingface
from instruct.checkpoints.arrays import held
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial
from instruct.eval.loaded_model import LoadedModel, find_model
from instruct.mesh import tree_paths
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import AnyConfig, make_model
from instruct.serve.app import Service
from instruct.serve.engine import Engine
from instruct.serve.serve_config import ServeConfig
from instruct.serve.server import DrainingServer

SLOTS, INPUTS_LENGTH, MAX_STEPS = 32, 128, 64
SIZES = {
    "tiny": ({"d_model": 32, "num_heads": 2, "head_dim": 16, "d_ff": 64}, 1),
    "small": ({"d_model": 256, "num_heads": 4, "head_dim": 64, "d_ff": 512}, 4),
}
LOST, REFUSED, WRONG = "lost", "refused", "other text"


def model_config(kind: str, size: str) -> AnyConfig:
    """A model of 384 rows: 256 bytes and padding."""
    sizes, layers = SIZES[size]
    fields: dict[str, Any] = {"vocab_size": 384, **sizes}
    if kind == "decoder":
        fields |= {"num_layers": 2 * layers, "num_kv_heads": 2, "tied_output": False}
        return DecoderConfig(**fields)
    return ModelConfig(**fields, num_encoder_layers=layers, num_decoder_layers=layers)


def write_folder(folder: pathlib.Path, config: AnyConfig) -> None:
    """Random weights that like letters and sometimes EOS, as a Hugging Face folder."""
    params = jax.jit(make_model(config).init)(jax.random.key(0))
    letters = jnp.arange(config.vocab_size) - 3
    likely = jnp.where((letters >= 97) & (letters < 123), 6.0, 0.05).at[1].set(6.5)
    params["decoder"]["logits_dense"]["kernel"] *= likely
    arrays = {path: held(np.asarray(leaf), path) for path, leaf in tree_paths(params)}
    huggingface.write_checkpoint(folder, arrays, config, np.dtype(np.float32))


def load(folder: pathlib.Path) -> LoadedModel:
    """As `infer` and `serve` load it."""
    found = find_model(str(folder), "infer.infer", vocabulary="bytes", inputs_length=INPUTS_LENGTH)
    return found.load(None, MAX_STEPS, None, False, print)


class Request(NamedTuple):
    """A request and the answer that `infer` gives."""

    prompt: str
    max_tokens: int
    expected: str


def make_requests(folder: pathlib.Path, count: int) -> list[Request]:
    """Requests of mixed lengths; what `infer` decodes, cut to the tokens that they ask for."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz     "
    prompts = ["q" + "".join(draw.choices(letters, k=draw.randint(7, 99))) for _ in range(count)]
    limits = [draw.randint(1, MAX_STEPS) for _ in range(count)]
    loaded = load(folder)
    decoder = Decoder(loaded.network, loaded.decode, BatchConfig(SLOTS), loaded.mesh)
    inputs = [loaded.encoder.encode(prompt)[0] for prompt in prompts]
    tokens = decoder.generate(loaded.params, inputs).tokens[:, 0]
    texts = [
        loaded.vocabulary.decode(loaded.decode.answer_ids(row[:limit]))
        for row, limit in zip(tokens, limits)
    ]
    return [Request(*one) for one in zip(prompts, limits, texts)]


class PeerDecoder:
    """transformers' `generate` as the server's decoder: a batch of what waits, then the next."""

    num_slots = SLOTS

    def __init__(self, folder: str, config: DecodeConfig):
        import torch
        import transformers

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        (name,) = json.loads(pathlib.Path(folder, "config.json").read_text())["architectures"]
        self._model = getattr(transformers, name).from_pretrained(folder).eval()
        self.config = config
        self._waiting: dict[int, tuple[Sequence[int], int]] = {}
        self._number = 0

    def add(self, inputs: Sequence[int], example_id: int = 0, max_tokens: int | None = None) -> int:
        self._number += 1
        self._waiting[self._number] = inputs, max_tokens or self.config.max_decode_steps
        return self._number

    def remove(self, key: int) -> None:
        self._waiting.pop(key, None)

    def reset(self) -> list[int]:
        return []

    def advance(self) -> list[Partial]:
        keys = list(self._waiting)[: self.num_slots]
        if not keys:
            return []
        prompts, limits = zip(*(self._waiting.pop(key) for key in keys))
        tokens = self._generate(prompts, max(limits))
        partials = []
        for key, row, limit in zip(keys, tokens, limits):
            ended = np.flatnonzero(row[:limit] == self.config.eos_id)
            length = ended[0] + 1 if len(ended) else limit
            partials.append(Partial(key, row[None, :length], True))
        return partials

    def _generate(self, prompts: Sequence[Sequence[int]], max_steps: int) -> np.ndarray:
        """Tokens [prompts, up to max_steps]; prompts of a decoder are padded on the left."""
        import torch

        is_pair, width = self._model.config.is_encoder_decoder, max(map(len, prompts))
        tokens = np.zeros((len(prompts), width), np.int64)
        mask = np.zeros_like(tokens)
        for number, prompt in enumerate(prompts):
            place = slice(0, len(prompt)) if is_pair else slice(width - len(prompt), width)
            tokens[number, place], mask[number, place] = prompt, 1
        with torch.inference_mode():
            answers = self._model.generate(
                input_ids=torch.from_numpy(tokens),
                attention_mask=torch.from_numpy(mask),
                max_new_tokens=max_steps,
                do_sample=False,
                num_beams=1,
                eos_token_id=self.config.eos_id,
                pad_token_id=0,
                **({"decoder_start_token_id": 0} if is_pair else {}),
            )
        return answers[:, 1 if is_pair else width :].numpy()


def serve_peer(folder: str) -> int:
    """The server with transformers; runs in a child process."""
    loaded = load(pathlib.Path(folder))
    decoder = PeerDecoder(folder, loaded.decode)
    decoder.add([10, 1], max_tokens=2)
    decoder.advance()
    engine = Engine(decoder, 256)
    service = Service("peer", engine, loaded.encoder, ServeConfig())
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"serving peer at http://127.0.0.1:{bound.getsockname()[1]}"
        DrainingServer(service, engine, address).run(sockets=[bound])
    return 0


class ServerProcess:
    """A server in a child process."""

    def __init__(self, command: Sequence[str]):
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        start, told = time.perf_counter(), ""
        while not (match := re.search(r"serving \S+ at http://127.0.0.1:(\d+)", told)):
            line = self._process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start:\n{told}")
            told += line
        self.port, self.start_secs = int(match[1]), time.perf_counter() - start

    def cpu_secs(self) -> float:
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2]
        return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def drain(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def exit_status(self) -> int:
        return self._process.wait(120)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


class Clients:
    """Threads that send requests; each keeps its connection, as programs do."""

    def __init__(self, port: int, count: int):
        self._port, self._count = port, count
        self._local = threading.local()
        self._answered = 0
        self._lock = threading.Lock()
        self._is_refused = threading.Event()

    def send(self, requests: Sequence[Request], after: int = 0, call: Any = None) -> list[str]:
        """ "" for each right answer, else what happened; calls `call` after so many answers."""

        def one(request: Request) -> str:
            outcome = self._ask(request)
            with self._lock:
                self._answered += 1
                if call is not None and self._answered == after:
                    call()
            return outcome

        with concurrent.futures.ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(one, requests))

    def _ask(self, request: Request) -> str:
        if self._is_refused.is_set():
            return REFUSED  # the server has said that it is about to end
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=600
            )
        connection = self._local.connection
        body = json.dumps({"prompt": request.prompt, "max_tokens": request.max_tokens})
        try:
            connection.request("POST", "/v1/completions", body)
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return LOST
        if reply.status == 503:
            self._is_refused.set()
            return REFUSED
        if reply.status != 200:
            return text.decode()
        found = json.loads(text)["choices"][0]["text"]
        return "" if found == request.expected else WRONG


def count_outcomes(outcomes: Sequence[str]) -> str:
    """'2000 right', '670 right, 1330 refused'."""
    names = [outcome or "right" for outcome in outcomes]
    return ", ".join(f"{names.count(name):,} {name}" for name in dict.fromkeys(names))


def measure(
    name: str, server: ServerProcess, clients: int, requests: Sequence[Request]
) -> tuple[float, float]:
    """(wall, CPU) seconds of one round; prints a row."""
    start, cpu = time.perf_counter(), server.cpu_secs()
    outcomes = Clients(server.port, clients).send(requests)
    wall, cpu = time.perf_counter() - start, server.cpu_secs() - cpu
    tokens = sum(request.max_tokens for request in requests)
    print(
        f"| {name} | {len(requests) / wall:.1f} requests/s | at most {tokens / wall:,.0f} tokens/s "
        f"| {wall:.1f} | {cpu:.1f} | {server.start_secs:.0f} | {count_outcomes(outcomes)} |",
        flush=True,
    )
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", choices=("encoder_decoder", "decoder"), default="encoder_decoder"
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        raise SystemExit(serve_peer(arguments.peer))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "model")
        write_folder(folder, model_config(arguments.model, arguments.size))
        requests = make_requests(folder, arguments.requests)
        settings = {
            **{"MODEL_DIR": folder, "VOCABULARY": "bytes", "PORT": 0, "BATCH_SIZE": SLOTS},
            **{"INPUTS_LENGTH": INPUTS_LENGTH, "MAX_DECODE_STEPS": MAX_STEPS},
        }
        ours = [sys.executable, "run.py", "serve", "--gin_file=gin/runs/serve.gin"]
        ours += [f"--gin.{name}={value}" for name, value in settings.items()]
        peer = [sys.executable, __file__, f"--peer={folder}"]
        print(f"{arguments}, {len(os.sched_getaffinity(0))} cores, jax {jax.__version__}")
        print("| server | requests | tokens | wall s | CPU s | start s | answers |")
        print("|---|---|---|---|---|---|---|")
        with ServerProcess(ours) as server:
            first = measure("instruct", server, arguments.clients, requests)
            clients = Clients(server.port, arguments.clients)
            outcomes = clients.send(requests, len(requests) // 3, server.drain)
            drained = f"{count_outcomes(outcomes)}; exit status {server.exit_status()}"
        with ServerProcess(peer) as server:
            second = measure("transformers", server, arguments.clients, requests)
    ratios = [theirs / mine for mine, theirs in zip(first, second)]
    print(f"SIGTERM after a third: {drained}")
    print(f"transformers / instruct: wall {ratios[0]:.2f}, CPU {ratios[1]:.2f}")
    if LOST in outcomes or WRONG in outcomes:
        raise SystemExit("answers were lost or wrong")


if __name__ == "__main__":
    main()
