"""Bodies of requests, in OpenAI's format, to `Asked`; what cannot be done is refused by name."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import PromptEncoder
from instruct.eval.prompt_lines import LONE_SURROGATE
from instruct.prompts.chat_template import TemplateRefusal

_log = logging.getLogger(__name__)
_MOST_STOPS = 4
_LARGEST_SEED = 2**31 - 1
_ROLES = ("system", "user", "assistant")
# Fields that may be given with a value that changes nothing: field -> the values allowed.
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "none"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}
_IGNORED = ("user", "metadata", "store", "service_tier")
_SHARED = ("model", "max_tokens", "temperature", "top_p", "seed", "n", "stop", "stream")
_FIELDS = (*_SHARED, "stream_options", *_IGNORED, *_WITHOUT_EFFECT)


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        param: the field at fault.
        code: for programs.
        retry_secs: after which the client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_secs: int | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.code, self.retry_secs = status, param, code, retry_secs

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that can be answered.

    Attributes:
        prompts: token ids of each prompt.
        max_tokens: of an answer.
        count: answers of each prompt.
        stops: texts that end an answer.
        seed: example number of the first prompt; None: the server chooses.
        stream: whether pieces are sent as they come.
        usage_at_end: whether the last event of a stream counts tokens.
    """

    prompts: tuple[list[int], ...]
    max_tokens: int
    count: int
    stops: tuple[str, ...]
    seed: int | None
    stream: bool
    usage_at_end: bool


def read_completion(
    body: Any, model: str, config: DecodeConfig, encoder: PromptEncoder, most_prompts: int
) -> Asked:
    """Reads a body of `/v1/completions`.

    Args:
        body: the JSON value.
        model: name of the model that is served.
        config: the strategy; what it sets for all requests cannot be set by one.
        encoder: of prompts.
        most_prompts: of one request.

    Raises:
        Refusal: a field is missing, unknown, of another type, or asks for what is not offered.
    """
    fields = _checked(body, ("prompt",))
    prompt = fields.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise Refusal(
            400, "`prompt` must be a text or a list of texts (not of token ids).", "prompt"
        )
    if len(texts) > most_prompts:
        message = f"`prompt` has {len(texts):,} texts; this server takes at most {most_prompts:,}."
        raise Refusal(400, message, "prompt")
    for text in texts:
        _check_text(text, "prompt")
    try:
        prompts = [encoder.frame.prompt(text) for text in texts]
    except UserError as error:  # the template refuses a text
        raise _refused(error, "prompt") from error
    return _asked(fields, model, config, encoder, prompts, "prompt", "max_tokens")


def read_chat(body: Any, model: str, config: DecodeConfig, encoder: PromptEncoder) -> Asked:
    """Reads a body of `/v1/chat/completions`; otherwise as `read_completion`."""
    fields = _checked(body, ("messages", "max_completion_tokens"))
    if encoder.frame.chat is None:
        raise Refusal(
            404,
            f"{model} was not trained with a chat template; use /v1/completions.",
            code="no_chat_template",
        )
    messages = fields.get("messages")
    if not (isinstance(messages, list) and messages):
        raise Refusal(400, "`messages` must be a list of messages.", "messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise Refusal(400, f"a message needs a `role` of {', '.join(_ROLES)}.", "messages")
        _check_no_more(message, ("role", "content"), "a message")
    if messages[-1]["role"] != "user":
        raise Refusal(400, "the last message must be the user's.", "messages")
    turns = [
        {"role": message["role"], "content": _message_text(message.get("content"))}
        for message in messages
    ]
    try:
        prompt = encoder.frame.next_turn(turns)
    except UserError as error:  # the template refuses this order of roles
        raise _refused(error, "messages") from error
    limits = ("max_completion_tokens", "max_tokens")
    named = [name for name in limits if fields.get(name) is not None] or ["max_tokens"]
    if len(named) > 1:
        raise Refusal(400, f"give one of {' and '.join(limits)}, not both.", limits[0])
    limit = named[0]
    return _asked(fields, model, config, encoder, [prompt], "messages", limit)


def no_model(name: Any, model: str) -> Refusal:
    """For a request that names another model than the one that is served."""
    message = f"no model {name!r:.80}; this server has {model!r}."
    return Refusal(404, message, "model", "model_not_found")


def _message_text(content: Any) -> str:
    """The `content` of a message; parts become lines, as vLLM and llama.cpp join them.

    Raises:
        Refusal: it is no text and no list of parts with text.
    """
    if isinstance(content, list) and content:
        content = "\n".join(map(_part_text, content))
    if not isinstance(content, str):
        message = "the `content` of a message must be text, or a list of parts of type 'text'."
        raise Refusal(400, message, "messages")
    if LONE_SURROGATE.search(content):
        raise Refusal(400, "`content` holds half of a surrogate pair.", "messages")
    return content


def _part_text(part: Any) -> str:
    if not (isinstance(part, dict) and isinstance(part.get("type"), str)):
        message = "a part of `content` must be an object with a `type`, which must be 'text'."
        raise Refusal(400, message, "messages")
    if part["type"] != "text":
        message = f"a part of `content` has type {part['type']!a:.60}; the model reads 'text' only."
        raise Refusal(400, message, "messages")
    if not isinstance(part.get("text"), str):
        raise Refusal(400, "a part of type 'text' needs a `text`.", "messages")
    _check_no_more(part, ("type", "text"), "a part of `content`")
    return part["text"]


def _check_no_more(fields: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises `Refusal` for a field of a message, or of a part of one, that is set and not known."""
    for name in fields.keys() - set(known):
        if fields[name] not in (None, [], ""):
            message = f"{name!a:.60} of {where} is not supported; leave it out."
            raise Refusal(400, message, "messages")


def _refused(error: UserError, name: str) -> Refusal:
    """A chat template's error without what is the server's own: its paths, and how to train."""
    if isinstance(error, TemplateRefusal):
        return Refusal(400, f"{error.reason}.", name)
    _log.warning("%s", error)
    return Refusal(400, f"the chat template fails on `{name}`; the server's log says why.", name)


def _checked(body: Any, more: Sequence[str]) -> Mapping[str, Any]:
    """The body's fields, if all are known."""
    if not isinstance(body, dict):
        raise Refusal(400, f"the body must be a JSON object, not {type(body).__name__}.")
    for name, value in body.items():
        if name not in (*_FIELDS, *more):
            known = ", ".join(sorted((*_FIELDS, *more)))
            # JSON may name a field by half of a surrogate pair, which is no text to send back.
            param = LONE_SURROGATE.sub("?", name[:60])
            raise Refusal(400, f"unknown field {name!r:.60}; known: {known}.", param)
        allowed = _WITHOUT_EFFECT.get(name)
        if allowed is not None and value not in allowed:
            raise Refusal(400, f"`{name}` is not supported; leave it out.", name)
    return body


def _asked(
    fields: Mapping[str, Any],
    model: str,
    config: DecodeConfig,
    encoder: PromptEncoder,
    prompts: Sequence[list[int]],
    prompt_name: str,
    limit_name: str,
) -> Asked:
    if fields.get("model") not in (None, model):
        raise no_model(fields["model"], model)
    longest, most = max(map(len, prompts)), encoder.inputs_length
    if longest > most:
        setting = "INPUTS_LENGTH and the first" if encoder.num_uncounted else "INPUTS_LENGTH"
        raise Refusal(
            400,
            f"the prompt has {longest:,} tokens, the model reads at most {most:,} ({setting}). "
            "Nothing is cut; shorten it.",
            prompt_name,
            "context_length_exceeded",
        )
    _check_strategy(fields, config)
    stream = _typed(fields, "stream", bool, "true or false") or False
    options = _typed(fields, "stream_options", dict, "an object") or {}
    for name in options.keys() - {"include_usage"}:
        message = f"unknown option {name!a:.60}; known: include_usage."
        raise Refusal(400, message, "stream_options")
    return Asked(
        prompts=tuple(prompts),
        max_tokens=_max_tokens(fields, limit_name, config),
        count=_number(fields, "n", 1, config.num_sequences, _more_answers(config)) or 1,
        stops=_stops(fields),
        seed=_number(fields, "seed", 0, _LARGEST_SEED),
        stream=stream,
        usage_at_end=_typed(options, "include_usage", bool, "true or false") or False,
    )


def _check_strategy(fields: Mapping[str, Any], config: DecodeConfig) -> None:
    """Raises `Refusal` unless a request's temperature and top_p are those of the server."""
    samples = config.strategy == "sample"
    for name, value in (
        ("temperature", config.temperature if samples else 0),
        ("top_p", config.top_p if samples else 1),
    ):
        asked = fields.get(name)
        if asked is not None and (type(asked) not in (int, float) or asked != value):
            raise Refusal(
                400,
                f"`{name}` is {asked!r:.40}; this server decodes all requests by one strategy "
                f"({config.describe()}): give {value!r} or leave it out.",
                name,
            )


def _max_tokens(fields: Mapping[str, Any], name: str, config: DecodeConfig) -> int:
    most = config.max_decode_steps
    asked = _number(fields, name, 1, most, " (the server's MAX_DECODE_STEPS)") or most
    if config.strategy == "beam" and asked != most:
        raise Refusal(
            400, f"`{name}` must be {most} or left out: beam search ranks whole answers.", name
        )
    return asked


def _more_answers(config: DecodeConfig) -> str:
    if config.strategy == "greedy":
        return " (greedy decoding has one answer)"
    return " (the server's num_samples or num_beams)"


def _stops(fields: Mapping[str, Any]) -> tuple[str, ...]:
    stops = fields.get("stop")
    stops = [] if stops is None else [stops] if isinstance(stops, str) else stops
    texts = isinstance(stops, list) and all(isinstance(stop, str) and stop for stop in stops)
    if not texts or len(stops) > _MOST_STOPS:
        message = f"`stop` must be a text or a list of at most {_MOST_STOPS} texts, none empty."
        raise Refusal(400, message, "stop")
    return tuple(stops)


def _number(
    fields: Mapping[str, Any], name: str, least: int, most: int, reason: str = ""
) -> int | None:
    value = _typed(fields, name, int, "a whole number")
    if value is not None and not least <= value <= most:
        allowed = f"{least}" if least == most else f"from {least} to {most}"
        raise Refusal(400, f"`{name}` is {value}; allowed: {allowed}{reason}.", name)
    return value


def _typed(fields: Mapping[str, Any], name: str, kind: type, words: str) -> Any:
    value = fields.get(name)
    if value is not None and type(value) is not kind:
        raise Refusal(400, f"`{name}` is {value!r:.40}; it must be {words}.", name)
    return value


def _check_text(text: str, name: str) -> None:
    if not text.strip():
        raise Refusal(400, f"`{name}` is empty; give the text that the model is to answer.", name)
    if LONE_SURROGATE.search(text):
        raise Refusal(400, f"`{name}` holds half of a surrogate pair, which is no text.", name)
