"""Golden prompts of the public families, from made-up files in their publishers' formats."""

from pathlib import Path

from instruct.data.spec import TaskSpec
from instruct.prompts.record import Record
from instruct.workspace import Workspace
from tasks import public
from tests.tasks.shown_prompts import shown

MADE_UP = Path(__file__).parent / "public_data"
EXAMPLES = 4


WORKSPACE = Workspace(data_dir=MADE_UP)


def specs() -> list[TaskSpec]:
    """One task for each format."""
    folder = "natural_instructions/tasks"
    return [
        public.gsm8k_task(),
        public.cot_task("cot/crafts_train.tsv"),
        public.cot_task("cot/yesno.tsv"),
        public.natural_instructions_task(f"{folder}/task9001_made-up_word_classification.json"),
        public.natural_instructions_task(f"{folder}/task9002_made_up.v2_text_generation.json"),
    ]


def _records(spec: TaskSpec, *splits: str) -> list[Record]:
    items = [
        item for split in splits for item in spec.source.records(WORKSPACE, spec.splits[split])
    ]
    return sorted((i for i in items if isinstance(i, Record)), key=lambda record: record.id)


def _show(spec: TaskSpec, mode: str, number: int) -> str:
    records = _records(spec, "train", "validation", "test")
    separate = spec.exemplar_split not in ("train", "validation", "test")
    pool = _records(spec, spec.exemplar_split) if separate else None
    return shown(spec, mode, number, records, pool)


def goldens() -> dict[str, str]:
    """One file a family, every task and mode of it."""
    texts: dict[str, str] = {}
    for spec in specs():
        for mode in spec.all_modes:
            name = f"prompts_{spec.family.removesuffix('_files')}.txt"
            prompts = "".join(_show(spec, mode, number) for number in range(EXAMPLES))
            texts[name] = texts.get(name, "") + prompts
    return texts
