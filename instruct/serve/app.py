"""The ASGI application: routes, limits, and the way of a request to the engine and back."""

import asyncio
import hmac
import json
import logging
import pathlib
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from instruct.eval.answer_text import AnswerText
from instruct.eval.decoding.online import Partial
from instruct.eval.loaded_model import PromptEncoder
from instruct.json_text import parse_json
from instruct.serve.choices import Choice, Reply, usage_of
from instruct.serve.engine import Engine, EngineStopped, Job, QueueFull
from instruct.serve.request_body import Asked, Refusal, no_model, read_chat, read_completion
from instruct.serve.serve_config import ServeConfig, is_loopback

_PAGE = pathlib.Path(__file__).with_name("page.html")
_RETRY_SECS = 1
_LARGEST_EXAMPLE = 2**31 - 1
# The page's own script and style; nothing is fetched from elsewhere.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_log = logging.getLogger(__name__)


class Service:
    """One model behind HTTP.

    Args:
        name: of the model, for clients.
        engine: decodes; must be working.
        encoder: of prompts.
        config: limits.
        token: that clients must send; None: none.

    Attributes:
        config: limits.
        is_draining: set it to refuse further requests.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        encoder: PromptEncoder,
        config: ServeConfig,
        token: str | None = None,
    ):
        self._name, self._engine, self._encoder = name, engine, encoder
        self.config, self._token = config, token
        self._created = int(time.time())
        self._next_example = 0
        self.is_draining = False

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/", self._page),
            Route("/health", self._health),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._models)),  # a name may have slashes
            Route("/v1/completions", self._guarded(self._complete), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})

    def _guarded(
        self, handler: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the token, with refusals as error objects."""

        async def guarded(request: Request) -> Response:
            try:
                self._check_sender(request)
                return await handler(request)
            except Refusal as refusal:
                return _refused(refusal)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception:
                _log.exception("a request failed")
                return _refused(Refusal(500, "the server failed; its log says why."))

        return guarded

    def _check_sender(self, request: Request) -> None:
        """Raises `Refusal` without the token; or, if there is none, for other sites' pages.

        A page in a browser of this machine could reach the server, by a name of its own for
        127.0.0.1 too.
        """
        if self._token is None:
            for name, start in (("host", "//"), ("origin", "")):
                value = request.headers.get(name)
                if value is not None and not is_loopback(_hostname(start + value)):
                    message = f"{name} {value!r:.80} is not this machine's own; no token is set."
                    raise Refusal(403, message, code="foreign_host")
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(given, self._token.encode()):
            message = "this server needs its token: send `Authorization: Bearer TOKEN`."
            raise Refusal(401, message, code="invalid_api_key")

    async def _page(self, request: Request) -> Response:
        headers = {"content-security-policy": _PAGE_POLICY}
        return HTMLResponse(_PAGE.read_text("utf-8"), headers=headers)

    async def _health(self, request: Request) -> Response:
        status = "draining" if self.is_draining else "ok" if self._engine.is_working else "failed"
        facts = {"status": status, "model": self._name, "open": self._engine.num_open}
        return JSONResponse(facts, 200 if status == "ok" else 503)

    async def _models(self, request: Request) -> Response:
        """The list of models, or the one that the path names."""
        model = {"id": self._name, "object": "model", "created": self._created}
        model |= {"owned_by": "instruct"}
        name = request.path_params.get("name")
        if not name:
            return JSONResponse({"object": "list", "data": [model]})
        if name != self._name:
            raise no_model(name, self._name)
        return JSONResponse(model)

    async def _complete(self, request: Request) -> Response:
        return await self._reply(request, chat=False)

    async def _chat(self, request: Request) -> Response:
        return await self._reply(request, chat=True)

    async def _reply(self, request: Request, chat: bool) -> Response:
        if self.is_draining:
            raise _unavailable("this server is about to end")
        deadline = asyncio.get_running_loop().time() + self.config.request_secs
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._body(request)
        except TimeoutError:
            raise Refusal(408, "the body did not come in time.", code="timeout") from None
        arguments = body, self._name, self._engine.config, self._encoder
        if chat:
            asked = read_chat(*arguments)
        else:
            asked = read_completion(*arguments, self._engine.capacity)
        answering = _Answering(self._engine, self._encoder, asked, self._first_example(asked))
        pieces = answering.pieces(deadline, self.config.request_secs)
        answering.submit()
        reply = Reply(self._name, chat)
        if asked.stream:
            return _Stream(_events(answering, pieces, reply), answering.cancel)
        try:
            await _finish(pieces, request)
        finally:
            answering.cancel()
        return JSONResponse(reply.whole(answering.choices, answering.usage()))

    async def _body(self, request: Request) -> Any:
        """The JSON value of a body that is not too large."""
        body, most = bytearray(), self.config.body_bytes
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                message = f"the body is larger than the {most:,} bytes that this server takes."
                raise Refusal(413, message, code="body_too_large")
        try:
            return parse_json(bytes(body))
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON ({error}).", code="malformed_json") from None

    def _first_example(self, asked: Asked) -> int:
        """Number of the request's first example, which its samples depend on."""
        if asked.seed is not None:
            return asked.seed
        first = self._next_example
        self._next_example += len(asked.prompts)
        return first


class _Answering:
    """The choices of one request, extended by the news of the engine."""

    def __init__(self, engine: Engine, encoder: PromptEncoder, asked: Asked, first_example: int):
        self._engine, self.asked = engine, asked
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[int, Partial | Exception]] = asyncio.Queue()
        self.choices = [
            Choice(
                number * asked.count + sequence,
                sequence,
                engine.config,
                AnswerText(encoder.frame.tokenizer, asked.stops),
            )
            for number in range(len(asked.prompts))
            for sequence in range(asked.count)
        ]
        self._of_prompt = [
            self.choices[first : first + asked.count]
            for first in range(0, len(self.choices), asked.count)
        ]
        self._jobs = [
            Job(
                prompt,
                (first_example + number) % (_LARGEST_EXAMPLE + 1),
                asked.max_tokens,
                self._receiver(number),
            )
            for number, prompt in enumerate(asked.prompts)
        ]

    def submit(self) -> None:
        """Hands the prompts to the engine; raises `Refusal` if it cannot take them."""
        try:
            self._engine.submit(self._jobs)
        except QueueFull:
            raise _unavailable("this server has as many prompts as it takes") from None
        except EngineStopped:
            raise _unavailable("this server can no longer decode") from None

    def cancel(self) -> None:
        """Frees the slots; does nothing to prompts that have ended."""
        self._engine.cancel(self._jobs)

    def usage(self) -> dict[str, int]:
        """Tokens of prompts and answers."""
        return usage_of(self.asked, self.choices)

    async def pieces(self, deadline: float, seconds: float) -> AsyncIterator[tuple[Choice, str]]:
        """(choice, text that follows), also empty where a choice finishes.

        Args:
            deadline: of the last piece, by the event loop's clock.
            seconds: which that was when the request came.

        Raises:
            Refusal: decoding failed, or the answer is late.
        """
        while any(choice.finish_reason is None for choice in self.choices):
            try:
                async with asyncio.timeout_at(deadline):
                    number, news = await self._news.get()
            except TimeoutError:
                message = f"the answer took longer than {seconds:g} seconds."
                raise Refusal(504, message, code="timeout") from None
            if isinstance(news, Exception):
                raise Refusal(500, "decoding failed; the server's log says why.")
            choices = self._of_prompt[number]
            changed = [choice for choice in choices if choice.finish_reason is None]
            pieces = [(choice, choice.extend(news)) for choice in changed]
            if not news.ended and all(choice.finish_reason for choice in choices):
                self._engine.cancel([self._jobs[number]])
            for choice, text in pieces:
                if text or choice.finish_reason:
                    yield choice, text

    def _receiver(self, number: int) -> Callable[[Partial | Exception], None]:
        def receive(news: Partial | Exception) -> None:  # in the engine's thread
            self._loop.call_soon_threadsafe(self._news.put_nowait, (number, news))

        return receive


def _hostname(address: str) -> str:
    """The host of an address; "" if it has none."""
    try:
        return urllib.parse.urlsplit(address).hostname or ""
    except ValueError:
        return ""


async def _finish(pieces: AsyncIterator[tuple[Choice, str]], request: Request) -> None:
    """Waits for all pieces; raises ClientDisconnect if nobody waits for the answer."""

    async def exhaust() -> None:
        async for _ in pieces:
            pass

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(wait()) for wait in (exhaust, disconnected)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] not in done:
            raise ClientDisconnect
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _events(
    answering: _Answering, pieces: AsyncIterator[tuple[Choice, str]], reply: Reply
) -> AsyncIterator[str]:
    """Server-sent events: pieces of the choices, then [DONE]; or what ended them."""
    started: set[int] = set()
    try:
        async for choice, text in pieces:
            yield _event(reply.piece(choice, text, choice.index not in started))
            started.add(choice.index)
    except Refusal as refusal:
        yield _event(refusal.body())
        return
    if answering.asked.usage_at_end:
        yield _event(reply.usage(answering.usage()))
    yield "data: [DONE]\n\n"


class _Stream(StreamingResponse):
    """Server-sent events; `close` is called at the end, also when the client has gone."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]):
        super().__init__(events, media_type="text/event-stream")
        self.headers["cache-control"] = "no-cache"
        self._close = close

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            self._close()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _unavailable(reason: str) -> Refusal:
    return Refusal(503, f"{reason}; try again later.", code="overloaded", retry_secs=_RETRY_SECS)


def _refused(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_secs is not None:
        headers["retry-after"] = str(refusal.retry_secs)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refusal.status in (401, 403, 408, 413, 503):
        headers["connection"] = "close"  # the body is not read, or the server is about to end
    return JSONResponse(refusal.body(), refusal.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or another method."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path}"
    return JSONResponse(
        Refusal(error.status_code, f"{path}: {error.detail}.").body(),
        error.status_code,
        error.headers,
    )
