"""`serve`: a checkpoint behind HTTP, until SIGTERM or Ctrl-C.

A small server to try a model and to work with it on one machine, not a serving product
(docs/serve.md). The signal drains it: requests that were accepted are answered, others refused.
"""

import asyncio
import contextlib
import signal
import socket
from types import FrameType
from typing import Annotated

import uvicorn
from rich.console import Console

from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import find_model
from instruct.fields import Range, check_arguments
from instruct.files import any_path
from instruct.mesh import MeshConfig
from instruct.models.model import AnyConfig
from instruct.serve.app import Service
from instruct.serve.engine import Engine
from instruct.serve.serve_config import ServeConfig, is_loopback

# Looks at the signal, a tenth of a second each, in which further requests are still refused.
_REFUSING_TICKS = 10
_TICK_SECS = 0.2  # between looks at a second signal, longer than uvicorn's at closed connections


def serve(
    model_dir: str,
    config: ServeConfig | None = None,
    name: str | None = None,
    token: str | None = None,
    decode: DecodeConfig | None = None,
    batching: BatchConfig | None = None,
    mesh: MeshConfig | None = None,
    model: AnyConfig | None = None,
    vocabulary: str | None = None,
    chat_template: bool | None = None,
    step: int | None = None,
    inputs_length: Annotated[int | None, Range(least=2)] = None,
    max_decode_steps: Annotated[int | None, Range(least=1)] = None,
    strict: bool = False,
) -> int:
    """Answers requests with a checkpoint until a signal drains the server.

    Args:
        config: address and limits; None: `ServeConfig`'s defaults.
        name: of the model, for clients; None: the name of the folder.
        token: that clients must send; required unless `config.host` is this machine's own.
        batching: decoding slots, and lengths that prompts are padded to.
        inputs_length: longest prompt in tokens, EOS included; longer ones are refused.
        model_dir, decode, mesh, model, vocabulary, chat_template, step, max_decode_steps, strict:
            see `infer.infer`.

    Returns:
        The exit status: 0; 1 if a second signal cut answers off.

    Raises:
        UserError: bad arguments, an address that is taken, or an address that other machines reach
            without a token.
    """
    check_arguments(serve, locals())
    config = config or ServeConfig()
    folder = any_path("MODEL_DIR", model_dir)
    if token is None and not is_loopback(config.host):
        raise UserError(
            f"HOST is {config.host!r}, which other machines reach, and there is no token. Put a "
            "secret into a file and give --token_file=FILE (or the environment variable "
            "INSTRUCT_SERVE_TOKEN), or leave HOST out to serve this machine only."
        )
    with _bound_socket(config) as bound:
        found = find_model(
            model_dir,
            "server.serve",
            model=model,
            vocabulary=vocabulary,
            chat_template=chat_template,
            step=step,
            inputs_length=inputs_length,
        )
        loaded = found.load(decode, max_decode_steps, mesh, strict, _say)
        decoder = loaded.online_decoder(batching, chunk_steps=config.chunk_steps)
        _say(f"compiled {decoder.compile_all()} programs")
        engine = Engine(decoder, config.queue_length)
        name = name or folder.absolute().name
        service = Service(name, engine, loaded.encoder, config, token)
        host, port = bound.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        server = DrainingServer(
            service,
            engine,
            f"{loaded.folder}: {loaded.decode.describe()}, {decoder.num_slots} slots, prompts of "
            f"up to {loaded.encoder.inputs_length:,} tokens",
            f"serving {name} at {address} (Ctrl-C ends it)",
        )
        try:
            with _explaining(config):  # two servers that load may have bound one address
                bound.listen()
            server.run(sockets=[bound])
        finally:
            engine.close()
        return int(server.is_cut_off)


class DrainingServer(uvicorn.Server):
    """Listens on after a signal, to refuse requests by name, until the accepted are answered.

    `run(sockets=[...])` returns then. A second signal gives the open requests up. A client that
    has not read its answer `ServeConfig.request_secs` later is cut off.

    Args:
        service: the application.
        engine: decodes for it.
        greeting: lines to say once the server listens.

    Attributes:
        is_cut_off: whether requests were given up, or clients that do not read cut off.
    """

    def __init__(self, service: Service, engine: Engine, *greeting: str):
        config = uvicorn.Config(
            service.app(),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self._service, self._engine, self._greeting = service, engine, greeting
        self._ticks_left = _REFUSING_TICKS
        self._is_impatient = self.is_cut_off = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; from then on the server can be reached."""
        await super().startup(sockets)
        _say(*self._greeting)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's signal handler; the first call drains."""
        if self._service.is_draining:
            self._is_impatient = True
            return
        self._service.is_draining = True
        _say(
            f"{signal.Signals(sig).name}: answering {self._engine.num_open} prompts, refusing "
            "others; again to end at once"
        )

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's look at whether to end, ten times a second."""
        if self._is_impatient and self._engine.num_open:
            self.is_cut_off = True
            self._engine.give_up()
        if self._service.is_draining and not self._engine.num_open:
            self._ticks_left -= 1
            self.should_exit |= self._ticks_left <= 0
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, which waits for clients that read; a second signal ends their connections."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._service.config.request_secs
        ending = asyncio.ensure_future(super().shutdown(sockets))
        while not (await asyncio.wait([ending], timeout=_TICK_SECS))[0]:
            if self._is_impatient or loop.time() > latest:
                for connection in list(self.server_state.connections):
                    self.is_cut_off = True
                    connection.transport.abort()
        ending.result()


@contextlib.contextmanager
def _bound_socket(config: ServeConfig):
    """A socket that is bound and does not listen yet: its port is taken before minutes of loading.

    Raises UserError if the address cannot be had.
    """
    with _explaining(config):
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    with bound:
        yield bound


@contextlib.contextmanager
def _explaining(config: ServeConfig):
    """Raises UserError for an address that cannot be had."""
    try:
        yield
    except (OSError, UnicodeError) as error:  # a host's name that is none
        raise UserError(
            f"cannot listen on HOST {config.host!r}, PORT {config.port} "
            f"({getattr(error, 'strerror', None) or error}); give others with --gin.HOST and "
            "--gin.PORT (0: any)."
        ) from error


def _say(*lines: str) -> None:
    for line in lines:
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
