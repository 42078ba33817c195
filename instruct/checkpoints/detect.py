"""Detects the kind of a checkpoint: this program's, T5X's or Hugging Face's."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from instruct.checkpoints import huggingface, native, peft_format, t5x
from instruct.checkpoints.checkpoint_files import PARAMS, checkpoint_steps, steps_folder
from instruct.checkpoints.weights import Checkpoint
from instruct.errors import UserError
from instruct.files import absolute_path, any_path, is_address

KINDS = {
    native.KIND: "a checkpoint of this program",
    t5x.KIND: "a T5X checkpoint",
    huggingface.KIND: "a Hugging Face folder",
    peft_format.KIND: "a PEFT adapter",
}
_T5X_STEP = re.compile(r"checkpoint_(\d+)")
# "google/flan-t5-small", "t5-small": also a valid path, so used for a hint only.
_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


class Found(NamedTuple):
    """`kind` is one of `KINDS`; `place` the checkpoint itself, a path or an address."""

    kind: str
    place: str


def detect(path: str | os.PathLike[str], step: int | None = None) -> Found:
    """Finds the checkpoint at a path, or the newest one below it.

    Args:
        path: a MODEL_DIR, a step's folder, a T5X folder with `checkpoint_<step>` or such a step,
            a Hugging Face folder or a model's folder in its cache, or a file of one of them. At
            an address: of this program or T5X.
        step: of a folder with several; None for the newest.

    Raises:
        UserError: there is no checkpoint of any kind, or none of that step.
    """
    found = _find(path, step)
    named = pathlib.PurePath(found.place).name.removeprefix("checkpoint_")
    if step is not None and named != str(step):
        raise UserError(
            f"{found.place} is one checkpoint, not a folder of several; leave step {step} out, or "
            "give a MODEL_DIR."
        )
    return found


def _find(path: str | os.PathLike[str], step: int | None) -> Found:
    text = str(path)
    folder = any_path("checkpoint", path).absolute()
    if is_address(folder) and _T5X_STEP.fullmatch(folder.name) and _is_t5x(folder):
        return Found(t5x.KIND, str(folder))  # without a list of its thousands of objects
    if folder.is_file():
        folder = folder.parent
    if (folder / PARAMS).is_dir():
        return Found(native.KIND, str(folder))
    if steps := checkpoint_steps(folder):
        chosen = _choose_step(folder, steps, step)
        return Found(native.KIND, str(steps_folder(folder) / str(chosen)))
    patterns = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    patterns += (huggingface.CONFIG, huggingface.ADAPTER)
    if any(True for pattern in patterns for _ in folder.glob(pattern)):
        if is_address(folder):
            raise UserError(
                f"checkpoint {text!r} is a Hugging Face folder, which is read from a folder of "
                "this machine only; download it first."
            )
        is_adapter = peft_format.is_folder(folder)
        return Found(peft_format.KIND if is_adapter else huggingface.KIND, str(folder))
    if _is_t5x(folder):
        return Found(t5x.KIND, str(folder))
    if steps := t5x_steps(folder):
        return Found(t5x.KIND, str(folder / f"checkpoint_{_choose_step(folder, steps, step)}"))
    snapshot = _cached_snapshot(folder)
    if snapshot is not None:
        return _find(snapshot, step)
    raise UserError(_nothing_there(folder, step) + _hub_hint(text, folder))


def open_checkpoint(
    path: str | os.PathLike[str],
    step: int | None = None,
    slots: bool = False,
    base: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Opens the checkpoint that `detect` finds; reads names, shapes and settings, no weights.

    With `slots` also the optimiser's state. `base` is the model of a PEFT adapter; None: the folder
    that the adapter names. Raises UserError if there is none or it is damaged.
    """
    checkpoint = detect(path, step)
    if checkpoint.kind == peft_format.KIND:
        folder = pathlib.Path(checkpoint.place)
        return peft_format.open_checkpoint(folder, _open_base(folder, base))
    if checkpoint.kind == native.KIND:
        return native.open_checkpoint(absolute_path(checkpoint.place), slots)
    if checkpoint.kind == t5x.KIND:
        return t5x.open_checkpoint(checkpoint.place, slots)
    if slots:
        raise UserError(f"{checkpoint.place}: a Hugging Face folder has no optimiser's state.")
    return huggingface.open_checkpoint(pathlib.Path(checkpoint.place))


def _open_base(folder: pathlib.Path, given: str | os.PathLike[str] | None) -> Checkpoint:
    """The model that an adapter belongs to."""
    named = peft_format.base_of(folder)
    base = named if given is None else os.fspath(given)
    try:
        found = detect(base) if base else None
    except UserError as error:
        if given is not None:
            raise
        raise UserError(
            f"{folder} is an adapter of {base!r}, which is no checkpoint on this machine ({error}) "
            "Convert it with its base first: run.py convert "
            f"--from={folder} --base=FOLDER --to=FOLDER."
        ) from error
    if found is None or found.kind == peft_format.KIND:
        raise UserError(
            f"{folder} is an adapter and names no model that it belongs to; convert it with "
            "--base=FOLDER, the model that was adapted."
        )
    return open_checkpoint(found.place)


def t5x_steps(folder: pathlib.Path) -> list[int]:
    """Steps of a T5X MODEL_DIR, in order."""
    if not folder.is_dir():
        return []
    named = [(_T5X_STEP.fullmatch(child.name), child) for child in folder.iterdir()]
    return sorted(int(match[1]) for match, child in named if match and _is_t5x(child))


def _is_t5x(folder: pathlib.Path) -> bool:
    files = (t5x.INDEX, "_METADATA", f"state/{t5x.INDEX}", "state/_METADATA")
    return any((folder / name).is_file() for name in files)


def _choose_step(folder: pathlib.Path, steps: Sequence[int], step: int | None) -> int:
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise UserError(f"no checkpoint of step {step} in {folder}; there are {known}.")
    return steps[-1] if step is None else step


def _cached_snapshot(folder: pathlib.Path) -> pathlib.Path | None:
    """The revision `main` of a model's folder in Hugging Face's cache (`models--*`).

    Without `refs/main`, as after downloading one revision by its hash, the only revision. Raises
    UserError if there are several.
    """
    if not folder.name.startswith("models--") or not (folder / "snapshots").is_dir():
        return None
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs" / "main"
    revision = main.read_text(errors="replace").strip() if main.is_file() else ""
    chosen = [path for path in snapshots if path.name == revision] or snapshots
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen[:6])
        raise UserError(f"{folder} holds several revisions ({names}); give {folder}/snapshots/ONE.")
    return chosen[0] if chosen else None


def _nothing_there(folder: pathlib.Path, step: int | None) -> str:
    contents = "no such folder"
    if folder.is_dir():
        names = sorted(child.name for child in folder.iterdir())
        contents = ", ".join(names[:6]) + (" ..." if names[6:] else "") or "it is empty"
    return (
        f"no checkpoint {'' if step is None else f'of step {step} '}in {folder} ({contents}). "
        "Give a MODEL_DIR that holds `checkpoints/<step>`, or such a step's folder; a T5X folder "
        "`checkpoint_<step>` (local or gs://); or a Hugging Face folder with config.json and "
        "model.safetensors."
    )


def _hub_hint(text: str, folder: pathlib.Path) -> str:
    """The download command if the name of a repository was given instead of a path; else ''."""
    if folder.exists() or not _HUB_NAME.fullmatch(text):
        return ""
    return (
        " Nothing is downloaded: for a repository of the Hugging Face hub, run "
        f"`hf download {text} --local-dir FOLDER` and give that folder."
    )
