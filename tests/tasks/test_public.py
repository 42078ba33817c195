import collections
import os
import shutil
import subprocess
import sys

import pytest
import seqio

from instruct.cli.settings import TASK_MODULES
from instruct.data.registry import registered_specs, resolve, shares, task_specs
from instruct.data.seqio.bridge import RecordTask
from instruct.data.spec import SPLITS
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.lint import lint
from instruct.prompts.template import load_template_sets
from tasks import cot, public
from tasks.wordings import FOLDER as WORDINGS
from tests.tasks.public_goldens import WORKSPACE, specs
from tests.workspaces import workspace


@pytest.mark.parametrize("name", ["gsm8k", "cot", "natural_instructions"])
def test_wordings_pass_the_lint(name):
    (template_set,) = load_template_sets(WORDINGS / f"{name}.toml").values()
    assert lint(template_set) == []


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_a_perfect_and_a_wrong_prediction(spec):
    """Wiring of source, post-processing and metric: gold answers score 100, nonsense 0."""
    records = [r for r in spec.source.records(WORKSPACE, "train") if hasattr(r, "answer")]
    assert records and spec.postprocess_fn is not None
    for metric in spec.metric_fns:
        targets, right, wrong = [], [], []
        for record in records:
            example = {
                "options": record.options,
                "references": record.references or (record.answer,),
            }
            read = spec.postprocess_fn
            targets.append(read(record.answer, example=example, is_target=True))
            right.append(read(record.answer, example=example, is_target=False))
            wrong.append(read("nothing of it", example=example, is_target=False))
        assert list(metric(targets, right).values()) == [pytest.approx(100.0)]
        assert list(metric(targets, wrong).values()) == [0.0]


def test_number_match_takes_numbers_as_numbers():
    read = public.gsm8k_task().postprocess_fn
    assert read is not None
    target = read("1,250", example={}, is_target=True)
    given = read("It fires 1250.\nThe answer is $1250.00.", example={}, is_target=False)
    assert metrics.number_match([target], [given]) == {"number_match": 100.0}


def test_names_and_splits():
    by_name = {spec.name: spec for spec in specs()}
    assert list(by_name) == [
        "gsm8k.main",
        "cot_files.crafts",
        "cot_files.yesno",
        "niv2_files.task9001_made_up_word_classification",
        "niv2_files.task9002_made_up_v2_text_generation",
    ]
    for spec in by_name.values():
        assert set(SPLITS) <= set(spec.splits) <= set(spec.source.splits)
        assert spec.exemplar_split in spec.splits
    assert by_name["niv2_files.task9001_made_up_word_classification"].category == "classification"
    assert by_name["niv2_files.task9002_made_up_v2_text_generation"].category == "text generation"


def test_files_whose_names_are_alike_are_said(tmp_path, caplog):
    (tmp_path / "cot").mkdir()
    for name in ("задачи", "ответы", "my-set", "my_set"):
        (tmp_path / "cot" / f"{name}.tsv").touch()
    names = [spec.name for spec in public.find_specs(workspace(data_dir=tmp_path))]
    assert names == [f"cot_files.{name}" for name in ("my_set", "задачи", "ответы")]
    assert "cot/my_set.tsv is no task: cot/my-set.tsv is called cot_files.my_set" in caplog.text


def families_of(workspace, mixture):
    """Family, with the additions to it -> its share of the mixture there."""
    shares = collections.Counter()
    for leaf in resolve(workspace, mixture).leaves:
        shares[leaf.family.removesuffix("_files")] += leaf.rate
    return dict(shares)


def test_hidden_files_are_no_tasks(tmp_path):
    for name in ("cot/mine.tsv", "cot/._mine.tsv", "natural_instructions/tasks/._mine.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    found = [spec.name for spec in public.find_specs(workspace(data_dir=tmp_path))]
    assert found == ["cot_files.mine"]


def test_every_workspace_has_the_tasks_of_its_own_files(tmp_path):
    """Only names of files matter; without any GSM8K is left, which says what to do."""
    empty = workspace(data_dir=tmp_path)
    (found, none) = (set(task_specs(w)) - set(registered_specs()) for w in (WORKSPACE, empty))
    assert found == {spec.name for spec in specs()[1:]} and not none
    leaves = resolve(WORKSPACE, "cot_files.crafts").leaves
    assert {leaf.mode for leaf in leaves} == set(cot.MODES)
    with pytest.raises(UserError, match=r"cot_files\.crafts'"):
        resolve(WORKSPACE, "cot_files.craft")
    with pytest.raises(UserError, match="unknown task or mixture") as error:
        resolve(empty, "cot_files.craft")
    assert "cot_files.crafts" not in str(error.value)
    for name in ("cot_files.crafts", "cot_files.crafts.cot"):
        with pytest.raises(UserError, match="unknown task or mixture"):
            resolve(empty, name)
        assert resolve(WORKSPACE, name).leaves


def test_every_workspace_has_its_own_sample(tmp_path):
    """Two in one process, asked in turn; the second has no gsm8k."""
    shutil.copytree(WORKSPACE.data_dir / "cot", tmp_path / "cot")
    other = workspace(data_dir=tmp_path)
    for _ in range(2):
        assert families_of(WORKSPACE, public.SAMPLE) == pytest.approx(
            {"gsm8k": 1 / 3, "cot": 1 / 3, "niv2": 1 / 3}
        )
        assert families_of(other, public.SAMPLE) == pytest.approx({"cot": 1.0})
    assert families_of(workspace(data_dir=tmp_path / "none"), public.SAMPLE) == {"gsm8k": 1.0}
    with pytest.raises(UserError, match=r"public\.gsm8k"):
        resolve(other, "public.gsm8k")


def test_the_sample_in_seqios_registry_follows_the_chosen_workspace(tmp_path, monkeypatch):
    mixture = seqio.get_mixture_or_task(public.SAMPLE)
    monkeypatch.setattr(RecordTask, "workspace", WORKSPACE)
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates == pytest.approx(shares(WORKSPACE, public.SAMPLE))
    monkeypatch.setattr(RecordTask, "workspace", workspace(data_dir=tmp_path))
    assert {task.name.rpartition(".")[0] for task in mixture.tasks} == {"gsm8k.main"}
    assert "train" in mixture.splits and set(mixture.output_features) == {"inputs", "targets"}


def test_what_is_left_out_of_the_table_is_not_added(tmp_path):
    folder = tmp_path / "natural_instructions" / "tasks"
    folder.mkdir(parents=True)
    for name in (
        "task667_mmmlu_answer_generation_x",
        "task737-mmmlu-answer-generation-world-religions",
        "task062_bigbench_repeat_copy_logic",
        "task126_scan_structured_text_generation_command_action_all",
        "task9003_made_up_question_answering",
    ):
        (folder / f"{name}.json").write_text("{}", encoding="utf-8")
    added = {spec.name for spec in public.find_specs(workspace(data_dir=tmp_path))}
    assert added == {"niv2_files.task9003_made_up_question_answering"}


IMPORTS = """
import sys
folder = sys.argv[1]
opened = []

def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "glob.glob") and arguments:
        if str(arguments[0]).startswith(folder):
            opened.append((event, arguments[0]))

sys.addaudithook(note)
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
assert not opened, opened
from instruct.data import registry
from instruct.workspace import Workspace
import hashlib, pathlib
workspace = Workspace(data_dir=pathlib.Path(folder), store_dir=pathlib.Path(folder, "stores"))
for mixture in ("public.sample", "flan2022", "muffin"):
    shares = registry.shares(workspace, mixture)
    print(mixture, hashlib.sha256(repr(list(shares.items())).encode()).hexdigest())
assert opened
"""


@pytest.mark.slow
def test_importing_looks_at_no_data_and_its_order_does_not_matter(tmp_path):
    """All modules of tasks in two orders: the same mixtures, leaf by leaf."""
    modules = [*TASK_MODULES, "tasks.splits", "tasks.collection.page"]
    shutil.copytree(WORKSPACE.data_dir, tmp_path / "data")
    variables = {"INSTRUCT_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path)}
    printed = {
        subprocess.run(
            [sys.executable, "-c", IMPORTS, str(tmp_path / "data"), *order],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | variables,
        ).stdout
        for order in (modules, ["tasks.program_synthesis.family", *reversed(modules)])
    }
    assert len(printed) == 1 and "muffin" in printed.pop()


def test_additions_are_not_of_the_families_of_the_collection():
    for spec in specs()[1:]:
        assert spec.family in (public.COT_FILES, public.NIV2_FILES)
