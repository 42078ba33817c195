"""`infer`: JSON lines in, JSON lines out, with a trained model; or one prompt, or a conversation.

Each input line is an object with the prompt in `inputs` (or `prompt`); other fields are kept. The
output has the same objects in the same order, plus `prediction` and `score`; rejected lines are
reported and skipped. Prompts are answered in ranges, and each range is written and synced at once.
An interrupted run resumes after the last finished range, and as batches never cross ranges, its
output equals that of an uninterrupted run byte for byte.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instruct import distributed
from instruct.checkpoints.loading import params_fingerprint
from instruct.errors import UserError, naming_file
from instruct.eval.conversation import converse
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.beam import EMPTY_SCORE
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import PromptEncoder, find_model
from instruct.eval.prompt_lines import (
    LONE_SURROGATE,
    STANDARD_STREAM,
    BadLine,
    Prompt,
    check_prompts,
    name_bad_lines,
    prompt_file,
    prompts_only,
    refused_prompts,
)
from instruct.fields import Range, check_arguments
from instruct.files import any_path, local_path, locked, remove_leftovers, replace_file
from instruct.json_text import parse_json, sealed, unsealed
from instruct.mesh import MeshConfig
from instruct.models.model import AnyConfig

# In the file of settings: a hash of each finished range.
_RANGES = "ranges"


def infer(
    model_dir: str,
    prompt: str | None = None,
    input_path: str | None = None,
    output_path: str | None = None,
    decode: DecodeConfig | None = None,
    batching: BatchConfig | None = None,
    mesh: MeshConfig | None = None,
    model: AnyConfig | None = None,
    vocabulary: str | None = None,
    chat_template: bool | None = None,
    step: int | None = None,
    inputs_length: Annotated[int | None, Range(least=2)] = None,
    max_decode_steps: Annotated[int | None, Range(least=1)] = None,
    lines_per_range: Annotated[int, Range(least=1)] = 1024,
    strict: bool = False,
    interactive: bool = False,
) -> int:
    """Answers one prompt (printed), a file of prompts, or those that are typed.

    Args:
        model_dir: folder of a training run or of a checkpoint (this program's, T5X's or Hugging
            Face's).
        prompt: a text; None: `input_path` and `output_path` are required.
        input_path: JSON lines, also compressed; "-" for standard input.
        output_path: JSON lines; an unfinished file is resumed; "-" for standard output.
        decode: the strategy; None: that of the checkpoint's generation_config.json, else greedy.
            EOS is that of the vocabulary unless generation_config.json sets another.
        batching: batch size and shapes; does not affect predictions.
        mesh: over all devices.
        model: architecture; None: from the run's `run.json`.
        vocabulary: see `instruct.data.vocab`; None: from the run's `run.json`.
        chat_template: prompts as turns of the vocabulary's chat template; None: as trained.
        step: of the checkpoint; None for the newest.
        inputs_length: longest prompt in tokens, EOS included; longer ones are truncated at the end,
            marked `truncated` and reported. None: as in training, else 512.
        max_decode_steps: longest answer in tokens; None: that of the strategy.
        lines_per_range: prompts per range. Affects the last digit of scores.
        strict: refuse rejected lines, prompts that are too long, and a damaged newest checkpoint
            (otherwise the newest whole one is used).
        interactive: prompts come from the terminal (`conversation.converse`).

    Returns:
        The exit status: 1 if lines were rejected (the others were answered), else 0.

    Raises:
        UserError: bad flags, no valid prompt, an output of other settings or in use, or a
            checkpoint or vocabulary that does not fit.
    """
    check_arguments(infer, locals())
    if prompt is not None and (input_path or output_path):
        raise UserError("give --prompt, or --input and --output, not both")
    if interactive and (prompt is not None or input_path or output_path):
        raise UserError("--interactive reads prompts as you type them; leave the other flags out")
    if interactive and (sys.stdin is None or sys.stdout is None):
        closed = "input" if sys.stdin is None else "output"
        raise UserError(f"--interactive: standard {closed} is closed; start it from a terminal.")
    if interactive and distributed.num_processes() > 1:
        raise UserError("--interactive runs in one process; add --distributed=off.")
    if prompt is None and not ((input_path and output_path) or interactive):
        raise UserError(
            "nothing to answer: give --prompt TEXT, --input FILE and --output FILE, or "
            "--interactive"
        )
    any_path("MODEL_DIR", model_dir)
    if prompt is not None and not prompt.strip():
        raise UserError("--prompt is empty; give the text that the model is to answer.")
    if prompt is not None and LONE_SURROGATE.search(prompt):
        raise UserError(
            f"--prompt={prompt!a}: not UTF-8 text. Give it in UTF-8, or as a line of --input."
        )
    if distributed.num_processes() > 1 and input_path == STANDARD_STREAM:
        raise UserError(
            "--input=-: only one of several processes has standard input. Give a file that all "
            "machines share, or --distributed=off."
        )
    first = distributed.is_first_process()  # the only one that writes
    output = _output_path(output_path) if output_path and first else None
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(prompt_file(input_path)) if input_path else None
        # All lines are checked before a model is loaded.
        count, rejected = (1, []) if source is None else check_prompts(source)
        if source is not None:
            _leave_out(source, rejected, strict)
        found = find_model(
            model_dir,
            "infer.infer",
            model=model,
            vocabulary=vocabulary,
            chat_template=chat_template,
            step=step,
            inputs_length=inputs_length,
        )
        encoder = found.encoder
        refused = refused_prompts(source, encoder.refusal) if source and encoder.frame.chat else []
        if source is not None:
            _leave_out(source, refused, strict)
        count, rejected = count - len(refused), [*rejected, *refused]
        locations = frozenset(line.location for line in refused)
        if source is None:
            problem = encoder.describe_truncated([Prompt("--prompt", prompt or "", "")])
        else:  # without --strict, `_answer_file` reports them
            problem = ""
            if strict:
                problem = encoder.describe_truncated(prompts_only(source, locations))
        if problem and strict:
            name = f"{source}, " if source else ""
            raise UserError(f"{name}{problem}; without --strict cut prompts are answered.")
        if problem:
            _say(f"warning: {problem}; --strict refuses such prompts.")
        loaded = found.load(decode, max_decode_steps, mesh, strict, _say)
        if interactive:
            converse(loaded.online_decoder(BatchConfig(batch_size=1)), encoder)
            return 0
        decoder = Decoder(loaded.network, loaded.decode, batching, loaded.mesh)
        answerer = Answerer(decoder, loaded.params, encoder)
        if source is None:
            (answer,) = answerer.answer([prompt or ""], first_index=0)
            if "unfinished" in answer:
                _say(f"warning: the answer {answerer.describe_unfinished()}")
            if first:
                print("\n".join(answer.get("predictions", [answer["prediction"]])))
        else:
            settings = {
                "checkpoint": str(loaded.folder),
                "parameters": params_fingerprint(loaded.folder),
                "decode": loaded.decode.settings(),
                "vocabulary": loaded.vocabulary.fingerprint,
                "inputs_length": encoder.counted_length,
                # Not in the vocabulary's fingerprint; earlier versions recorded True.
                **({"chat_template": encoder.frame.chat.fingerprint} if encoder.frame.chat else {}),
                "lines_per_range": lines_per_range,
            }
            with source.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            distributed.agree("prompts", {**settings, f"file {input_path}": digest})
            prompts = functools.partial(prompts_only, source, locations)
            _answer_file(answerer, prompts, output, count, settings)
    if rejected:
        lines = "line was" if len(rejected) == 1 else "lines were"
        _say(f"{len(rejected):,} {lines} no prompt that can be answered: left out; exit status 1")
    return int(bool(rejected))


def _leave_out(source: pathlib.Path, rejected: Sequence[BadLine], strict: bool) -> None:
    """Names rejected lines; raises UserError for them if `strict`."""
    lines = name_bad_lines(source, rejected)
    if lines and strict:
        raise UserError("\n".join([*lines, "Without --strict the others are answered."]))
    _say(*(f"left out: {line}" for line in lines))


def _say(*lines: str) -> None:
    for line in lines if distributed.is_first_process() else ():
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A loaded model that turns prompts into predictions."""

    decoder: Decoder
    params: Any
    encoder: PromptEncoder

    def answer(
        self,
        prompts: Sequence[str],
        first_index: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        """The fields to add to each prompt's line; prompt i is example number first_index + i."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        examples = range(first_index, first_index + len(prompts))
        inputs = [ids for ids, _ in encoded]
        generated = self.decoder.generate(self.params, inputs, examples, progress)
        answers = []
        for tokens, scores, (_, length) in zip(generated.tokens, generated.scores, encoded):
            rows = [self.decoder.config.answer_ids(row) for row in tokens]
            texts = [self.encoder.frame.tokenizer.decode(row) for row in rows]
            # JSON has no NaN, which a model that has diverged gives.
            numbers = [float(score) if math.isfinite(score) else None for score in scores]
            answer: dict[str, Any] = {"prediction": texts[0], "score": numbers[0]}
            if len(texts) > 1:
                # A beam search may finish fewer hypotheses than it has beams.
                kept = [n for n, score in enumerate(scores) if n == 0 or not score <= EMPTY_SCORE]
                answer["predictions"] = [texts[n] for n in kept]
                answer["scores"] = [numbers[n] for n in kept]
            if length > self.encoder.inputs_length:
                answer["truncated"] = True
            if len(rows[0]) == len(tokens[0]):
                answer["unfinished"] = True
            answers.append(answer)
        return answers

    def describe_unfinished(self) -> str:
        """Describes answers without EOS; continues a sentence."""
        steps = self.decoder.config.max_decode_steps
        return (
            f"was cut off after {steps:,} tokens, the most that are generated. "
            f"--gin.MAX_DECODE_STEPS={2 * steps} allows more"
        )


def _output_path(path: str) -> pathlib.Path | None:
    """Checks the output file and creates its folder; None for standard output."""
    if path == STANDARD_STREAM:
        if sys.stdout is None:
            raise UserError("--output=-: standard output is closed.")
        return None
    output = local_path("--output", path, "answers.jsonl")
    fix = "choose another --output"
    if output.suffix in (".gz", ".zst"):
        raise UserError(f"--output={path}: answers are written as plain JSON lines; {fix}")
    if output.exists() and not output.is_file():
        kind = "a folder" if output.is_dir() else "no plain file (`-` is standard output)"
        raise UserError(f"--output={path} is {kind}; {fix}")
    if output.exists() and not _settings_path(output).exists():
        raise UserError(
            f"{output} exists, but was not written by infer ({_settings_path(output).name} is "
            f"missing); remove it, or {fix}"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _settings_path(output).touch()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"cannot write {output}: {error.strerror or error}; {fix}") from error
    return output


def _settings_path(output: pathlib.Path) -> pathlib.Path:
    """File beside the output with the settings that wrote it: no output mixes two models."""
    return output.with_name(output.name + ".settings.json")


def _answer_file(
    answerer: Answerer,
    read: Callable[[], Iterator[Prompt]],
    output: pathlib.Path | None,
    count: int,
    settings: dict[str, Any],
) -> None:
    """Appends the missing answers, range by range; only the first process writes."""
    first_process = distributed.is_first_process()
    per_range = settings["lines_per_range"]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    console = Console(stderr=True)
    encoder = answerer.encoder
    with contextlib.ExitStack() as stack:
        hashes: list[str] = []
        finished, truncated, unfinished = 0, [], 0
        if not first_process:
            stream = stack.enter_context(open(os.devnull, "wb"))
        elif output is None:
            stream = sys.stdout.buffer
        else:
            output.touch()
            stack.enter_context(locked(output, f"--output {output}"))
            remove_leftovers(output.parent, _settings_path(output).name)
            finished, truncated, unfinished = _resume(read, count, output, settings, hashes)
            stream = stack.enter_context(open(output, "ab"))
            stack.enter_context(naming_file(output))
        bar = stack.enter_context(
            Progress(*columns, console=console, disable=not (first_process and sys.stderr.isatty()))
        )
        # Others than the writer have 0.
        finished = max(one["finished"] for one in distributed.gather_json({"finished": finished}))
        task = bar.add_task("infer", total=count, completed=finished)
        prompts = itertools.islice(read(), finished, None)
        for first in range(finished, count, per_range):
            batch = list(itertools.islice(prompts, per_range))
            texts = [prompt.text for prompt in batch]
            answers = answerer.answer(texts, first, lambda done: bar.advance(task, done))
            lines = [
                f"{prompt.line[:-1]}, {json.dumps(answer, ensure_ascii=False)[1:]}\n".encode()
                for prompt, answer in zip(batch, answers)
            ]
            stream.writelines(lines)
            stream.flush()
            with contextlib.suppress(OSError):  # a pipe
                os.fsync(stream.fileno())
            if output is not None:
                hashes.append(_hash_of(lines))
                _write_settings(output, settings, hashes)
            truncated += [prompt for prompt, answer in zip(batch, answers) if "truncated" in answer]
            unfinished += sum("unfinished" in answer for answer in answers)
    note = ""
    if truncated:
        _say(f"warning: {encoder.describe_truncated(truncated)}")
        prompts_cut = "1 prompt" if len(truncated) == 1 else f"{len(truncated):,} prompts"
        note = f", {prompts_cut} cut to {encoder.counted_length} tokens"
    if unfinished:
        subject = f"each of {unfinished:,} answers" if unfinished > 1 else "one answer"
        _say(f"warning: {subject} {answerer.describe_unfinished()} (marked `unfinished`)")
    resumed = f" ({finished} of them by an earlier run)" if finished else ""
    examples = "example" if count == 1 else "examples"
    _say(f"{count:,} {examples}{resumed}{note} -> {output or 'standard output'}")


def _resume(
    read: Callable[[], Iterator[Prompt]],
    count: int,
    output: pathlib.Path,
    settings: dict[str, Any],
    hashes: list[str],
) -> tuple[int, list[Prompt], int]:
    """Cuts the output to whole ranges; (answers kept, their truncated prompts, unfinished ones).

    The hashes of the ranges that are kept are appended to `hashes`. Raises UserError if a range is
    not what was written, or does not answer the `count` prompts that are read.
    """
    if output.stat().st_size == 0:
        _write_settings(output, settings, hashes)
        return 0, [], 0
    recorded = _check_settings(output, settings)
    kept, end, truncated, unfinished = 0, 0, [], 0
    with open(output, "rb") as stream:
        if (written := sum(1 for _ in stream)) > count:
            # Cutting them off would lose answers that may have taken hours.
            raise UserError(
                f"{output} has {written:,} answers, and the input has {count:,} prompts now: it "
                "was shortened. Give the input as it was, remove the file, or choose another "
                "--output"
            )
        stream.seek(0)
        prompts = read()
        while batch := list(itertools.islice(prompts, settings["lines_per_range"])):
            lines = [stream.readline() for _ in batch]
            whole = all(line.endswith(b"\n") for line in lines)
            # A range without a hash is one whose writer was killed, or an earlier version.
            if not whole or (recorded is not None and len(hashes) >= len(recorded)):
                break
            locations = [f"{output}, line {kept + n}" for n in range(1, len(lines) + 1)]
            answers = [_answer_to(*one) for one in zip(batch, locations, lines)]
            hashes.append(_hash_of(lines))
            if recorded is not None and hashes[-1] != recorded[len(hashes) - 1]:
                raise UserError(
                    f"{output}, lines {kept + 1} to {kept + len(lines)}: not what was written; "
                    "remove the file"
                )
            kept, end = kept + len(lines), end + sum(map(len, lines))
            truncated += [p for p, answer in zip(batch, answers) if "truncated" in answer]
            unfinished += sum("unfinished" in answer for answer in answers)
    os.truncate(output, end)
    return kept, truncated, unfinished


def _hash_of(lines: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()[:16]


def _write_settings(output: pathlib.Path, settings: dict[str, Any], hashes: list[str]) -> None:
    text = json.dumps(sealed(settings | {_RANGES: hashes}), indent=1) + "\n"
    replace_file(_settings_path(output), text)


def _check_settings(output: pathlib.Path, settings: dict[str, Any]) -> list[str] | None:
    """The hashes of the finished ranges; None if an earlier version wrote the output.

    Raises UserError if other settings wrote it.
    """
    fix = "remove it, or choose another --output"
    path = _settings_path(output)
    try:
        earlier = parse_json(path.read_bytes())
        if not isinstance(earlier, dict):
            raise ValueError("no JSON object")
        earlier = unsealed(earlier)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output} exists, but was not written by infer ({path.name} cannot be read: "
            f"{error}); {fix}"
        ) from error
    different = [name for name in settings if earlier.get(name) != settings[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{output} was written with {name} = {earlier.get(name)!r}, now it is "
            f"{settings[name]!r}; {fix}"
        )
    return earlier.get(_RANGES)


def _answer_to(prompt: Prompt, location: str, line: bytes) -> dict[str, Any]:
    """Parses an output line. Raises UserError unless it answers this prompt."""
    try:
        answer = parse_json(line)
    except ValueError as error:
        raise UserError(f"{location}: damaged; remove the file") from error
    # Compared as text because NaN does not equal itself. What infer adds begins with `prediction`;
    # any other name is a field that the input has no longer.
    if not line.startswith(f'{prompt.line[:-1]}, "prediction": '.encode()):
        raise UserError(
            f"{location}: answers another input than {prompt.location} now is; remove the file, or "
            "choose another --output"
        )
    return answer
