"""`infer`: JSON lines in, JSON lines out, with a trained model; or one prompt.

Each input line is an object with the prompt in `inputs` (or `prompt`); its other fields are passed
through. The output has the same objects in the same order with `prediction` and `score` added;
rejected lines are reported and skipped. Prompts are processed in ranges: each range is written and
synced at once, a killed run resumes after the last finished range, and because batches never cross
a range, its output equals that of an uninterrupted run byte for byte.
"""

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instruct.checkpoints.convert import generation_settings
from instruct.checkpoints.loading import (
    find_checkpoint,
    load_newest,
    load_params,
    params_fingerprint,
    trained_run,
)
from instruct.data.vocab import Vocabulary, check_embedding_rows, load_vocabulary
from instruct.errors import UserError, naming_file
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.generation_settings import decode_config
from instruct.eval.prompt_lines import (
    LONE_SURROGATE,
    STANDARD_STREAM,
    Prompt,
    check_prompts,
    name_bad_lines,
    prompt_file,
    prompts_only,
)
from instruct.fields import Range, check_arguments
from instruct.files import local_path, locked
from instruct.json_text import parse_json
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder, reorder_cache

# Settings file beside the output: keeps a later run from mixing two models in one file.
SETTINGS_SUFFIX = ".settings.json"
# Most truncated prompts to name; the others are counted.
_MOST_NAMED = 10


def infer(
    model_dir: str,
    prompt: str | None = None,
    input_path: str | None = None,
    output_path: str | None = None,
    decode: DecodeConfig | None = None,
    batching: BatchConfig | None = None,
    mesh: MeshConfig | None = None,
    model: ModelConfig | None = None,
    vocabulary: str | None = None,
    step: int | None = None,
    inputs_length: Annotated[int | None, Range(least=1)] = None,
    max_decode_steps: Annotated[int | None, Range(least=1)] = None,
    lines_per_range: Annotated[int, Range(least=1)] = 1024,
    strict: bool = False,
) -> int:
    """Answers one prompt (printed) or a file of them.

    Args:
        model_dir: a training run's folder, or a checkpoint's: this program's, T5X's or Hugging
            Face's.
        prompt: one text; else both paths are needed.
        input_path: JSON lines, packed or not; "-" for standard input.
        output_path: JSON lines; continued if it is unfinished; "-" for standard output.
        decode: the strategy; None: as the checkpoint's generation_config.json says, else greedy.
            Its EOS is the vocabulary's, unless generation_config.json names another.
        batching: batch size and shapes; changes no prediction.
        mesh: over all devices.
        model: architecture; None: as `run.json` of the run says.
        vocabulary: a specification as in `instruct.data.vocab`; None: as `run.json` says.
        step: which checkpoint; None for the newest.
        inputs_length: longest prompt in tokens, EOS included; longer ones are truncated at the end,
            marked `truncated` and reported. None: as in training, else 512.
        max_decode_steps: most tokens of an answer; None: as the strategy says.
        lines_per_range: prompts in a range. Scores depend on it in the last digit.
        strict: refuse prompts that are too long, rejected lines, and a damaged newest
            checkpoint (else the newest whole one is used).

    Returns:
        The exit status: 1 if lines were rejected (the others were answered), else 0.

    Raises:
        UserError: bad flags, no valid prompt, an output of other settings or in use, a
            checkpoint or vocabulary that does not fit.
    """
    check_arguments(infer, locals())
    _check_task(prompt, input_path, output_path)
    local_path("MODEL_DIR", model_dir)
    load = functools.partial(
        _load_answerer,
        model_dir,
        step,
        model,
        vocabulary,
        decode,
        batching,
        mesh,
        inputs_length,
        max_decode_steps,
        strict,
    )
    if prompt is not None:
        _answer_prompt(load, prompt, strict)
        return 0
    assert input_path is not None and output_path is not None
    output = _output_path(output_path)
    with prompt_file(input_path) as source:
        # Check all lines before loading a model.
        count, bad = check_prompts(source)
        if bad and strict:
            raise UserError(
                "\n".join(
                    [*name_bad_lines(source, bad), "Without --strict the others are answered."]
                )
            )
        _say(*(f"left out: {line}" for line in name_bad_lines(source, bad)))
        answerer = load(functools.partial(_check_lengths, source) if strict else None)
        settings = answerer.settings | {"lines_per_range": lines_per_range}
        _answer_file(answerer, source, output, count, settings)
    if bad:
        lines = "line was" if len(bad) == 1 else "lines were"
        _say(f"{len(bad):,} {lines} no prompt and left out; exit status 1")
    return int(bool(bad))


def _check_task(prompt, input_path, output_path) -> None:
    if prompt is not None and (input_path or output_path):
        raise UserError("give --prompt, or --input and --output, not both")
    if prompt is None and not (input_path and output_path):
        raise UserError("nothing to answer: give --prompt TEXT, or --input FILE and --output FILE")


def _say(*lines: str) -> None:
    for line in lines:
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class PromptEncoder:
    """Encodes a prompt to token ids that end with EOS, truncated to `inputs_length`."""

    vocabulary: Vocabulary
    inputs_length: int

    def encode(self, prompt: str) -> tuple[list[int], int]:
        """(token ids, truncated; number of tokens of the whole prompt, EOS included)."""
        ids = [*self.vocabulary.encode(prompt), self.vocabulary.eos_id]
        if len(ids) <= self.inputs_length:
            return ids, len(ids)
        return [*ids[: self.inputs_length - 1], self.vocabulary.eos_id], len(ids)

    def describe_cut(self, lengths: Sequence[int]) -> str:
        """Describes the truncation of prompts longer than `inputs_length`, and the fix."""
        longest = max(lengths)
        many = f"{len(lengths):,} prompts have up to" if len(lengths) > 1 else "the prompt has"
        return (
            f"{many} {longest:,} tokens with EOS, the model reads {self.inputs_length:,}: the end "
            f"is cut off. --gin.INPUTS_LENGTH={longest} reads all of it"
        )


def _check_lengths(source: pathlib.Path, encoder: PromptEncoder) -> None:
    """Raises UserError if a prompt of the file would be truncated."""
    lengths = [(prompt.place, encoder.encode(prompt.text)[1]) for prompt in prompts_only(source)]
    long = [(place, length) for place, length in lengths if length > encoder.inputs_length]
    if long:
        raise UserError(
            f"{source}, {_named(place for place, _ in long)}: "
            f"{encoder.describe_cut([length for _, length in long])}; without --strict they are "
            "answered as they are cut, and marked."
        )


def _named(places: Iterable[str]) -> str:
    found = list(places)
    more = len(found) - _MOST_NAMED
    return ", ".join(found[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _answer_prompt(load: Callable[[Any], "Answerer"], prompt: str, strict: bool) -> None:
    if not prompt.strip():
        raise UserError("--prompt is empty; give the text that the model is to answer.")
    if LONE_SURROGATE.search(prompt):
        raise UserError(
            f"--prompt={prompt!a}: not UTF-8 text. Give it in UTF-8, or as a line of --input."
        )

    def check(encoder: PromptEncoder) -> None:
        _, length = encoder.encode(prompt)
        if length > encoder.inputs_length:
            cut = encoder.describe_cut([length])
            if strict:
                raise UserError(f"--prompt: {cut}; without --strict it is answered as it is cut.")
            _say(f"warning: {cut}; --strict refuses such prompts.")

    answerer = load(check)
    (answer,) = answerer.answer([prompt], first_index=0)
    if "unfinished" in answer:
        _say(f"warning: the answer {answerer.describe_unfinished()}")
    print("\n".join(answer.get("predictions", [answer["prediction"]])))


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A loaded model that turns prompts into predictions."""

    decoder: Decoder
    params: Any
    encoder: PromptEncoder
    settings: dict[str, Any]

    def answer(
        self,
        prompts: Sequence[str],
        first_index: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        """The fields to add to each prompt's line; prompt i is example number first_index + i."""
        encoded = [self.encoder.encode(prompt) for prompt in prompts]
        ids = [tokens for tokens, _ in encoded]
        numbers = range(first_index, first_index + len(ids))
        found = self.decoder.generate(self.params, ids, numbers, progress)
        answers = []
        for tokens, scores, (_, length) in zip(found.tokens, found.scores, encoded):
            texts = [self.encoder.vocabulary.decode(row) for row in tokens]
            answer: dict[str, Any] = {"prediction": texts[0], "score": float(scores[0])}
            if len(texts) > 1:
                answer |= {"predictions": texts, "scores": [float(score) for score in scores]}
            cut = length > self.encoder.inputs_length
            answer |= {"truncated": True} if cut else {}
            open_end = self.encoder.vocabulary.eos_id not in tokens[0]
            answers.append(answer | ({"unfinished": True} if open_end else {}))
        return answers

    def describe_unfinished(self) -> str:
        """Describes answers without EOS, as the rest of a sentence."""
        steps = self.settings["decode"]["max_decode_steps"]
        return (
            f"was cut off after {steps:,} tokens, the most that are generated. "
            f"--gin.MAX_DECODE_STEPS={2 * steps} allows more"
        )


def _load_answerer(
    model_dir: str,
    step: int | None,
    model_config: ModelConfig | None,
    vocabulary_spec: str | None,
    decode: DecodeConfig | None,
    batching: BatchConfig | None,
    mesh_config: MeshConfig | None,
    inputs_length: int | None,
    max_decode_steps: int | None,
    strict: bool,
    check: Callable[[PromptEncoder], None] | None = None,
) -> Answerer:
    """Loads a model; `check` gets the encoder before any parameter is read."""
    folder = find_checkpoint(model_dir, step)
    run = trained_run(run_folder_of(model_dir), folder, "infer.infer")
    model = EncoderDecoder(model_config or run.model())
    vocabulary = load_vocabulary(vocabulary_spec or run.setting("vocabulary"))
    check_embedding_rows(vocabulary, model.config.vocab_size)
    length = inputs_length or run.config().get("data.feature_lengths.inputs") or 512
    encoder = PromptEncoder(vocabulary, length)
    if check is not None:
        check(encoder)
    mesh = make_mesh(mesh_config or MeshConfig())
    abstract = model.abstract_params()
    placed = with_shardings(abstract, param_shardings(mesh, abstract))
    eos_id = vocabulary.eos_id
    if decode is None:
        settings = generation_settings(folder)
        decode = decode_config(settings)
        eos_id = eos_id if settings.get("eos_token_id") is None else decode.eos_id
    if step is None:
        console = Console(stderr=True, highlight=False)
        folder, params = load_newest(
            model_dir,
            placed,
            strict=strict,
            say=lambda line: console.print(line, style="yellow", markup=False, soft_wrap=True),
        )
    else:
        params = load_params(folder, placed)
    steps = max_decode_steps or decode.max_decode_steps
    decode = dataclasses.replace(decode, eos_id=eos_id, max_decode_steps=steps)
    return Answerer(
        decoder=Decoder(model, reorder_cache, decode, batching, mesh),
        params=params,
        encoder=encoder,
        settings={
            "checkpoint": str(folder),
            "parameters": params_fingerprint(folder),
            "decode": decode.settings(),
            "vocabulary": vocabulary.fingerprint,
            "inputs_length": length,
        },
    )


def run_folder_of(model_dir: str) -> pathlib.Path:
    """Folder of the run that a MODEL_DIR, or a checkpoint in it, belongs to."""
    folder = local_path("MODEL_DIR", model_dir).absolute()
    above = (folder, *folder.parents[:2])
    return next((path for path in above if (path / "run.json").is_file()), folder)


def _output_path(path: str) -> pathlib.Path | None:
    """The output file, checked and its folder made; None for standard output."""
    if path == STANDARD_STREAM:
        if sys.stdout is None:
            raise UserError("--output=-: standard output is closed.")
        return None
    output = local_path("--output", path, "answers.jsonl")
    fix = "choose another --output"
    if output.suffix in (".gz", ".zst"):
        raise UserError(f"--output={path}: answers are written as plain JSON lines; {fix}")
    if output.exists() and not output.is_file():
        what = "a folder" if output.is_dir() else "no plain file (`-` is standard output)"
        raise UserError(f"--output={path} is {what}; {fix}")
    if output.exists() and not _settings_path(output).exists():
        raise UserError(
            f"{output} is there, but was not written by infer ({_settings_path(output).name} is "
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
    return output.with_name(output.name + SETTINGS_SUFFIX)


def _answer_file(
    answerer: Answerer,
    source: pathlib.Path,
    output: pathlib.Path | None,
    count: int,
    settings: dict[str, Any],
) -> None:
    """Appends the answers that are missing, range by range."""
    per_range = settings["lines_per_range"]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        if output is None:
            finished, cut, unfinished, stream = 0, [], 0, sys.stdout.buffer
        else:
            stack.enter_context(locked(_settings_path(output), f"--output {output}"))
            finished, cut, unfinished = _continue_from(source, output, settings, count)
            stream = stack.enter_context(open(output, "ab"))
            stack.enter_context(naming_file(output))
        bar = stack.enter_context(
            Progress(*columns, console=console, disable=not sys.stderr.isatty())
        )
        task = bar.add_task("infer", total=count, completed=finished)
        prompts = itertools.islice(prompts_only(source), finished, None)
        for first in range(finished, count, per_range):
            part = list(itertools.islice(prompts, per_range))
            texts = [prompt.text for prompt in part]
            answers = answerer.answer(texts, first, lambda done: bar.advance(task, done))
            cut += [prompt for prompt, answer in zip(part, answers) if "truncated" in answer]
            unfinished += sum("unfinished" in answer for answer in answers)
            _write(stream, map(_line, part, answers))
    if cut:
        lengths = [answerer.encoder.encode(prompt.text)[1] for prompt in cut]
        places = _named(prompt.place for prompt in cut)
        _say(f"warning: {answerer.encoder.describe_cut(lengths)} ({places})")
    if unfinished:
        one = f"each of {unfinished:,} answers" if unfinished > 1 else "one answer"
        _say(f"warning: {one} {answerer.describe_unfinished()} (marked `unfinished`)")
    note = f", {len(cut):,} prompts cut to {answerer.encoder.inputs_length} tokens" if cut else ""
    resumed = f" ({finished} of them by an earlier run)" if finished else ""
    examples = "example" if count == 1 else "examples"
    _say(f"{count:,} {examples}{resumed}{note} -> {output or 'standard output'}")


def _line(prompt: Prompt, answer: dict[str, Any]) -> str:
    """The prompt's object with the answer's fields after its own."""
    return f"{prompt.line[:-1]}, {json.dumps(answer, ensure_ascii=False)[1:]}\n"


def _write(stream: IO[bytes], lines: Iterable[str]) -> None:
    stream.writelines(line.encode("utf-8") for line in lines)
    stream.flush()
    with contextlib.suppress(OSError):  # a pipe
        os.fsync(stream.fileno())


def _continue_from(
    source: pathlib.Path, output: pathlib.Path, settings: dict[str, Any], count: int
) -> tuple[int, list[Prompt], int]:
    """Truncates the output to whole ranges; (answers kept, their truncated prompts, unfinished)."""
    if not output.exists():
        text = json.dumps(settings, indent=1) + "\n"
        with naming_file(_settings_path(output)):
            _settings_path(output).write_text(text, encoding="utf-8")
        output.touch()
        return 0, [], 0
    _check_settings(output, settings)
    kept: list[tuple[Prompt, bool, bool]] = []
    ends = [0]
    with open(output, "rb") as stream:
        for prompt, line in zip(prompts_only(source), stream):
            if not line.endswith(b"\n"):
                break
            answer = _answer_to(prompt, f"{output}, line {len(ends)}", line)
            kept.append((prompt, "truncated" in answer, "unfinished" in answer))
            ends.append(ends[-1] + len(line))
    per_range = settings["lines_per_range"]
    keep = len(kept) if len(kept) == count else len(kept) // per_range * per_range
    os.truncate(output, ends[keep])
    cut = [prompt for prompt, was_cut, _ in kept[:keep] if was_cut]
    return keep, cut, sum(unfinished for *_, unfinished in kept[:keep])


def _check_settings(output: pathlib.Path, settings: dict[str, Any]) -> None:
    fix = "remove it, or choose another --output"
    path = _settings_path(output)
    try:
        earlier = parse_json(path.read_bytes())
        if not isinstance(earlier, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output} is there, but was not written by infer ({path.name} cannot be read: "
            f"{error}); {fix}"
        ) from error
    different = [name for name in settings if earlier.get(name) != settings[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{output} was written with {name} = {earlier.get(name)!r}, now it is "
            f"{settings[name]!r}; {fix}"
        )


def _answer_to(prompt: Prompt, place: str, line: bytes) -> dict[str, Any]:
    """Parses an output line. Raises UserError unless it answers this prompt."""
    try:
        answered = parse_json(line)
    except ValueError as error:
        raise UserError(f"{place}: damaged; remove the file") from error
    # As text: a NaN is not equal to itself.
    if not line.startswith(f"{prompt.line[:-1]}, ".encode()):
        raise UserError(
            f"{place}: answers another input than {prompt.place} now is; remove the file, or "
            "choose another --output"
        )
    return answered
