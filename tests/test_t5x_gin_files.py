"""gin/t5x against T5X's names: modules, parameters and macros as T5X has them, without T5X.

T5X cannot be installed beside this project, so the test makes stand-ins: modules whose callables
have T5X's parameters and keep what they are given, and the two kinds of T5X's gin files as far as
ours rely on them (google-research/t5x: configs/runs/finetune.gin, examples/t5/t5_1_1).
"""

import pathlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import gin
import pytest
import seqio

from instruct.data.seqio import bridge as seqio_bridge
from instruct.workspace import Workspace

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "gin" / "t5x").glob("flan_t5_*.gin"))
# Steps of arXiv 2210.11416, Table 22, on top of the LM-adapted checkpoint's; as T5X publishes them.
STEPS = {"small": 1198000, "base": 1184000, "large": 1164000, "xl": 1138000, "xxl": 1114000}

# Name in T5X -> parameters that gin may bind.
CALLABLES = {
    "gin_utils.summarize_gin_config": (),
    "partitioning.PjitPartitioner": (
        *("num_partitions", "model_parallel_submesh", "params_on_devices", "backend"),
        *("ici_mesh_shape", "dcn_mesh_shape", "logical_axis_rules"),
    ),
    "partitioning.standard_logical_axis_rules": (
        *("activation_partitioning_dims", "parameter_partitioning_dims", "additional_rules"),
    ),
    "trainer.Trainer": ("num_microbatches", "learning_rate_fn", "weight_metrics_computer"),
    "utils.DatasetConfig": (
        *("mixture_or_task_name", "task_feature_lengths", "split", "batch_size", "shuffle"),
        *("seed", "use_cached", "pack", "use_custom_packing_ops", "module", "use_memory_cache"),
        "trim_output_features",
    ),
    "utils.CheckpointConfig": ("save", "restore"),
    "utils.SaveCheckpointConfig": ("dtype", "period", "keep", "save_dataset"),
    "utils.RestoreCheckpointConfig": (
        *("path", "mode", "assignment_map", "strict", "fallback_to_scratch", "dtype"),
        *("restore_dataset", "state_transformation_fns"),
    ),
    "utils.create_learning_rate_scheduler": (
        *("factors", "base_learning_rate", "warmup_steps", "decay_factor", "steps_per_decay"),
        *("steps_per_cycle", "step_offset", "min_learning_rate"),
    ),
    "adafactor.Adafactor": ("decay_rate", "step_offset", "logical_factor_rules"),
    "adafactor.standard_logical_factor_rules": (),
    "models.EncoderDecoderModel": (
        *("module", "input_vocabulary", "output_vocabulary", "optimizer_def", "z_loss"),
        *("label_smoothing", "loss_normalizing_factor"),
    ),
    "examples.t5.network.Transformer": ("config",),
    "examples.t5.network.T5Config": ("emb_dim", "dropout_rate"),
}
TRAIN = (
    *("model", "train_dataset_cfg", "train_eval_dataset_cfg", "infer_eval_dataset_cfg"),
    *("checkpoint_cfg", "partitioner", "trainer_cls", "model_dir", "total_steps", "eval_steps"),
    *("eval_period", "stats_period", "random_seed", "use_hardware_rng", "summarize_config_fn"),
    *("inference_evaluator_cls", "get_dataset_fn", "concurrent_metrics", "actions"),
    *("run_eval_before_training", "use_orbax", "verify_matching_vocabs_fn", "gc_period"),
)
# Macro -> value, as finetune.gin and the model files leave them.
REQUIRED = (
    *("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS"),
    "INITIAL_CHECKPOINT_PATH",
)
RUN_MACROS = {
    "DROPOUT_RATE": 0.1,
    "USE_CACHED_TASKS": True,
    "BATCH_SIZE": 128,
    "EVAL_STEPS": 20,
    "EVAL_PERIOD": 1000,
    "EVALUATOR_USE_MEMORY_CACHE": True,
    "EVALUATOR_NUM_EXAMPLES": None,
    "JSON_WRITE_N_RESULTS": None,
    "USE_HARDWARE_RNG": False,
    "RANDOM_SEED": None,
    "MIXTURE_OR_TASK_MODULE": None,
}
MODEL_MACROS = {"Z_LOSS": 1e-4, "LABEL_SMOOTHING": 0.0, "LOSS_NORMALIZING_FACTOR": None}
OURS = {"VOCABULARY_FILE"}


class Bound(dict):
    """What a stand-in was called with."""

    name: str


def stand_in(name: str, parameters: tuple[str, ...]) -> Callable[..., Bound]:
    """A function of that name with these keyword parameters."""
    given = ", ".join(f"{parameter}=None" for parameter in parameters)
    passed = ", ".join(f"{parameter}={parameter}" for parameter in parameters)
    scope: dict[str, Any] = {"Bound": Bound}
    short = name.rpartition(".")[2]
    exec(f"def {short}({given}): return Bound({passed})", scope)
    made = scope[short]
    made.__module__ = f"t5x.{name.rpartition('.')[0]}" if "." in name else "__main__"
    return made


# Made once: gin keeps what it has registered, and refuses another object under the same name.
STAND_INS = {name: stand_in(name, parameters) for name, parameters in CALLABLES.items()}
STAND_IN_TRAIN = stand_in("train", TRAIN)


def t5x_modules() -> dict[str, types.ModuleType]:
    modules: dict[str, types.ModuleType] = {}
    for name, function in STAND_INS.items():
        *folders, short = f"t5x.{name}".split(".")
        for depth in range(1, len(folders) + 1):
            path = ".".join(folders[:depth])
            modules.setdefault(path, types.ModuleType(path))
            if depth > 1:
                setattr(modules[".".join(folders[: depth - 1])], folders[depth - 1], modules[path])
        setattr(modules[".".join(folders)], short, function)
    return modules


def run_file() -> str:
    """Bindings that our files rely on, of T5X's run file."""
    lines = ["from __gin__ import dynamic_registration", "import __main__ as train_script"]
    lines += ["import seqio"]
    lines += [f"from t5x import {m}" for m in ("gin_utils", "partitioning", "trainer", "utils")]
    lines += [f"{name} = %gin.REQUIRED" for name in REQUIRED]
    lines += [f"{name} = {value!r}" for name, value in RUN_MACROS.items()]
    train = {
        "model": "%MODEL",
        "model_dir": "%MODEL_DIR",
        "train_dataset_cfg": "@train/utils.DatasetConfig()",
        "train_eval_dataset_cfg": "@train_eval/utils.DatasetConfig()",
        "infer_eval_dataset_cfg": "@infer_eval/utils.DatasetConfig()",
        "checkpoint_cfg": "@utils.CheckpointConfig()",
        "partitioner": "@partitioning.PjitPartitioner()",
        "trainer_cls": "@trainer.Trainer",
        "total_steps": "%TRAIN_STEPS",
        "random_seed": "%RANDOM_SEED",
        "summarize_config_fn": "@gin_utils.summarize_gin_config",
        "inference_evaluator_cls": "@seqio.Evaluator",
    }
    lines += [f"train_script.train.{name} = {value}" for name, value in train.items()]
    for scope in ("train", "train_eval", "infer_eval"):
        fields = {
            "mixture_or_task_name": "%MIXTURE_OR_TASK_NAME",
            "task_feature_lengths": "%TASK_FEATURE_LENGTHS",
            "batch_size": "%BATCH_SIZE",
            "use_cached": "%USE_CACHED_TASKS",
            "module": "%MIXTURE_OR_TASK_MODULE",
            "pack": "True",
        }
        lines += [f"{scope}/utils.DatasetConfig.{name} = {v}" for name, v in fields.items()]
    lines += [
        "utils.CheckpointConfig.restore = @utils.RestoreCheckpointConfig()",
        "utils.CheckpointConfig.save = @utils.SaveCheckpointConfig()",
        "utils.RestoreCheckpointConfig.path = %INITIAL_CHECKPOINT_PATH",
        "utils.SaveCheckpointConfig.period = 5000",
        "utils.SaveCheckpointConfig.dtype = 'float32'",
        "trainer.Trainer.learning_rate_fn = @utils.create_learning_rate_scheduler()",
        "utils.create_learning_rate_scheduler.factors = 'constant'",
        "utils.create_learning_rate_scheduler.base_learning_rate = 0.001",
    ]
    return "\n".join(lines) + "\n"


def model_file() -> str:
    lines = ["from __gin__ import dynamic_registration", "import seqio", "from t5x import models"]
    lines += ["from t5x import adafactor", "from t5x.examples.t5 import network"]
    lines += ["DROPOUT_RATE = %gin.REQUIRED", "VOCABULARY = @seqio.ByteVocabulary()"]
    lines += [f"{name} = {value!r}" for name, value in MODEL_MACROS.items()]
    lines += ["MODEL = @models.EncoderDecoderModel()", "OPTIMIZER = @adafactor.Adafactor()"]
    fields = {
        "module": "@network.Transformer()",
        "input_vocabulary": "%VOCABULARY",
        "output_vocabulary": "%VOCABULARY",
        "optimizer_def": "%OPTIMIZER",
        "z_loss": "%Z_LOSS",
        "loss_normalizing_factor": "%LOSS_NORMALIZING_FACTOR",
    }
    lines += [f"models.EncoderDecoderModel.{name} = {value}" for name, value in fields.items()]
    lines += ["network.Transformer.config = @network.T5Config()"]
    lines += ["network.T5Config.dropout_rate = %DROPOUT_RATE"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def t5x(monkeypatch, tmp_path):
    """T5X's place on gin's path, and its modules."""
    for name, module in t5x_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["__main__"], "train", STAND_IN_TRAIN, raising=False)
    monkeypatch.setattr(seqio_bridge.RecordTask, "vocabulary", "gym")
    monkeypatch.setattr(seqio_bridge.RecordTask, "workspace", Workspace())
    texts = {"t5x/configs/runs/finetune.gin": run_file()}
    texts |= {f"t5x/examples/t5/t5_1_1/{size}.gin": model_file() for size in STEPS}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(gin.config, "_LOCATION_PREFIXES", [str(tmp_path), str(ROOT)])
    gin.clear_config()
    yield tmp_path
    gin.clear_config()


def train_arguments(path: pathlib.Path, *bindings: str) -> dict[str, Any]:
    gin.clear_config()
    given = ["MODEL_DIR = '/not/made'", *bindings]
    gin.parse_config_files_and_bindings([str(path)], given)
    return gin.get_bindings("train_script.train", resolve_references=True)


def test_there_is_a_file_for_every_size():
    assert {path.stem.removeprefix("flan_t5_") for path in FILES} == set(STEPS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_run_is_what_the_papers_say(t5x, path):
    size = path.stem.removeprefix("flan_t5_")
    built = train_arguments(path)
    assert built["total_steps"] == STEPS[size]
    initial = built["checkpoint_cfg"]["restore"]["path"]
    assert initial.endswith(f"/t5_1_1_lm100k_{size}/checkpoint_1100000")
    data = built["train_dataset_cfg"]
    assert data["batch_size"] == 64 and data["pack"] and data["use_cached"]
    assert data["task_feature_lengths"] == {"inputs": 2048, "targets": 512}
    assert built["model"]["module"]["config"]["dropout_rate"] == 0.05
    assert built["model"]["loss_normalizing_factor"] == 2048 * 114
    rates = built["trainer_cls"]()["learning_rate_fn"]
    assert rates["factors"] == "constant" and rates["base_learning_rate"] == 5e-4
    assert built["train_eval_dataset_cfg"] is built["infer_eval_dataset_cfg"] is None
    text = path.read_text()
    assert f"--gin_file=gin/t5x/{path.name}" in text and f"include '{model_of(size)}'" in text


def model_of(size: str) -> str:
    return f"t5x/examples/t5/t5_1_1/{size}.gin"


def test_model_and_tasks_get_one_vocabulary(t5x):
    """T5X's check, `verify_matching_vocabs`, on the mixture that the file names."""
    model = train_arguments(FILES[0])["model"]
    __import__("tasks.mixtures")
    features = seqio.get_mixture_or_task("scaling_b").tasks[0].output_features
    for name in ("inputs", "targets"):
        assert features[name].vocabulary == model["input_vocabulary"] == model["output_vocabulary"]
    spec = seqio_bridge.from_seqio(model["input_vocabulary"])
    assert spec == "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model#extra_ids=100"
    other = train_arguments(FILES[0], "VOCABULARY_FILE = 'bytes'")["model"]
    assert other["input_vocabulary"] == seqio.ByteVocabulary()


def test_the_module_and_the_mixture_exist(t5x):
    data = train_arguments(FILES[0])["train_dataset_cfg"]
    __import__(data["module"])
    assert data["mixture_or_task_name"] in seqio.MixtureRegistry.names()


def test_macros_are_t5x_s():
    known = {*REQUIRED, *RUN_MACROS, *MODEL_MACROS, "VOCABULARY", *OURS}
    for path in (ROOT / "gin" / "t5x").glob("*.gin"):
        assert set(re.findall(r"^([A-Z_]+) = ", path.read_text(), re.MULTILINE)) <= known


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("base_learning_rate", "learning_rate"),
        ("utils.SaveCheckpointConfig", "utils.CheckpointSaver"),
        ("infer_eval_dataset_cfg", "infer_dataset_cfg"),
        ("seqio_bridge.use_vocabulary.spec", "seqio_bridge.use_vocabulary.path"),
    ],
)
def test_a_wrong_name_would_be_noticed(t5x, right, wrong):
    text = (ROOT / "gin" / "t5x" / "flan_t5.gin").read_text()
    assert right in text
    (t5x / "gin" / "t5x").mkdir(parents=True)
    (t5x / "gin" / "t5x" / "flan_t5.gin").write_text(text.replace(right, wrong))
    with pytest.raises((AttributeError, ValueError), match=wrong.rpartition(".")[2]):
        train_arguments(FILES[0])


def test_folders_come_from_the_environment(t5x, monkeypatch, tmp_path):
    monkeypatch.setenv("INSTRUCT_STORE_DIR", str(tmp_path / "shared"))
    train_arguments(FILES[0], "VOCABULARY_FILE = 'bytes'")
    assert seqio_bridge.RecordTask.workspace.store_dir == tmp_path / "shared"
