"""`run.py convert`: converts a checkpoint between formats and accounts for every key."""

import argparse
import collections
import dataclasses
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from instruct import gin_config
from instruct.checkpoints import convert as conversion
from instruct.checkpoints import hub, huggingface, native, peft_format, safetensors_files, t5x
from instruct.checkpoints.detect import KINDS, detect, open_checkpoint
from instruct.checkpoints.model_fields import record_of
from instruct.checkpoints.weights import Checkpoint, KeyReport, KeyRow, fit, model_shapes
from instruct.cli.settings import bound_model
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.files import any_path, is_address
from instruct.models.model import AnyConfig

_PUSHED = (huggingface.KIND, peft_format.KIND)
_T5X_NAME = re.compile(r"checkpoint_\d+")


def run(flags: argparse.Namespace) -> int:
    """Prints the table of keys and writes the checkpoint. Raises UserError if keys do not fit."""
    if not flags.source:
        raise UserError("convert what? Give --from=PATH and --to=PATH, or --from and --describe.")
    if flags.push and flags.describe:
        raise UserError("--push pushes a folder, and --describe writes nothing; leave one out.")
    if flags.public and not flags.push:
        raise UserError("--public goes with --push=USER/NAME; add that, or leave --public out.")
    if flags.describe:
        return _describe(flags)
    if flags.push and not flags.target:
        return _push_source(flags)
    if not flags.target:
        raise UserError("convert where to? Give --to=PATH, a new folder; or --describe.")
    folder = any_path("--to", flags.target)  # before anything is read
    model, mapping = _model(flags), [_map_pair(entry) for entry in flags.map]
    opened = open_checkpoint(flags.source, flags.step, flags.slots, flags.base)
    to = _format(flags, opened)
    if flags.push:
        if to not in _PUSHED or is_address(folder):
            raise UserError(
                f"--push={flags.push}: what is pushed is a {' or '.join(_PUSHED)} folder of this "
                f"machine, and --to={flags.target} is to hold {KINDS[to]}. Change --format or --to."
            )
        hub.check_push(flags.push)
    config = model or opened.model
    report = None  # the table of keys; None if the architecture is unknown
    if config is not None and to != peft_format.KIND:
        if flags.vocab_rows is not None:
            config = dataclasses.replace(config, vocab_size=flags.vocab_rows)
        target = f"{to} checkpoint {flags.target}"
        report = fit(opened, model_shapes(config), target, mapping, flags.vocab_rows)[1]
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
            base=flags.base,
            merge=flags.merge,
            command=shlex.join(sys.argv),
        )
    except UserError:
        if report is not None:  # the message has only the first few keys
            _show(report, opened, to, flags, [], written=False)
        raise
    _show(report, opened, to, flags, _notes(opened, to, flags), written=True)
    if flags.push:
        _push(folder.absolute(), flags)
    return 0


def _push_source(flags: argparse.Namespace) -> int:
    """Pushes the folder --from as it is, if it is a whole one of transformers or PEFT."""
    if extra := sorted(flags.given - {"convert", "from", "push", "public", "json"}):
        raise UserError(f"--{extra[0]} is for a conversion; give --to=PATH, or leave it out.")
    found = detect(flags.source)
    if found.kind not in _PUSHED:
        raise UserError(
            f"--push={flags.push}: {found.place} is {KINDS[found.kind]}; give --to=PATH as well, "
            "the Hugging Face folder to write."
        )
    hub.check_push(flags.push)
    folder = pathlib.Path(found.place)
    if found.kind == huggingface.KIND:
        open_checkpoint(folder)  # raises UserError unless all files are there and whole
    else:
        safetensors_files.read_file(folder / peft_format.WEIGHTS)
    _push(folder, flags)
    return 0


def _push(folder: pathlib.Path, flags: argparse.Namespace) -> None:
    pushed = hub.push_folder(folder, flags.push, flags.public)
    visible = "private" if pushed.private else "public"
    lines = [
        *(f"note: {note}" for note in pushed.notes),
        f"pushed {pushed.num_files} files, {pushed.num_bytes / 1e6:,.1f} MB, to {pushed.url} "
        f"({visible}), commit {pushed.commit}",
    ]
    print("\n".join(lines), file=sys.stderr if flags.json else sys.stdout)


def _model(flags: argparse.Namespace) -> AnyConfig | None:
    """The architecture of --model or gin flags; None without them."""
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
    model = bound_model(gin_config.entry_arguments(gin_config.ENTRIES))
    if model is None:
        raise UserError(f"{', '.join(files)} configures no model; use a file of gin/models.")
    return model


def _map_pair(entry: str) -> tuple[str, str | None]:
    name, _, source = entry.partition("=")
    if not name or not source or "=" in source:
        raise UserError(
            f"--map={entry}: write MODEL=CHECKPOINT, such as "
            "--map='decoder/logits_dense/kernel=head/kernel'."
        )
    return name, source


def _format(flags: argparse.Namespace, opened: Checkpoint) -> str:
    """The format to write: --format, else by the name in --to, else by that of --from."""
    is_t5x_name = _T5X_NAME.fullmatch(pathlib.PurePath(flags.target).name)
    foreign = (huggingface.KIND, peft_format.KIND)
    default = native.KIND if opened.kind in foreign else huggingface.KIND
    to = flags.format or (t5x.KIND if is_t5x_name else default)
    if flags.slots and flags.format is None and to == huggingface.KIND:
        to = native.KIND if opened.kind == t5x.KIND else t5x.KIND
    if to == t5x.KIND and not is_t5x_name:
        raise UserError(
            f"--to={flags.target}: T5X finds checkpoints as checkpoint_<step> only; write "
            f"--to={flags.target.rstrip('/')}/checkpoint_{opened.step}."
        )
    return to


def _notes(opened: Checkpoint, to: str, flags: argparse.Namespace) -> list[str]:
    """Notes on the vocabulary, which the table of keys does not show."""
    notes = []
    embedding = opened.arrays.get("token_embedder/embedding")
    rows = flags.vocab_rows or (embedding.shape[0] if embedding is not None else 0)
    if flags.vocab_rows and embedding is not None:
        verb = "cut" if flags.vocab_rows < embedding.shape[0] else "continued with zeros"
        notes.append(f"rows of the vocabulary: {verb}, {embedding.shape[0]:,} -> {rows:,}")
    if flags.tokenizer is not None:
        size = load_vocabulary(conversion.vocabulary_given(flags.tokenizer)).vocab_size
        if size < rows:
            notes.append(
                f"the vocabulary has {size:,} ids, the embedding {rows:,} rows: rows from "
                f"{size:,} on are padding, which no text uses"
            )
    elif opened.vocabulary is None and to != t5x.KIND:
        notes.append(
            "the checkpoint has no vocabulary, so none is written; --tokenizer=PATH adds one (T5's "
            "spiece.model has 32,100 ids with its sentinels; T5X pads the embedding to 32,128 rows)"
        )
    return notes


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
    lines = report.table()
    if flags.all_keys:
        notes = [*report.notes, *notes]
        lines = [lines[0], *map(_line, report.rows)]
    print("\n".join([*lines, *(f"note: {note}" for note in notes)]))
    if written:
        slots = ", with Adafactor's slots" if flags.slots else ""
        print(f"wrote {KINDS[to]}: {flags.target} ({flags.dtype}{slots})")


def _line(row: KeyRow) -> str:
    names = " <- ".join(name for name in (row.ours, row.theirs) if name)
    shapes = f"{list(row.shape or row.their_shape)}"
    if row.shape and row.their_shape and row.shape != row.their_shape:
        shapes = f"model {list(row.shape)}, checkpoint {list(row.their_shape)}"
    return f"{row.status:13} {names} {shapes}{f'  ({row.note})' if row.note else ''}"


def _report_fields(report: KeyReport) -> dict[str, Any]:
    counts = collections.Counter(row.status for row in report.rows)
    keys = [dataclasses.asdict(row) for row in report.rows]
    return {"counts": counts, "keys": keys, "notes": list(report.notes)}


def _describe(flags: argparse.Namespace) -> int:
    extra = sorted(
        flags.given - {"convert", "from", "describe", "step", "base", "json", "all_keys"}
    )
    extra = [f"--{name}" for name in extra] + flags.gin_flags
    if extra:
        raise UserError(
            f"--describe shows what the checkpoint is and writes nothing; leave {extra[0]} out, "
            "or --describe."
        )
    description = conversion.describe(flags.source, flags.step, flags.base)
    if not flags.json:
        lines, keys = description.lines(), description.keys
        if flags.all_keys and keys is not None:
            lines = lines[: -len(keys.table())]
            lines += [keys.table()[0], *map(_line, keys.rows), *(f"note: {n}" for n in keys.notes)]
        print("\n".join(lines))
        return 0
    document = {k: value for k, value in vars(description).items() if k not in ("model", "keys")}
    document["model"] = record_of(description.model) if description.model else None
    document |= _report_fields(description.keys) if description.keys else {}
    print(json.dumps(document, indent=1))
    return 0
