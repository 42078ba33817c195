"""Golden prompts of the suites: the first made-up item of each format in every protocol.

The suites on data sets of the family `flan2021` show its made-up rows.
"""

from collections.abc import Iterator

from instruct.data.feed.rendering import (
    ExampleRenderer,
    RecordList,
    example_features,
    example_key,
    name_key,
)
from instruct.data.registry import find_spec, task_specs
from instruct.data.spec import TaskSpec
from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from tasks.suites import held_in
from tasks.suites import mixtures as _register  # noqa: F401
from tests.tasks.flan2021 import goldens as flan2021_goldens
from tests.tasks.shown_prompts import shown as shown_prompt
from tests.tasks.suites.made_up import MADE_UP, data_folder
from tests.workspaces import workspace

LENGTHS = (40_000, 2_000)
TASKS: tuple[str, ...] = (
    "mmlu.astronomy",
    "mmlu.virology",
    "bbh.date_understanding",
    "bbh.sports_understanding",
    "bbh.dyck_languages",
    "mgsm.de",
    "mgsm.fr",
    "mgsm.ja",
    "gsm8k_test.gsm8k",
    "xquad.en",
    "tydiqa.swahili",
    "cot_eval.strategyqa",
    "cot_eval.ecqa",
    "cot_eval.commonsense_qa",
    "cot_eval.svamp",
    "cot_eval.asdiv",
    "dialogsum.main",
    "t0_held_out.copa_best_option",
    "bias.real_toxicity_prompts",
    "bias.winogender",
    "bias.civil_comments",
)

# The made-up file of reasoned exemplars has astronomy alone, and there is no training file.
NOT_THERE = (
    ("mmlu.virology", "cot"),
    ("dialogsum.main", "fs_noopt"),
    ("dialogsum.main", "direct"),
)


def records_of(spec: TaskSpec, split: str) -> list[Record]:
    """The records of one of the task's splits."""
    return [
        r for r in spec.source.records(workspace(), spec.splits[split]) if isinstance(r, Record)
    ]


def first_prompt(spec: TaskSpec, mode: str, split: str) -> tuple[Record, Rendered]:
    """The first record of a split as the model is asked it.

    Raises:
        UserError: a file that the mode needs is not there.
    """
    record = records_of(spec, split)[0]
    renderer = ExampleRenderer.of_task(
        *(spec, mode, split, Frame(load_vocabulary("bytes")), LENGTHS),
        lambda source: RecordList(records_of(spec, source)),
    )
    shown = renderer(record, 0, example_key(0, name_key(spec.leaf_name(mode)), 0))
    assert isinstance(shown, Rendered), (spec.name, mode, shown)
    return record, shown


def _texts() -> Iterator[str]:
    for name in TASKS:
        spec = find_spec(workspace(), name)
        split = "test" if "test" in spec.splits else "validation"
        for mode in spec.all_modes:
            if (name, mode) in NOT_THERE:
                continue
            record, shown = first_prompt(spec, mode, split)
            features = example_features(record, shown)
            read = shown.targets
            if spec.postprocess_fn is not None:
                read = spec.postprocess_fn(shown.targets, example=features, is_target=True)
            yield (
                f"======== {spec.leaf_name(mode)}: {record.id}, {shown.template_id}, "
                f"{shown.num_exemplars} exemplars\n{shown.inputs}\n-------- targets\n"
                f"{shown.targets}\n-------- read as\n{read}\n\n"
            )


def _texts_of_tfds() -> Iterator[str]:
    specs = [spec for spec in task_specs(workspace()).values() if spec.family == held_in.FAMILY]
    for spec in (*specs, find_spec(workspace(), "samsum.main")):
        row = "samsum" if spec.family == "samsum" else spec.name.partition(".")[2]
        records = flan2021_goldens.records()[row]
        for mode in spec.all_modes:
            yield shown_prompt(spec, mode, 0, records, lengths=flan2021_goldens.LENGTHS)


def goldens() -> dict[str, str]:
    """File name -> text."""
    with data_folder(MADE_UP):
        made_up = "".join(_texts())
    return {"prompts_suites.txt": made_up, "prompts_suites_tfds.txt": "".join(_texts_of_tfds())}
