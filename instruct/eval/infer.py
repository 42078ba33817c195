"""`infer`: JSON lines in, JSON lines out, with a trained model; or one prompt.

A line of the input is an object with `inputs` (or `prompt`), the text that the model is given; its
other fields are passed through. The output has the same lines in the same order with `prediction`
and `score` added. Work goes by ranges of lines: each range is written and synced as a whole, a run
that was killed goes on after the last finished range, and because batches never cross a range, its
output is that of an uninterrupted run, byte for byte.
"""

import dataclasses
import errno
import itertools
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instruct.data.vocab import Vocabulary, check_embedding_rows, load_vocabulary
from instruct.errors import UserError
from instruct.eval.batching import BatchConfig, Decoder
from instruct.eval.decode import DecodeConfig
from instruct.interop.convert import generation_settings
from instruct.interop.generation import decode_config
from instruct.interop.loading import find_checkpoint, load_params, params_fingerprint, trained_run
from instruct.mesh import MeshConfig, make_mesh, param_shardings, with_shardings
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder, reorder_cache

PROMPT_FIELDS = ("inputs", "prompt")
ADDED_FIELDS = ("prediction", "score", "predictions", "scores", "truncated")
# Beside the output: what made it, so that a later run does not mix two models in one file.
SETTINGS_SUFFIX = ".settings.json"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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
    inputs_length: int | None = None,
    max_decode_steps: int | None = None,
    lines_per_range: int = 1024,
) -> None:
    """Answers one prompt (printed) or a file of them.

    Args:
        model_dir: a training run's folder, or a checkpoint's: this program's, T5X's or Hugging
            Face's.
        prompt: one text; else both paths are needed.
        input_path: JSON lines.
        output_path: JSON lines; continued if it is unfinished.
        decode: the strategy; None: as the checkpoint's generation_config.json says, else greedy.
            Its EOS is taken from the vocabulary.
        batching: batch size and shapes; changes no prediction.
        mesh: over all devices.
        model: architecture; None: as `run.json` of the run says.
        vocabulary: a specification as in `instruct.data.vocab`; None: as `run.json` says.
        step: which checkpoint; None for the newest.
        inputs_length: longest prompt in tokens, EOS included; longer ones lose their end, are
            marked `truncated` and counted. None: as in training, else 512.
        max_decode_steps: most tokens of an answer; None: as the strategy says.
        lines_per_range: lines that are finished together. Scores depend on it in the last digit.

    Raises:
        UserError: bad flags, a line that is no prompt (with its number), an output of other
            settings, a checkpoint or vocabulary that does not fit.
    """
    _check_arguments(prompt, input_path, output_path)
    _check_numbers(
        inputs_length=inputs_length,
        max_decode_steps=max_decode_steps,
        lines_per_range=lines_per_range,
    )
    # All lines are checked before anything is loaded, let alone computed.
    count = sum(1 for _ in read_prompts(input_path)) if input_path is not None else 0
    answerer = _load_answerer(
        model_dir, step, model, vocabulary, decode, batching, mesh, inputs_length, max_decode_steps
    )
    if prompt is not None:
        (answer,) = answerer.answer([prompt], first_index=0)
        print("\n".join(answer.get("predictions", [answer["prediction"]])))
        return
    assert input_path is not None and output_path is not None
    settings = answerer.settings | {"lines_per_range": lines_per_range}
    _answer_file(answerer, pathlib.Path(input_path), pathlib.Path(output_path), count, settings)


def _check_arguments(prompt, input_path, output_path) -> None:
    if prompt is not None and (input_path or output_path):
        raise UserError("give --prompt, or --input and --output, not both")
    if prompt is None and not (input_path and output_path):
        raise UserError("nothing to answer: give --prompt TEXT, or --input FILE and --output FILE")


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        optional = name != "lines_per_range" and value is None
        if not optional and (type(value) is not int or value < 1):
            raise UserError(f"infer.{name} = {value!r}, must be a whole number of at least 1")


def read_prompts(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (prompt, the line's object) of a JSON lines file.

    Raises:
        UserError: the file cannot be read, or a line is not an object with a prompt; says which.
    """
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _parse_line(f"{path}, line {number}", line)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_line(place: str, line: bytes) -> tuple[str, dict[str, Any]]:
    example = '{"inputs": "What is 2 + 3?"}'
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error}); write {example}") from error
    if _LONE_SURROGATE.search(json.dumps(record, ensure_ascii=False)):
        raise UserError(f"{place}: half of a surrogate pair (\\ud800 to \\udfff), which is no text")
    if not isinstance(record, dict):
        raise UserError(f"{place}: {type(record).__name__} instead of an object like {example}")
    field = next((name for name in PROMPT_FIELDS if name in record), None)
    if field is None:
        found = ", ".join(sorted(record)) or "no fields"
        raise UserError(f"{place}: has neither `inputs` nor `prompt` (but {found})")
    if not isinstance(record[field], str):
        raise UserError(f"{place}: `{field}` is {record[field]!r}, must be text")
    taken = sorted(set(record) & set(ADDED_FIELDS))
    if taken:
        raise UserError(f"{place}: has `{taken[0]}` already, which infer adds; rename it")
    return record[field], record


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A loaded model that turns prompts into predictions."""

    decoder: Decoder
    params: Any
    vocabulary: Vocabulary
    inputs_length: int
    settings: dict[str, Any]

    def answer(
        self,
        prompts: Sequence[str],
        first_index: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        """The fields to add to each prompt's line; prompt i is example number first_index + i."""
        ids = [[*self.vocabulary.encode(prompt), self.vocabulary.eos_id] for prompt in prompts]
        cut = [len(tokens) > self.inputs_length for tokens in ids]
        ids = [
            [*tokens[: self.inputs_length - 1], self.vocabulary.eos_id] if long else tokens
            for tokens, long in zip(ids, cut)
        ]
        numbers = range(first_index, first_index + len(ids))
        found = self.decoder.generate(self.params, ids, numbers, progress)
        answers = []
        for tokens, scores, long in zip(found.tokens, found.scores, cut):
            texts = [self.vocabulary.decode(row) for row in tokens]
            answer: dict[str, Any] = {"prediction": texts[0], "score": float(scores[0])}
            if len(texts) > 1:
                answer |= {"predictions": texts, "scores": [float(score) for score in scores]}
            answers.append(answer | ({"truncated": True} if long else {}))
        return answers


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
) -> Answerer:
    folder = find_checkpoint(model_dir, step)
    run = trained_run(_run_folder(model_dir), folder, "infer.infer")
    model = EncoderDecoder(model_config or run.model())
    vocabulary = load_vocabulary(vocabulary_spec or run.setting("vocabulary"))
    check_embedding_rows(vocabulary, model.config.vocab_size)
    length = inputs_length or run.config().get("data.feature_lengths.inputs") or 512
    mesh = make_mesh(mesh_config or MeshConfig())
    abstract = model.abstract_params()
    placed = with_shardings(abstract, param_shardings(mesh, abstract))
    decode = decode or decode_config(generation_settings(folder))
    steps = max_decode_steps or decode.max_decode_steps
    decode = dataclasses.replace(decode, eos_id=vocabulary.eos_id, max_decode_steps=steps)
    return Answerer(
        decoder=Decoder(model, reorder_cache, decode, batching, mesh),
        params=load_params(folder, placed),
        vocabulary=vocabulary,
        inputs_length=length,
        settings={
            "checkpoint": str(folder),
            "parameters": params_fingerprint(folder),
            "decode": decode.settings(),
            "vocabulary": vocabulary.fingerprint,
            "inputs_length": length,
        },
    )


def _run_folder(model_dir: str) -> pathlib.Path:
    """Folder of the run that a MODEL_DIR, or a checkpoint in it, belongs to."""
    folder = pathlib.Path(model_dir).expanduser().absolute()
    above = (folder, *folder.parents[:2])
    return next((path for path in above if (path / "run.json").is_file()), folder)


def _answer_file(
    answerer: Answerer,
    input_path: pathlib.Path,
    output_path: pathlib.Path,
    count: int,
    settings: dict[str, Any],
) -> None:
    """Appends what is missing, range by range."""
    per_range = settings["lines_per_range"]
    finished = _continue_from(input_path, output_path, settings, count)
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    truncated = 0
    lines = itertools.islice(read_prompts(input_path), finished, None)
    with (
        open(output_path, "a", encoding="utf-8") as output,
        Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar,
    ):
        task = bar.add_task("infer", total=count, completed=finished)
        for first in range(finished, count, per_range):
            part = list(itertools.islice(lines, per_range))
            answers = answerer.answer(
                [prompt for prompt, _ in part], first, lambda done: bar.advance(task, done)
            )
            for (_, record), answer in zip(part, answers):
                output.write(json.dumps(record | answer, ensure_ascii=False) + "\n")
                truncated += "truncated" in answer
            output.flush()
            os.fsync(output.fileno())
    note = f", {truncated} prompts cut to {answerer.inputs_length} tokens" if truncated else ""
    resumed = f" ({finished} of them by an earlier run)" if finished else ""
    console.print(f"{count} examples{resumed}{note} -> {output_path}", markup=False, soft_wrap=True)


def _continue_from(
    input_path: pathlib.Path, output_path: pathlib.Path, settings: dict[str, Any], count: int
) -> int:
    """Number of lines to keep: whole ranges; the file is cut there. 0 starts a new file."""
    settings_path = output_path.with_name(output_path.name + SETTINGS_SUFFIX)
    if not output_path.exists():
        try:
            output_path.parent.mkdir(parents=True, exist_ok=True)
            settings_path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            output_path.touch()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot write {output_path}: {error.strerror or error}; choose another --output"
            ) from error
        return 0
    _check_settings(output_path, settings_path, settings)
    whole, ends = 0, [0]
    with open(output_path, "rb") as output:
        for (_, record), line in zip(read_prompts(input_path), output):
            if not line.endswith(b"\n"):
                break
            _check_same_record(output_path, len(ends), line, record)
            ends.append(ends[-1] + len(line))
    whole = len(ends) - 1
    per_range = settings["lines_per_range"]
    keep = whole if whole == count else whole // per_range * per_range
    os.truncate(output_path, ends[keep])
    return keep


def _check_settings(output_path, settings_path, settings: dict[str, Any]) -> None:
    fix = "remove it, or choose another --output"
    try:
        earlier = json.loads(settings_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output_path} is there, but was not written by infer "
            f"({settings_path.name} is missing or unreadable); {fix}"
        ) from error
    different = [name for name in settings if earlier.get(name) != settings[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{output_path} was written with {name} = {earlier.get(name)!r}, now it is "
            f"{settings[name]!r}; {fix}"
        )


def _check_same_record(output_path, number: int, line: bytes, record: dict[str, Any]) -> None:
    """An answer must follow from the line of the same number in the input."""
    try:
        answered = json.loads(line)
    except ValueError as error:
        raise UserError(f"{output_path}, line {number}: damaged; remove the file") from error
    if {name: answered.get(name) for name in record} != record:
        raise UserError(
            f"{output_path}, line {number}: answers another input than line {number} now is; "
            "remove the file, or choose another --output"
        )
