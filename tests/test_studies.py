"""Every study of gin/ablations: its grid expands, its runs build, resolve and trace."""

import dataclasses
import functools
import pathlib
import re
import shlex
import tempfile
from typing import Any, NamedTuple

import jax
import pytest

from instruct import gin_config
from instruct import mesh as meshes
from instruct.cli import settings, study_runs
from instruct.cli.check import DEFAULT_SHAPE
from instruct.data import task_modules
from instruct.data.registry import resolve
from instruct.errors import UserError
from instruct.report.papers import printed_tables
from instruct.study import plan
from instruct.train.program import training_step
from tests.test_gin_files import OWN_RECIPES
from tests.test_gin_files import arguments as gin_arguments
from tests.workspaces import workspace

ROOT = pathlib.Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "gin" / "ablations").glob("*.gin"))
PAGE = "docs/studies.md"
MOST_BINDINGS = 10
# A study's own settings; the other flags of its command are the runs'.
OWN_FLAGS = ("--gin.STUDY_DIR=", "--gin.SEEDS=")
MOST_RUNS = 60


@pytest.fixture(autouse=True, scope="module")
def _registered(tmp_path_factory):
    """The tasks, and the table of rates that a study's command names."""
    table = tmp_path_factory.mktemp("tables") / "rates.tsv"
    table.write_text("flan2021\t2\ncot.gsm8k\t\n")
    task_modules.load_modules([*settings.TASK_MODULES, str(table)])


def text_of(name: str) -> str:
    return (ROOT / "gin" / "ablations" / f"{name}.gin").read_text()


def command_of(name: str) -> list[str]:
    """The words of the command in a study's header."""
    header = text_of(name).split("\nfrom __gin__")[0]
    lines = re.search(r"# Command:((?:.*\\\n#)*.*)", header)
    assert lines, "the header has no command"
    return shlex.split(lines[1].replace("\\\n#", " "))


@functools.cache
def study_of(name: str) -> plan.Study:
    return plan.read_study([f"gin/ablations/{name}.gin"])


@functools.cache
def runs_of(name: str) -> tuple[plan.StudyRun, ...]:
    return study_of(name).runs()


def settings_of(name: str, run: plan.StudyRun) -> list[str]:
    """What the command in a study's header adds to a run."""
    flags = [word for word in command_of(name) if word.startswith("--gin.")]
    own = [flag for flag in flags if not flag.startswith(OWN_FLAGS)]
    lines = study_runs.RunFlags((), tuple(own)).of_run(run, runs_of(name))
    return [gin_config.binding_from_flag(line) for line in lines]


class Built(NamedTuple):
    """A run, what gin binds for its `train` and `eval`, and all of its settings but its folder."""

    run: plan.StudyRun
    train: dict[str, Any]
    evaluate: dict[str, Any]
    settings: str


@functools.cache
def built_runs(name: str) -> tuple[Built, ...]:
    """The runs of a study, built with the flags of its command."""
    built = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "run.gin"
        for run in runs_of(name):
            file.write_text(run.gin_text("/study", (), settings_of(name, run)))
            gin_config.load([settings._SETTINGS_FILE, str(file)])
            entries = gin_config.entry_arguments((settings._SETTINGS, *gin_config.ENTRIES))
            text = re.sub(r"'/study/[^']*'", "", gin_config.config_text())
            train, evaluate = entries[gin_config.TRAIN], entries[gin_config.EVALUATE]
            built.append(Built(run, train, evaluate, text))
    return tuple(built)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_it_varies_how_to_run_it_and_what_differs(name):
    text = text_of(name)
    header, _, body = text.partition("\nfrom __gin__")
    assert header.startswith("# Varies: ")
    assert f"--gin_file=gin/ablations/{name}.gin" in command_of(name)
    assert f"--gin.STUDY_DIR=runs/{name}" in command_of(name)
    bindings = re.findall(r"^[\w.]+ = ", body, re.MULTILINE)
    assert len([b for b in bindings if b.startswith(("plan.", "SEEDS"))]) <= MOST_BINDINGS
    study = study_of(name)
    assert study.title and study.protocol
    tables = printed_tables.all_tables()
    assert set(study.papers) <= set(tables)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_runs_build_and_their_mixtures_resolve(name):
    runs = built_runs(name)
    assert len(runs) <= MOST_RUNS
    mixtures = set()
    for run, train, evaluate, _ in runs:
        suites = evaluate["config"].mixtures
        mixtures |= {suites} if isinstance(suites, str) else set(suites)
        mixtures.add(train["data"].mixture)
        if run.stages == (plan.EVAL,):
            assert evaluate["checkpoint_path"] == train["initial_checkpoint_path"]
            assert evaluate["feature_lengths"]
    for mixture in mixtures:
        assert resolve(workspace(), mixture).leaves
    # A point whose settings others override would be one run twice.
    assert len({(built.run.stages, built.settings) for built in runs}) == len(runs)


def traced_by(train: dict[str, Any]) -> tuple[Any, ...]:
    """What decides whether an update traces: the model, the rows' lengths, optimiser and loss."""
    model = dataclasses.replace(train["model"], dropout_rate=0.0)
    return model, train["data"].lengths, train["optimizer"].name, train["loss"]


@pytest.mark.slow
def test_every_model_of_a_study_traces_an_update_at_true_size():
    """Those that test_gin_files.py does not trace as a recipe's."""
    known = {traced_by(gin_arguments(recipe)[gin_config.TRAIN]) for recipe in OWN_RECIPES}
    trains = {traced_by(run.train): run.train for name in STUDIES for run in built_runs(name)}
    assert len(trains) > len(trains.keys() - known) > 0
    for key in trains.keys() - known:
        mesh = meshes.abstract_mesh(meshes.MeshConfig(), 1)
        step = training_step(key[0], mesh, trains[key], DEFAULT_SHAPE)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (step.abstract, step.batch)
        )
        with jax.sharding.use_abstract_mesh(mesh):
            jax.eval_shape(step.function, *shapes)


def test_the_page_on_studies_lists_every_one_with_its_runs():
    rows = re.findall(r"^\| (`.*?) \|.*\| ([\d, ]+) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)
    listed = {
        name: int(runs)
        for names, counts in rows
        for name, runs in zip(re.findall(r"`(\w+)`", names), counts.split(", "), strict=True)
    }
    ours = {name: len(runs_of(name)) for name in STUDIES}
    assert listed == ours


def test_architectures_are_compared_at_about_equal_flops():
    for name, most in (("architectures", 1.16), ("architectures_gym", 1.01)):
        flops = []
        for _, train, _, _ in built_runs(name):
            rows, (inputs, targets) = train["data"].batch_size, train["data"].lengths
            flops.append(train["model"].train_flops(rows, inputs, targets) * train["train_steps"])
        assert max(flops) / min(flops) < most


def test_weights_are_asked_for_by_the_macro_of_their_size(tmp_path):
    """A run names what is missing and the flag that gives it, of its own size only."""
    run = next(run for run in runs_of("task_scaling_t5") if run.labels["size"] == "base")
    file = tmp_path / "run.gin"
    file.write_text(run.gin_text("/study", (), ["VOCABULARY = 'bytes'"]))
    with pytest.raises(UserError, match="Add --gin.T5_base=...") as error:
        gin_config.load([str(file)])
    assert "T5_small" not in str(error.value)
