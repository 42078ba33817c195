"""The family `flan2021`: its table, its records through TFDS, its prompts in every mode."""

import collections
import dataclasses
import subprocess
import sys

import pytest

from instruct.data.feed.rendering import example_features
from instruct.data.registry import resolve, task_specs
from instruct.data.sources.tfds import TfdsSource
from instruct.errors import UserError
from instruct.prompts.lint import lint
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered
from tasks.flan2021 import family as flan2021
from tasks.flan2021.datasets import DATASETS
from tasks.flan2021.table import CLUSTERS, PER_ROW, TASKS
from tests.tasks.flan2021.goldens import LENGTHS, raw_rows, record_of, records
from tests.tasks.shown_prompts import rendered
from tests.workspaces import workspace

SPECS = {row.id: flan2021.flan2021_task(row) for row in TASKS.values()}

# Random text and numbers never make a record of these: they want a gap in the text, a number of
# choices, a label kept as a plain number, capitals or punctuation.
NEEDS_ITS_OWN_ROWS = {
    "arc_challenge",
    "arc_easy",
    "copa",
    "coqa",
    "definite_pronoun_resolution",
    "fix_punct",
    "hellaswag",
    "record",
    "sentiment140",
    "story_cloze",
    "true_case",
    "unified_qa_science_inst",
    "winogrande",
    "wsc",
}


# ---------------------------------------------------------------- the table


def test_the_table_has_the_tasks_of_the_papers():
    assert len(TASKS) == 72
    assert [f"flan2021.{task}" for task in TASKS] == [
        name for name in task_specs(workspace()) if name.startswith("flan2021.")
    ]
    # With 3 dialog data sets, DrRepair and CodeContests: the 69 of Longpre et al. (2023).
    assert len({row.dataset_name for row in TASKS.values()}) == 64
    assert {row.dataset_name for row in TASKS.values()} == set(DATASETS)


def test_clusters_are_those_of_flan_2021():
    sizes = [len(cluster.tasks) for cluster in CLUSTERS]
    assert sizes == [11, 4, 6, 4, 4, 4, 3, 4, 8, 3, 10, 1, 2, 1, 1, 1, 2]
    assert sum(sizes) == 69
    outside = {row.id for row in TASKS.values() if not row.cluster}
    assert outside == {"lambada", "unified_qa_science_inst", "trivia_qa_wiki_missing"}
    for cluster in CLUSTERS:
        assert {TASKS[task].cluster for task in cluster.tasks} == {cluster.name}


def test_rows_that_are_shared_are_in_one_group_and_no_row_is_used_twice():
    groups = collections.defaultdict(set)
    for spec in SPECS.values():
        groups[spec.group].add(spec.name.removeprefix("flan2021."))
    assert groups["mnli"] == {"mnli_matched", "mnli_mismatched"}
    assert groups["anli"] == {"anli_r1", "anli_r2", "anli_r3"}
    assert groups["arc"] == {"arc_challenge", "arc_easy", "unified_qa_science_inst"}
    assert groups["para_crawl_enda"] == {"true_case", "fix_punct", "word_segment"}
    assert groups["trivia_qa"] == {"trivia_qa", "trivia_qa_wiki_missing"}
    assert groups["squad"] == {"squad_v1", "squad_v2", "qnli"}
    parts = collections.Counter(
        (row.builder, part) for row in TASKS.values() for part in row.parts.values()
    )
    assert {key for key, count in parts.items() if count > 1} == set()


def test_splits_and_numbers():
    for row in TASKS.values():
        assert list(row.parts) in (["train", "validation", "test"], ["train"])
        assert row.train_records >= 200
    assert TASKS["drop"].parts["test"] == "dev"
    assert TASKS["fix_punct"].parts == {
        "train": "train[30200:60200]",
        "validation": "train[60200:60400]",
        "test": "train[-2000:-1000]",
    }


def test_sizes_that_the_table_tells():
    sizes = {task: flan2021.declared_sizes(row) for task, row in TASKS.items()}
    assert sizes["rte"] == {"train": 2_290, "validation": 200}
    assert sizes["para_crawl_enes"] == {"train": 30_000, "validation": 200, "test": 1_000}
    assert sizes["fix_punct"] == {"train": 28_070, "validation": 200, "test": 1_000}
    assert sizes["opinion_abstracts_idebate"] == {"train": 1_650, "validation": 100, "test": 500}
    assert sizes["mnli_mismatched"] == {"train": 196_150, "validation": 200}
    assert sizes["snli"] == {"train": 549_360}


def test_modes_languages_and_caps():
    for row, spec in zip(TASKS.values(), SPECS.values()):
        straight = {"zs_noopt", "fs_noopt"}
        if row.options is not None:
            straight |= {"zs_opt", "fs_opt"}
        assert {mode for mode in spec.modes if not mode.endswith("_inv")} == straight
        assert {spec.modes[mode] for mode in straight} == {1.0}
        side = len(straight) / 2
        assert spec.modes["zs_inv"] == spec.modes["fs_inv"] == pytest.approx(0.3 * side)
        assert bool(spec.templates.zs_opt) == (row.options is not None)
        assert spec.cap == 30_000 and spec.license and spec.url.startswith("http")
    assert SPECS["wmt16_translate_fien"].languages == ("English", "Finnish")
    assert SPECS["bool_q"].languages == ("English",)
    assert sum(leaf.rate for leaf in resolve(workspace(), "flan2021.rte").leaves) == pytest.approx(
        1.0
    )


@pytest.mark.parametrize("name", sorted(flan2021.template_sets()))
def test_wordings_pass_the_lint_and_are_used(name):
    assert lint(flan2021.template_sets()[name]) == []
    assert name in {row.templates for row in TASKS.values()}


def test_a_wrong_set_name_is_named():
    row = dataclasses.replace(TASKS["rte"], templates="nli_to_way")
    with pytest.raises(UserError, match=r"'nli_to_way'.*nli_two_way"):
        flan2021.flan2021_task(row)


def test_absent_data_name_the_builder_and_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    why = SPECS["newsroom"].source.available(workspace())
    assert why is not None
    for part in ("newsroom:1.0.0", str(tmp_path), "train.jsonl", "--download"):
        assert part in why


def test_rows_are_made_without_tensorflow():
    """Worker processes import the rows' modules, and the table."""
    script = (
        "import sys, tasks.flan2021.table\n"
        "assert not [m for m in sys.modules if m.startswith(('tensorflow', 'seqio', 'jax'))]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---------------------------------------------------------------- records through TFDS


def _mocked(task: str, monkeypatch, **mock):
    """What the task's source makes of mocked training rows."""
    import tensorflow_datasets as tfds

    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere/tfds")
    source = SPECS[task].source
    assert isinstance(source, TfdsSource)
    with tfds.testing.mock_data(policy=tfds.testing.MockPolicy.USE_CODE, **mock):
        # What is prepared would be read from disk; the mock stands for the builder's own code.
        monkeypatch.setattr(TfdsSource, "download", lambda self, _: tfds.builder(self.builder))
        return list(source.records(workspace(), "train"))


def _own_rows(task: str):
    """An `as_dataset_fn` that gives the task's made-up rows, checked against TFDS's schema."""

    def as_dataset(self, *args, **kwargs):
        import tensorflow as tf

        specs = self.info.features.get_tensor_info()
        rows = raw_rows()[task]
        for row in rows:
            for key in row.keys() - self.info.features.keys():
                raise AssertionError(f"{task}: TFDS has no {key}")
        return tf.data.Dataset.from_generator(
            lambda: (_like(row, specs) for row in rows),
            output_types=tf.nest.map_structure(lambda t: t.dtype, specs),
            output_shapes=tf.nest.map_structure(lambda t: t.shape, specs),
        )

    return as_dataset


def _like(row, specs):
    """A made-up row with all columns of the schema; those that are not read are empty."""
    import numpy as np

    if isinstance(specs, dict):
        return {key: _like(row.get(key) if row else None, spec) for key, spec in specs.items()}
    if row is not None:
        return row
    shape = [0 if size is None else size for size in specs.shape]
    text = specs.np_dtype == np.object_
    return np.full(shape, b"" if text else 0, dtype=object if text else specs.np_dtype)


@pytest.mark.slow
@pytest.mark.slow  # seconds together
@pytest.mark.parametrize("task", TASKS)
def test_records_come_through_tfds(task, monkeypatch):
    items = _mocked(task, monkeypatch, as_dataset_fn=_own_rows(task))
    expected = [record_of(task, number) for number in range(len(raw_rows()[task]))]
    assert all(isinstance(record, Record) for record in expected)
    assert [dataclasses.replace(item, id="") for item in items] == [
        dataclasses.replace(record, id="") for record in expected
    ]
    name = TASKS[task].builder.partition(":")[0].replace("/", "_")
    assert [item.id for item in items] == [f"{name}-train-{n}" for n in range(len(items))]


@pytest.mark.slow  # seconds together
@pytest.mark.parametrize("task", [task for task in TASKS if task not in NEEDS_ITS_OWN_ROWS])
def test_any_row_of_the_schema_is_a_record_or_dropped(task, monkeypatch):
    items = _mocked(task, monkeypatch, num_examples=6)
    assert len(items) == 6
    made = [item for item in items if isinstance(item, Record)]
    assert made, items
    _renders(task, made)


def _renders(task: str, made):
    spec = SPECS[task]
    names = {*spec.templates.input_fields, *spec.templates.context_fields}
    for record in made:
        assert record.fields.keys() == names
        assert bool(record.options) == (TASKS[task].options is not None)
        if TASKS[task].options not in (None, PER_ROW):
            assert record.options == TASKS[task].options
    for mode in spec.all_modes:
        for number in range(3):
            example = rendered(spec, mode, number, made, lengths=(200_000, 50_000))
            assert isinstance(example, Rendered), (mode, example)


# ---------------------------------------------------------------- prompts and scores


@pytest.mark.parametrize("task", TASKS)
def test_every_mode_renders(task):
    _renders(task, [record for record in records()[task] if all(record.fields.values())])


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_and_a_wrong_prediction(task):
    """What a prompt asks for is read as right, by marker and by text; nonsense is not."""
    spec = SPECS[task]
    read = spec.postprocess_fn
    assert read is not None
    for mode in (mode for mode in spec.modes if not mode.endswith("_inv")):
        targets, right, wrong = [], [], []
        for number, record in enumerate(records()[task]):
            example = rendered(spec, mode, number, records()[task], lengths=LENGTHS)
            assert isinstance(example, Rendered)
            features = example_features(record, example)
            targets.append(read(example.targets, example=features, is_target=True))
            right.append(read(example.targets, example=features, is_target=False))
            wrong.append(read("zzz", example=features, is_target=False))
        for metric in spec.metric_fns:
            for name, value in metric(targets, right).items():
                if TASKS[task].scoring == "score":
                    assert value >= 99.0 or len(set(targets)) < 2
                else:
                    assert value == pytest.approx(0.0 if "edit" in name else 100.0) or (
                        name == "f1" and "yes" not in targets
                    )
            for name, value in metric(targets, wrong).items():
                assert value > 0.0 if "edit" in name else value == pytest.approx(0.0), name
