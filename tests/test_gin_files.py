"""Every file under gin/: sizes as published, settings complete, and each does its one job.

Files are found by looking, so a new one is held to the rules of its folder at once.
"""

import functools
import pathlib
import re

import gin
import jax
import pytest

from instruct import gin_config
from instruct import mesh as meshes
from instruct.cli import settings
from instruct.cli.arguments import main
from instruct.models.model import make_model
from instruct.train.session import results_config
from tests import published_models

ROOT = pathlib.Path(__file__).resolve().parents[1]
# T5 1.1 with the 32,128 rows of T5X's checkpoints (Raffel et al. 2020, arXiv 1910.10683).
PUBLISHED_PARAMETERS = {
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    **published_models.PARAMETERS,
}
# What the user of a file of gin/runs must give.
GIVEN = {
    "MODEL_DIR": "/not/made",
    "MIXTURE_OR_TASK_NAME": "gym.demo",
    "EVAL_MIXTURES": "gym.demo",
    "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 16},
    "TRAIN_STEPS": 3,
    "INITIAL_CHECKPOINT_PATH": "/not/there",
    "VOCABULARY": "bytes",
}
# What a recipe may ask for: a folder to write to, and what cannot be shipped with the project.
MAY_REQUIRE = {"MODEL_DIR", "INITIAL_CHECKPOINT_PATH", "VOCABULARY"}


def files(*folders: str) -> list[str]:
    found = [path for folder in folders for path in sorted((ROOT / "gin" / folder).glob("*.gin"))]
    assert found
    return [str(path.relative_to(ROOT)) for path in found]


def included_by_others() -> set[str]:
    texts = [path.read_text() for path in (ROOT / "gin" / "models").glob("*.gin")]
    return {name for text in texts for name in re.findall(r"^include '(.*)'", text, re.MULTILINE)}


MODELS = [path for path in files("models") if path not in included_by_others()]
RECIPES = files("recipes")
# Recipes that are not another one with changes.
OWN_RECIPES = [p for p in files("recipes") if "include 'gin/recipes/" not in (ROOT / p).read_text()]
# Some of each class of models: hardware files know classes only.
HARDWARE_RECIPES = [
    path
    for path in OWN_RECIPES
    if not re.search("palm_(8|540)b|gemma2_|llama3_|qwen3_4b|t5gemma_2b", path)
]
# Of the published decoders and pairs one of each family that no recipe traces.
TRACED = [
    path
    for path in MODELS
    if pathlib.Path(path).stem not in published_models.PARAMETERS
    or pathlib.Path(path).stem in ("gemma3_1b", "qwen2_5_0_5b", "t5gemma2_270m_270m")
]


@functools.cache
def arguments(*paths: str) -> dict[str, dict]:
    """Arguments of every entry, and that nothing bound is left unused."""
    required = required_macros(paths)
    given = [f"{name} = {value!r}" for name, value in GIVEN.items() if name in required]
    gin_config.load([settings._SETTINGS_FILE, *paths], given)
    return gin_config.entry_arguments((settings._SETTINGS, *gin_config.ENTRIES))


@functools.cache
def required_macros(paths: tuple[str, ...]) -> set[str]:
    gin.clear_config()
    gin.add_config_file_search_path(str(ROOT))
    for path in paths:
        gin.parse_config_file(path)
    return {name for name, value in gin_config.macros().items() if str(value) == "%gin.REQUIRED"}


def test_all_folders_are_known():
    folders = {path.parent.name for path in (ROOT / "gin").rglob("*.gin")}
    assert folders == {"ablations", "hardware", "models", "recipes", "runs", "t5x", "trackers"}


@pytest.mark.slow
@pytest.mark.parametrize("path", MODELS)
def test_models_have_their_published_size(path):
    model = settings.bound_model(arguments(path))
    name = pathlib.Path(path).stem
    counted = sum(leaf.size for leaf in jax.tree.leaves(make_model(model).abstract_params()))
    assert counted == model.num_params()
    small = name.startswith(("tiny", "demo"))
    assert small or counted == PUBLISHED_PARAMETERS[name]
    if not small:
        assert f"{counted:,} parameters" in (ROOT / path).read_text()


def test_every_published_size_has_a_file():
    assert {pathlib.Path(path).stem for path in MODELS} >= set(PUBLISHED_PARAMETERS)


# `run.py study` reads it before a study (tests/study/test_plan.py).
RUNS = [path for path in files("runs") if path != "gin/runs/study.gin"]


@pytest.mark.parametrize("path", RUNS)
def test_runs_build_with_what_they_require(path):
    model = (MODELS[-1],) if path.endswith("train.gin") else ()
    built = arguments(path, *model)
    entries = {
        "train.gin": gin_config.TRAIN,
        "eval.gin": gin_config.EVALUATE,
        "suites.gin": gin_config.EVALUATE,
        "self_consistency.gin": gin_config.EVALUATE,
        "int8.gin": gin_config.EVALUATE,
        "infer.gin": gin_config.INFER,
        "serve.gin": gin_config.SERVE,
        "settings.gin": settings._SETTINGS,
    }
    assert built[entries[pathlib.Path(path).name]]


@pytest.mark.parametrize("path", RUNS)
def test_lines_to_copy_from_comments_are_gin(path, tmp_path):
    """Runs of comment lines that begin with an import are a file that a user may add."""
    lines = [line.removeprefix("#   ") for line in (ROOT / path).read_text().splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith("from __gin__")]
    for start in starts[:-1]:  # the last one is the file's own
        end = next(
            i
            for i in range(start, len(lines))
            if lines[i].startswith(("#", "from __gin__")) and i > start
        )
        added = tmp_path / "added.gin"
        added.write_text("\n".join(lines[start:end]) + "\n")
        assert arguments(path, str(added))


@pytest.mark.parametrize("path", RECIPES)
def test_recipes_require_nothing_but_folders_and_files(path):
    required = required_macros((path,))
    assert "MODEL_DIR" in required and required <= MAY_REQUIRE
    header = (ROOT / path).read_text().split("include ")[0]
    for name in required & MAY_REQUIRE:
        assert f"--gin.{name}=" in header, f"the command does not give {name}"
    built = arguments(path)
    assert built[gin_config.TRAIN] and built[gin_config.EVALUATE]


@pytest.mark.slow
@pytest.mark.parametrize("path", OWN_RECIPES)
def test_recipes_trace_a_step_at_true_size(path, capsys):
    flags = [f"--gin.{name}={GIVEN[name]}" for name in sorted(required_macros((path,)))]
    assert main(["check", f"--gin_file={path}", *flags]) == 0
    out = capsys.readouterr().out
    assert "one abstract update traced" in out
    assert f"{arguments(path)[gin_config.TRAIN]['model'].num_params():,} parameters" in out
    # Records need not be prepared here; anything else that is missing is a mistake of the recipe.
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert all("no prepared records" in line for line in warnings), warnings


@pytest.mark.slow
@pytest.mark.parametrize("path", TRACED)
def test_models_trace_a_step_at_true_size(path, capsys):
    assert main(["check", f"--gin_file={path}", "--mesh=data=4,fsdp=2,tensor=2"]) == 0
    assert "one abstract update traced" in capsys.readouterr().out


# Of the entries' own arguments, those that change memory and speed only.
SPEED_ONLY = {"mesh", "num_microbatches", "batching"}
# Configurations whose own speed-only fields `results_config` knows by these names.
SEES_SPEED = ("model", "data", "loss")


@functools.cache
def what_results_hang_on(*paths: str) -> dict:
    built = arguments(*paths)
    return results_config(
        **{
            f"{entry}.{name}": value
            for entry in (gin_config.TRAIN, gin_config.EVALUATE)
            for name, value in built[entry].items()
            if name not in SPEED_ONLY and name not in SEES_SPEED
        },
        **{name: built[gin_config.TRAIN][name] for name in SEES_SPEED},
    )


@pytest.mark.slow
@pytest.mark.parametrize("hardware", files("hardware"))
@pytest.mark.parametrize("recipe", HARDWARE_RECIPES)
def test_hardware_changes_speed_only(recipe, hardware):
    assert what_results_hang_on(recipe, hardware) == what_results_hang_on(recipe)


@pytest.mark.parametrize("path", files("trackers"))
def test_trackers_are_added_to_any_recipe_and_change_no_result(path):
    recipe = "gin/recipes/gym_demo.gin"
    plain, added = what_results_hang_on(recipe), what_results_hang_on(recipe, path)
    assert plain != added and plain | {f"{gin_config.TRAIN}.trackers": None} == (
        added | {f"{gin_config.TRAIN}.trackers": None}
    )
    trackers = arguments(recipe, path)[gin_config.TRAIN]["trackers"]
    assert len(trackers) == 2 and type(trackers[1]).__name__.lower() == pathlib.Path(path).stem
    assert f"--gin_file={path}" in (ROOT / path).read_text()


# Devices as JAX lists them: TPU v4 and v5p are named after TensorCores, two a chip.
DEVICES = {
    **{"1xh100": 1, "8xh100": 8, "2x8xh100": 16, "v4-8": 4, "v4-64": 32, "v5e-16": 16},
    **{"v5e-256": 256, "2xv5e-256": 512, "v5p-64": 32, "v5p-128": 64, "v6e-64": 64},
}


@pytest.mark.parametrize("path", files("hardware"))
def test_hardware_files_fill_their_devices_and_fit_flans_batch(path):
    built = arguments("gin/recipes/flan_t5_small.gin", path)[gin_config.TRAIN]
    name, config = pathlib.Path(path).stem, built["mesh"]
    if name == "cpu":
        assert config.sizes(3) == (1, 3, 1, 1, 1)
        return
    mesh = meshes.abstract_mesh(config, DEVICES[name])
    assert f"slice = {mesh.shape['slice']}\n" in (ROOT / path).read_text()
    meshes.check_batch_size(mesh, built["data"].batch_size, 1, built["data"].lengths)
    rows = meshes.sharding_report(mesh, make_model(built["model"]).abstract_params())
    assert not [row.note for row in rows if row.note]
    copies = {row.copies for row in rows if "kernel" in row.path}
    assert copies == {mesh.shape["slice"]}, "one copy of every kernel in a slice"


def test_a_hardware_file_that_changed_results_would_be_noticed(tmp_path):
    for line in ("LEARNING_RATE = 1.0", "EVAL_SPLITS = 'train'", "BATCH_SIZE = 32"):
        wrong = tmp_path / f"{line.split()[0]}.gin"
        wrong.write_text(line + "\n")
        recipe = "gin/recipes/gym_demo.gin"
        assert what_results_hang_on(recipe, str(wrong)) != what_results_hang_on(recipe)


@pytest.mark.parametrize("path", files("recipes"))
def test_recipes_say_how_and_on_what_to_run_them(path):
    header = (ROOT / path).read_text().split("include ")[0]
    assert "# Command:" in header and "# Hardware:" in header
    assert f"--gin_file={path}" in header
