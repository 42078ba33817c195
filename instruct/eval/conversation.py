"""`infer --interactive`: prompts from the terminal, answers as their tokens come.

Lines can be edited and called back where Python has readline. Ctrl-C ends an answer, Ctrl-D the
program. With a chat template the turns before are part of the prompt, without one each line is a
prompt of its own.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable

from instruct.errors import UserError
from instruct.eval.answer_text import AnswerText
from instruct.eval.decoding.online import OnlineDecoder
from instruct.eval.loaded_model import PromptEncoder
from instruct.eval.prompt_lines import LONE_SURROGATE
from instruct.prompts.chat_template import Message

_PROMPT = "> "


def converse(
    decoder: OnlineDecoder,
    encoder: PromptEncoder,
    read: Callable[[str], str] = input,
    write: Callable[[str], None] | None = None,
) -> None:
    """Answers lines until the end of input.

    Args:
        decoder: of at least one slot.
        encoder: of the model.
        read: returns a line, as `input` does.
        write: takes pieces of answers and notes; None: standard output, flushed.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives `input` its history)
    write = write or _print
    chat = encoder.frame.chat is not None
    kept = "turns are kept" if chat else "each line is a prompt of its own"
    write(f"[{decoder.config.describe()}; {kept}; Ctrl-C ends an answer, Ctrl-D leaves]\n")
    turns: list[Message] = []
    for number in itertools.count():  # samples depend on it
        try:
            line = read(_PROMPT)
        except KeyboardInterrupt:  # as shells do, a fresh line
            write("\n")
            continue
        except EOFError:
            write("\n")
            return
        if not line.strip():
            continue
        if LONE_SURROGATE.search(line):
            write("[not UTF-8 text]\n")
            continue
        turns = [*turns, {"role": "user", "content": line}] if chat else []
        ids, turns = _encoded(encoder, line, turns, write)
        if ids:
            answer = _answer(decoder, encoder, decoder.add(ids, number), write)
            turns = [*turns, {"role": "assistant", "content": answer}]


def _encoded(
    encoder: PromptEncoder, line: str, turns: list[Message], write: Callable[[str], None]
) -> tuple[list[int], list[Message]]:
    """Token ids, and the turns in them.

    None, and the turns before, if the line is too long or the chat template refuses it.
    """
    frame, limit, before = encoder.frame, encoder.inputs_length, turns[:-1]
    while True:
        try:
            ids = frame.next_turn(turns) if turns else frame.prompt(line)
        except UserError as error:
            write(f"[{error}]\n")
            return [], before
        if len(ids) <= limit:
            return ids, turns
        if len(turns) <= 1:
            write(
                f"[this prompt has {len(ids):,} tokens, the model reads {limit:,}; shorten it, or "
                f"start with --gin.INPUTS_LENGTH={len(ids) - encoder.num_uncounted}]\n"
            )
            return [], before
        write("[the oldest turn is left out: the conversation is too long for the model]\n")
        turns = turns[2:]


def _answer(
    decoder: OnlineDecoder, encoder: PromptEncoder, key: int, write: Callable[[str], None]
) -> str:
    """Decodes and writes the answer to the prompt `key`; of several sequences the first."""
    text, pieces = AnswerText(encoder.frame.tokenizer), []
    steps, stable = decoder.config.max_decode_steps, decoder.config.strategy != "beam"
    ended, note = False, ""
    try:
        while not ended:
            (partial,) = decoder.advance()
            ended = partial.ended
            if ended or stable:  # the best beam changes
                tokens = decoder.config.answer_ids(partial.tokens[0])
                pieces.append(text.extend(tokens, ended))
                write(pieces[-1])
                if ended and len(tokens) == steps:
                    note = f" [cut off after {steps:,} tokens; --gin.MAX_DECODE_STEPS allows more]"
    except KeyboardInterrupt:
        decoder.reset()
        decoder.remove(key)  # if it was in no slot yet
        note = " [stopped]"
    write(f"{note}\n")
    return "".join(pieces)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
