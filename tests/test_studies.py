"""Every study of gin/ablations: its grid expands, its runs build, resolve and trace at true size."""

import collections
import functools
import pathlib
import re
import shlex

import gin
import jax
import pytest

from instruct import gin_config
from instruct import mesh as meshes
from instruct.cli import settings
from instruct.data import task_modules
from instruct.data.registry import resolve
from instruct.report.papers import printed_tables
from instruct.study import plan
from instruct.train.program import training_step
from tests.workspaces import workspace

ROOT = pathlib.Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "gin" / "ablations").glob("*.gin"))
MOST_BINDINGS = 10
# A study's own settings; the other flags of its command are the runs'.
OWN_FLAGS = ("STUDY_DIR", "SEEDS")
FEW_RUNS = 60


@pytest.fixture(autouse=True, scope="module")
def _registered():
    task_modules.load_modules(settings.TASK_MODULES)


def text_of(name: str) -> str:
    return (ROOT / "gin" / "ablations" / f"{name}.gin").read_text()


def command_of(name: str) -> list[str]:
    """The words of the command in a study's header."""
    header = text_of(name).split("from __gin__")[0]
    lines = re.search(r"# Command:((?:.*\\\n#)*.*)", header)
    assert lines, "the header has no command"
    return shlex.split(lines[1].replace("\\\n#", " "))


@functools.cache
def study_of(name: str) -> plan.Study:
    return plan.read_study([f"gin/ablations/{name}.gin"])


def run_flags(name: str, text: str) -> list[str]:
    """The lines of gin that the header's command adds to a run: macros that its text reads, or that
    every run has."""
    flags = [word for word in command_of(name) if word.startswith("--gin.")]
    bindings = [gin_config.binding_from_flag(flag) for flag in flags]
    names = [binding.partition(" = ")[0] for binding in bindings]
    all_texts = "".join(run.text for run in study_of(name).runs())
    return [
        binding
        for binding, macro in zip(bindings, names)
        if macro not in OWN_FLAGS and (f"%{macro}" in text or f"%{macro}" not in all_texts)
    ]


def arguments_of(name: str, run: plan.StudyRun, tmp_path: pathlib.Path) -> dict:
    """What gin binds for `train` and `eval` in a run, with the flags of the study's command."""
    file = tmp_path / "run.gin"
    file.write_text(run.gin_text("/study", (), run_flags(name, run.text)))
    gin_config.load([settings._SETTINGS_FILE, str(file)])
    return gin_config.entry_arguments((settings._SETTINGS, *gin_config.ENTRIES))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_it_varies_how_to_run_it_and_what_differs(name):
    text = text_of(name)
    header, _, body = text.partition("from __gin__")
    assert header.startswith("# Varies: ")
    assert f"--gin_file=gin/ablations/{name}.gin" in command_of(name)
    assert f"--gin.STUDY_DIR=runs/{name}" in command_of(name)
    bindings = re.findall(r"^[\w.]+ = ", body, re.MULTILINE)
    assert len([b for b in bindings if b.startswith(("plan.", "SEEDS"))]) <= MOST_BINDINGS
    study = study_of(name)
    assert study.title and study.protocol
    tables = printed_tables.all_tables()
    assert set(study.papers) <= set(tables)


@pytest.mark.parametrize("name", STUDIES)
def test_runs_build_and_their_mixtures_resolve(name, tmp_path):
    study = study_of(name)
    runs = study.runs()
    assert len(runs) <= FEW_RUNS
    resolved, configurations = set(), collections.Counter()
    for run in runs:
        built = arguments_of(name, run, tmp_path)
        train, evaluate = built[gin_config.TRAIN], built[gin_config.EVALUATE]
        suites = evaluate["config"].mixtures
        mixtures = {suites} if isinstance(suites, str) else set(suites)
        mixtures.add(train["data"].mixture)
        for mixture in mixtures - resolved:
            assert resolve(workspace(), mixture).leaves
        resolved |= mixtures
        stages = ",".join(run.stages)
        configurations[(stages, re.sub(r"'/study/[^']*'", "", gin.config_str()))] += 1
        if run.stages == (plan.EVAL,):
            assert evaluate["checkpoint_path"] == train["initial_checkpoint_path"]
    # Equal configurations would be one run twice: a point that later settings override.
    assert max(configurations.values()) == 1


def test_weights_are_asked_for_by_the_macro_of_their_size(tmp_path):
    """A run names what is missing, and the flag that gives it; runs of other sizes do not need it."""
    run = next(run for run in study_of("task_scaling_t5").runs() if run.labels["size"] == "base")
    file = tmp_path / "run.gin"
    file.write_text(run.gin_text("/study", (), ["VOCABULARY = 'bytes'"]))
    with pytest.raises(gin_config.UserError, match="Add --gin.T5_base=...") as error:
        gin_config.load([str(file)])
    assert "T5_small" not in str(error.value)
