"""Chat templates of instruction-tuned checkpoints: messages to text, by sandboxed Jinja.

A message is {"role": "system" | "user" | "assistant", "content": text}. Templates come with
checkpoints and are not trusted: they run in Jinja's immutable sandbox, on plain data. Text equals
transformers' `apply_chat_template`, but for one variable: `strftime_now` is not defined, so that a
prompt does not depend on the day; templates that ask for a date write their default one.

What the assistant writes is known by character spans, for losses on these alone: by the template's
own {% generation %} blocks, else by marks around the assistant's contents while it renders. A span
ends with the template's end of turn:

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello.<|im_end|>\\n
                                                            ^^^^^^^^^^^^^^^^
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes, sandbox

from instruct.errors import UserError

Message = Mapping[str, str]
# Noncharacters of Unicode, which no text holds: around {% generation %} blocks and contents.
_BLOCK, _CONTENT = ("\ufdd0", "\ufdd1"), ("\ufdd2", "\ufdd3")
_MARKS = re.compile("[\ufdd0-\ufdd3]")
_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


class TemplateRefusal(UserError):
    """A chat template cannot write some messages.

    Attributes:
        reason: a short phrase; reports count equal ones.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Generation(jinja2.ext.Extension):
    """Marks the text of {% generation %} ... {% endgeneration %}."""

    tags = {"generation"}

    def parse(self, parser: Any) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        first, last = (nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in _BLOCK)
        return [first, *body, last]


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any):
    """Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Attributes:
        source: Jinja.
        tokens: (name, text) of the tokenizer's named tokens, such as ("bos_token", "<s>").
        start: text of what starts every sequence; `prompt` and `dialog` leave it out, because the
            layout of the batch writes it.
        place: where the template is from, for messages.
    """

    source: str
    tokens: tuple[tuple[str, str], ...] = ()
    start: str = ""
    place: str = "this run"

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes a text."""
        return hashlib.sha256(repr((self.source, self.tokens, self.start)).encode()).hexdigest()

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """The text of messages, as `apply_chat_template(tokenize=False)` returns it.

        Args:
            add_generation_prompt: end with what comes before the assistant's next turn.
            variables: other variables of the template.

        Raises:
            TemplateRefusal: the template refuses the messages.
            UserError: it is not valid, fails, or does what the sandbox forbids.
        """
        return _MARKS.sub("", self._marked(messages, add_generation_prompt, **variables))

    @functools.cached_property
    def end_of_turn(self) -> str:
        """What the template writes after an answer, without blanks; "" if nothing."""
        text, contents = self._contents(_PROBE)
        _, blocks = _without(self._marked(_PROBE, enable_thinking=False), _BLOCK)
        last = blocks[-1][1] if blocks else len(text)
        return text[contents[-1][1] : last].rstrip() if contents else ""

    def prompt(self, inputs: str) -> str:
        """The text of a user's turn, up to where the assistant's answer begins."""
        return self.next_turn([{"role": "user", "content": inputs}])

    def next_turn(self, messages: Sequence[Message]) -> str:
        """The text of a conversation, up to where the assistant's next answer begins."""
        return self._cut(self.render(messages, True, enable_thinking=False))

    def answer(self, targets: str) -> str:
        """The text of the assistant's answer, with its end of turn, without blanks after it."""
        text, spans = self.dialog([_PROBE[0], {"role": "assistant", "content": targets}])
        return text[slice(*spans[0])].rstrip()

    def dialog(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """(text, [first, last) characters of everything that the assistant writes).

        Templates with `enable_thinking` get False: answers are the contents alone.

        Raises:
            TemplateRefusal: also if the template changes the assistant's contents so that they are
                not found again.
            UserError: also if there is no turn of the assistant.
        """
        turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise UserError("no message is the assistant's, so there is no answer to train on.")
        marked = self._marked(messages, enable_thinking=False)
        text, spans = _without(marked, _BLOCK)
        if not spans:
            spans = self._spans(messages, turns, text)
        missing = len(text) - len(self._cut(text))
        return text[missing:], [(first - missing, last - missing) for first, last in spans]

    def _cut(self, text: str) -> str:
        return text.removeprefix(self.start)

    def _spans(
        self, messages: Sequence[Message], turns: Sequence[int], text: str
    ) -> list[tuple[int, int]]:
        """Spans of a template without {% generation %} blocks."""
        around, contents = self._contents(messages)
        ending = re.compile(rf"\s*?{re.escape(self.end_of_turn)}")
        spans = []
        if around == text and len(contents) == len(turns):
            for turn, (first, last) in zip(turns, contents):
                for thinking in ({"enable_thinking": False}, {}):
                    before = self.render(messages[:turn], True, **thinking)
                    if len(before) <= first and text.startswith(before):
                        first = len(before)
                        break
                if end := ending.match(text, last):
                    spans.append((first, end.end()))
        if len(spans) != len(turns):
            raise TemplateRefusal(
                f"the chat template of {self.place} changes the assistant's contents, so that "
                "they are not found in the rendered text. Write {% generation %} and "
                "{% endgeneration %} around the assistant's turns in the template.",
                "chat template changes the assistant's contents",
            )
        return spans

    def _contents(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """(text, spans of the assistant's contents without outer blanks, where still there)."""
        marked = []
        for message in messages:
            content = message["content"]
            if message["role"] == "assistant":
                first = len(content) - len(content.lstrip())
                last = max(first, len(content.rstrip()))
                middle = content[first:last].join(_CONTENT)
                content = content[:first] + middle + content[last:]
            marked.append({**message, "content": content})
        return _without(self._marked(marked, enable_thinking=False), _CONTENT)

    def _marked(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """The text with marks around {% generation %} blocks."""
        for message in messages:
            if not all(isinstance(message.get(name), str) for name in ("role", "content")):
                raise UserError(
                    f"{str(dict(message))[:80]} is not a message; it needs 'role' and 'content', "
                    "both text."
                )
        refused = ""
        values = dict(self.tokens) | {"tools": None, "documents": None} | variables
        try:
            return _compiled(self.source).render(
                **values,
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateSyntaxError as error:
            reason = f"is not valid Jinja (line {error.lineno}: {error.message})"
        except sandbox.SecurityError as error:
            reason = f"does what its sandbox forbids ({error})"
        except jinja2.UndefinedError as error:
            reason = f"reads a variable that is not there ({error})"
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages) or "no message"
            reason = f"refuses messages of these roles: {roles} ({error})"
            refused = f"chat template refuses messages ({error})"
        except Exception as error:  # whatever a template computes
            reason = f"fails ({type(error).__name__}: {error})"
        message = (
            f"the chat template of {self.place} {reason}. Correct it or the messages, or train and "
            "evaluate without it (CHAT_TEMPLATE = False)."
        )
        raise TemplateRefusal(message, refused) if refused else UserError(message)


def _without(text: str, marks: tuple[str, str]) -> tuple[str, list[tuple[int, int]]]:
    """(text without any mark, spans between pairs of these marks)."""
    starts, ends, kept = [], [], 0
    for part in re.split(f"({_MARKS.pattern})", text):
        if part == marks[0]:
            starts.append(kept)
        elif part == marks[1]:
            ends.append(kept)
        elif not _MARKS.fullmatch(part):
            kept += len(part)
    pairs = list(zip(starts, ends)) if len(starts) == len(ends) else []
    return _MARKS.sub("", text), pairs
