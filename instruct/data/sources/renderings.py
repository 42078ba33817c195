"""Published renderings: the sub-mixtures of the Flan Collection as finished prompts.

A row is what Flan's own generator wrote, with the wording, options and exemplars it drew: columns
`inputs`, `targets`, `task_source`, `task_name`, `template_type` (zs_opt, zs_noopt, fs_opt,
fs_noopt). It becomes a record whose one field is the prompt.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.data.sources.huggingface import HuggingFaceSource, SplitPart
from instruct.errors import unknown_name
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped

FINGERPRINT_MODULE = "instruct.data.renderings"  # fingerprints of stores name functions by it

TEMPLATE_TYPES = ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt")
_METADATA = ("task_name", "template_type", "task_source")

# The published sets have a train split only.
HASHED_PARTS: Mapping[str, SplitPart] = {
    "train": ("train", (0.02, 1.0)),
    "validation": ("train", (0.0, 0.01)),
    "test": ("train", (0.01, 0.02)),
}


def rendering_source(
    path: str,
    template_types: Sequence[str] = (),
    task_names: Sequence[str] = (),
    parts: Mapping[str, SplitPart] = HASHED_PARTS,
) -> HuggingFaceSource:
    """The rows of one published sub-mixture.

    Args:
        path: name on the hub ("conceptofmind/cot_submix_original") or of a local folder.
        template_types: those of `TEMPLATE_TYPES` to keep; () for all.
        task_names: those to keep, as the rows name them; () for all.

    Raises:
        UserError: no such template type.
    """
    for kind in template_types:
        if kind not in TEMPLATE_TYPES:
            raise unknown_name("template type", kind, TEMPLATE_TYPES)
    # The reader of files applies one filter, by which it may skip whole row groups.
    where = ("task_name", tuple(task_names)) if task_names else None
    if where is None and template_types:
        where = ("template_type", tuple(template_types))
    return HuggingFaceSource(
        path,
        parts=parts,
        to_record=functools.partial(rendering_record, template_types=tuple(template_types)),
        where=where,
        columns=("inputs", "targets", *_METADATA),
        name=path.rsplit("/", 1)[-1],
    )


def rendering_record(
    row: Mapping[str, Any], default_id: str, template_types: tuple[str, ...] = ()
) -> Record | Dropped | None:
    """A record with the field `prompt` from one row; None for another template type."""
    if template_types and row.get("template_type") not in template_types:
        return None
    prompt, answer = row.get("inputs"), row.get("targets")
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return Dropped("inputs or targets are missing")
    prompt, answer = prompt.strip("\n").rstrip(), answer.strip()
    if not prompt.strip() or not answer:
        return Dropped("empty inputs or targets")
    metadata = {name: row[name] for name in _METADATA if isinstance(row.get(name), str)}
    return Record(default_id, {"prompt": prompt}, answer, metadata=metadata)
