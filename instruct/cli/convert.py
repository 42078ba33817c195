"""`run.py convert`: a checkpoint from one format into another, every key accounted for."""

import argparse
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from instruct import gin_config
from instruct.checkpoints import convert as conversion
from instruct.checkpoints import huggingface, native, t5x
from instruct.checkpoints.detect import KINDS, open_checkpoint
from instruct.checkpoints.weights import Checkpoint, KeyReport, KeyRow, fit, model_shapes
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.files import local_path
from instruct.models.config import ModelConfig

_T5X_NAME = re.compile(r"checkpoint_\d+")
# What is written where neither --format nor the name in --to says it.
_DEFAULT = {
    huggingface.KIND: native.KIND,
    native.KIND: huggingface.KIND,
    t5x.KIND: huggingface.KIND,
}


def run(flags: argparse.Namespace) -> int:
    """Prints the table of keys and writes the checkpoint; raises UserError if keys do not fit."""
    if not flags.source:
        raise UserError("convert what? Give --from=PATH and --to=PATH, or --from and --describe.")
    if flags.describe:
        return _describe(flags)
    if not flags.target:
        raise UserError("convert where to? Give --to=PATH, a new folder; or --describe.")
    local_path("--to", flags.target)  # before anything is read
    model, mapping = _model(flags), _mapping(flags.map)
    opened = open_checkpoint(flags.source, flags.step, flags.slots)
    named = pathlib.PurePath(opened.place).name.removeprefix("checkpoint_")
    if flags.step is not None and named != str(flags.step):
        raise UserError(
            f"--step={flags.step}: {opened.place} is one checkpoint, not a folder of several; "
            "leave --step out."
        )
    to = _format(flags, opened)
    report = _compare(opened, to, model, mapping, flags)
    try:
        report = conversion.convert(
            flags.source,
            flags.target,
            to,
            step=flags.step,
            dtype=flags.dtype,
            slots=flags.slots,
            model=model,
            mapping=mapping,
            allow_left_over=flags.allow_left_over,
            vocab_rows=flags.vocab_rows,
            tokenizer=flags.tokenizer,
        )
    except UserError:
        if report is not None:  # the message has the first few keys, the table all of them
            _show(report, opened, to, flags, [], written=False)
        raise
    _show(report, opened, to, flags, _notes(opened, to, flags), written=True)
    return 0


def _model(flags: argparse.Namespace) -> ModelConfig | None:
    """The architecture given with --model or gin flags; None without them."""
    files = list(flags.gin_file)
    if flags.model:
        folder = gin_config.ROOT / "gin" / "models"
        name = f"{flags.model.removesuffix('.gin')}.gin"
        if not (folder / name).is_file():
            known = sorted(path.stem for path in folder.glob("*.gin"))
            raise unknown_name("--model", flags.model, known)
        files.insert(0, str((folder / name).relative_to(gin_config.ROOT)))
    bindings = [*flags.gin_bindings, *flags.gin_flags]
    if not files and not bindings:
        return None
    gin_config.load(files, bindings)
    entries = gin_config.entry_arguments(gin_config.ENTRIES)
    found = entries[gin_config.TRAIN].get("model")
    fields = entries[gin_config.MODEL]
    if found is None and not fields:
        raise UserError(f"{', '.join(files)} configures no model; use a file of gin/models.")
    return found or ModelConfig(**fields)


def _mapping(given: Sequence[str]) -> list[tuple[str, str | None]]:
    pairs = [tuple(entry.split("=")) for entry in given]
    for entry, pair in zip(given, pairs):
        if len(pair) != 2 or not all(pair):
            raise UserError(
                f"--map={entry}: write MODEL=CHECKPOINT, such as "
                "--map='decoder/logits_dense/kernel=head/kernel'."
            )
    return [(name, source) for name, source in pairs]


def _format(flags: argparse.Namespace, opened: Checkpoint) -> str:
    name = pathlib.PurePath(flags.target).name
    to = flags.format or (t5x.KIND if _T5X_NAME.fullmatch(name) else _DEFAULT[opened.kind])
    if flags.slots and flags.format is None and to == huggingface.KIND:
        to = native.KIND if opened.kind == t5x.KIND else t5x.KIND
    if to == t5x.KIND and not _T5X_NAME.fullmatch(name):
        raise UserError(
            f"--to={flags.target}: T5X finds checkpoints as checkpoint_<step> only; write "
            f"--to={flags.target.rstrip('/')}/checkpoint_{opened.step}."
        )
    return to


def _compare(
    opened: Checkpoint,
    to: str,
    model: ModelConfig | None,
    mapping: Sequence[tuple[str, str | None]],
    flags: argparse.Namespace,
) -> KeyReport | None:
    """The table before anything is written; None if it is not known what it should be."""
    shape = model or opened.model
    if shape is None:
        return None
    if flags.vocab_rows is not None:
        if flags.vocab_rows < 1:
            raise UserError(f"--vocab_rows={flags.vocab_rows}: use a whole number of at least 1.")
        shape = dataclasses.replace(shape, vocab_size=flags.vocab_rows)
    target = f"{to} checkpoint {flags.target}"
    return fit(opened, model_shapes(shape), target, mapping, flags.vocab_rows)[1]


def _notes(opened: Checkpoint, to: str, flags: argparse.Namespace) -> list[str]:
    """What the table itself does not tell."""
    found = []
    embedding = opened.arrays.get("token_embedder/embedding")
    rows = flags.vocab_rows or (embedding.shape[0] if embedding is not None else 0)
    if flags.vocab_rows and embedding is not None:
        verb = "cut" if flags.vocab_rows < embedding.shape[0] else "continued with zeros"
        found.append(f"rows of the vocabulary: {verb}, {embedding.shape[0]:,} -> {rows:,}")
    if flags.tokenizer is not None:
        size = load_vocabulary(conversion.vocabulary_given(flags.tokenizer)).vocab_size
        if size < rows:
            found.append(
                f"the vocabulary has {size:,} ids, the embedding {rows:,} rows: rows from "
                f"{size:,} on are padding, which no text uses"
            )
    elif opened.vocabulary is None and to != t5x.KIND:
        found.append(
            "no vocabulary came with it, so none goes along; --tokenizer=PATH adds one (T5's "
            "spiece.model has 32,100 ids with its sentinels; T5X pads the embedding to 32,128 rows)"
        )
    return found


def _show(
    report: KeyReport,
    opened: Checkpoint,
    to: str,
    flags: argparse.Namespace,
    notes: Sequence[str],
    written: bool,
) -> None:
    if flags.json:
        document = {
            "from": {"kind": opened.kind, "place": opened.place, "step": opened.step},
            "to": {"kind": to, "place": flags.target, "dtype": flags.dtype, "written": written},
            **_report_fields(report),
        }
        document["notes"] += notes
        print(json.dumps(document, indent=1))
        return
    _print_report(report, flags.all_keys)
    for note in notes:
        print(f"note: {note}")
    if written:
        slots = ", with Adafactor's slots" if flags.slots else ""
        print(f"wrote {KINDS[to]}: {flags.target} ({flags.dtype}{slots})")


def _print_report(report: KeyReport, all_keys: bool) -> None:
    lines = report.table()
    if all_keys:
        rows = [_line(row) for row in report.rows]
        lines = [lines[0], *rows, *(f"note: {note}" for note in report.notes)]
    print("\n".join(lines))


def _line(row: KeyRow) -> str:
    names = " <- ".join(name for name in (row.ours, row.theirs) if name)
    shapes = f"{list(row.shape or row.their_shape)}"
    if row.shape and row.their_shape and row.shape != row.their_shape:
        shapes = f"model {list(row.shape)}, checkpoint {list(row.their_shape)}"
    return f"{row.status:13} {names} {shapes}{f'  ({row.note})' if row.note else ''}"


def _report_fields(report: KeyReport) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for row in report.rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    keys = [dataclasses.asdict(row) for row in report.rows]
    return {"counts": counts, "keys": keys, "notes": list(report.notes)}


def _describe(flags: argparse.Namespace) -> int:
    found = conversion.describe(flags.source, flags.step)
    if not flags.json:
        print("\n".join(found.lines()))
        return 0
    document = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name not in ("model", "keys")
    }
    document["model"] = dataclasses.asdict(found.model) if found.model else None
    document |= _report_fields(found.keys) if found.keys else {}
    print(json.dumps(document, indent=1))
    return 0
