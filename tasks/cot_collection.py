"""Family `cot_collection`: the CoT Collection (Kim et al. 2023, arXiv 2305.14045) as one task.

1.84 million rationales, written by a language model for 1,060 tasks of P3, Flan and
Natural-Instructions. A row is a finished prompt, its answer and the rationale; columns `source`,
`target`, `rationale`, `task`, `type`. Files: `<data folder>/CoT-Collection/train.jsonl`, or any
layout of instruct/data/sources/table_files.py. The published file is one JSON object; make lines:

    jq -c '.[]' CoT_collection_en.json > ~/instruct_data/CoT-Collection/train.jsonl

The publishers' own models end a rationale in "[ANSWER]" before the answer; here it is "The answer
is", which the suites' readers know. Which tasks it has is in its rows only, so no check of overlap
by name covers it: `run.py show --overlap` compares its texts with a suite's.
"""

from collections.abc import Mapping
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.renderings import HASHED_PARTS
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.answers import answer_reader
from tasks.wordings import wording

FAMILY = "cot_collection"
HUB = "kaist-ai/CoT-Collection"
_ROWS = 1_840_000  # as the paper rounds them
_METADATA = ("task", "type")


def read_row(row: Mapping[str, Any], default_id: str) -> Record | Dropped:
    """A record with the field `prompt` and a rationale."""
    texts = [row.get(name) for name in ("source", "target", "rationale")]
    if not all(isinstance(text, str) for text in texts):
        return Dropped("source, target or rationale is missing")
    prompt, answer, rationale = (str(text).strip() for text in texts)
    if not (prompt and answer and rationale):
        return Dropped("empty source, target or rationale")
    metadata = {name: row[name] for name in _METADATA if isinstance(row.get(name), str)}
    return Record(default_id, {"prompt": prompt}, answer, rationale=rationale, metadata=metadata)


def cot_collection_task() -> TaskSpec:
    """The whole collection; a row counts once."""
    templates = wording("finished_reasoning", "finished")
    return TaskSpec(
        name=f"{FAMILY}.all",
        family=FAMILY,
        dataset=FAMILY,
        category="reasoning",
        source=HuggingFaceSource(
            HUB,
            parts=HASHED_PARTS,
            to_record=read_row,
            columns=("source", "target", "rationale", *_METADATA),
            name=FAMILY,
        ),
        templates=templates,
        modes={"cot": 1.0},
        metric_fns=[metrics.exact_match],
        postprocess_fn=answer_reader(templates),
        num_examples={"train": round(0.98 * _ROWS)},
        license="CC-BY-4.0 (non-commercial use only, says its repository)",
        url=f"https://huggingface.co/datasets/{HUB}",
        description="Prompts of 1,060 tasks with rationales that a language model wrote",
    )


add_task(cot_collection_task())
