"""What users get wrong, and what they are told: one message, a status, no traceback, no loss.

Every case runs the program as its command line does. Messages are held to naming the value and
the way out, not to their wording.
"""

import json
import pathlib

import pytest

from instruct import peak
from instruct.checkpoints.loading import checkpoint_steps
from instruct.cli.arguments import main
from tests.spoilt import MODULE_FLAG, NUM_GOOD, failure, train_flags, write_files

# Each is a user's module of its own: what cannot be registered cannot be listed either.
BROKEN_MODULES = {
    "empty_mixture": "add_mixture('spoilt.none', {})",
    "zero_weight": "add_mixture('spoilt.zero', {'spoilt.sums': 1, 'spoilt.blank': 0})",
    "unknown_child": "add_mixture('spoilt.child', {'spoilt.summs': 1})",
    "taken_name": "add_mixture('spoilt.sums', {'spoilt.blank': 1})",
    "raises": "print(1 / 0)",
    "no_python": "def task(:",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """DATA_DIR, modules that fail, and files that are not what they seem."""
    folder = tmp_path_factory.mktemp("spoilt")
    write_files(folder)
    for name, line in BROKEN_MODULES.items():
        text = f"from instruct.data.registry import add_mixture\n{line}\n"
        (folder / f"spoilt_{name}.py").write_text(text)
    (folder / "text.model").write_text("This is no SentencePiece model.\n")
    (folder / "wrong.gin").write_text("SEED = 1\nTRAIN_STEPS = = 3\n")
    (folder / "binary.gin").write_bytes(b"MODEL_DIR = '\xff'\n")
    return folder


@pytest.fixture(autouse=True)
def _data_is_in(folder, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(folder))
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)


# mode and what is added to good flags -> words of the message.
WRONG_FLAGS = {
    "misspelt macro": (["--gin.BATCHSIZE=8"], ["BATCHSIZE", "Did you mean 'BATCH_SIZE'"]),
    "macro that is nowhere": (["--gin.SEED=%SEEED"], ["SEEED", "must be set"]),
    "misspelt gin file": (
        ["--gin_file=gin/models/tinytest.gin"],
        ["gin/models/tinytest.gin", "gin/models/tiny_test.gin"],
    ),
    "misspelt parameter": (["--gin.LossConfig.zloss=1.0"], ["zloss", "Did you mean 'z_loss'"]),
    "misspelt configurable": (["--gin.LosConfig.z_loss=1.0"], ["LosConfig"]),
    "misspelt scope": (["--gin.evall/LossConfig.z_loss=1.0"], ["evall/"]),
    "gin syntax": (["--gin_bindings=SEED = = 3"], ["SEED = = 3", "parse"]),
    "gin syntax in a file": (["--gin_file=@/wrong.gin"], ["wrong.gin", "line 2"]),
    "gin file not UTF-8": (["--gin_file=@/binary.gin"], ["binary.gin", "not UTF-8"]),
    "flag without a value": (["--gin.SEED", "3"], ["--gin.SEED=3"]),
    "text for a number": (["--gin.BATCH_SIZE='four'"], ["batch_size", "'four'", "whole number"]),
    "truth for a number": (["--gin.BATCH_SIZE=True"], ["batch_size", "True", "whole number"]),
    "text for steps": (["--gin.TRAIN_STEPS='many'"], ["train_steps", "'many'", "whole number"]),
    "text for a rate": (["--gin.LEARNING_RATE='fast'"], ["learning_rate", "'fast'", "number"]),
    "text for a size": (["--gin.ModelConfig.d_ff='64'"], ["d_ff", "'64'", "without quotes"]),
    "text for a seed": (["--gin.SEED='a'"], ["SEED", "'a'", "whole number"]),
    "number for a checkpoint": (
        ["--gin.INITIAL_CHECKPOINT_PATH=3"],
        ["no checkpoint in", "/3 (no such folder)"],
    ),
    "number for a mesh": (["--gin.loop.train.mesh=3"], ["train.mesh", "3", "@MeshConfig()"]),
    "nothing for a loss": (["--gin.loop.train.loss=None"], ["train.loss", "@LossConfig()"]),
    "text for truth": (
        ["--gin.checkpoint.CheckpointConfig.async_save=no"],
        ["async_save", "'no'", "True or"],
    ),
    "seed beyond 32 bits": (["--gin.SEED=4294967296"], ["SEED", "4294967296", "to 4294967295"]),
    "seed beyond 64 bits": ([f"--gin.SEED={2**64}"], ["SEED", f"{2**64}", "to 4294967295"]),
    "negative seed": (["--gin.SEED=-1"], ["SEED", "-1", "from 0"]),
    "number of thousands of digits": (["--gin.SEED=0x" + "f" * 5000], ["SEED", "whole number"]),
    "no number": (["--gin.OptimizerConfig.learning_rate=1e999"], ["learning_rate", "finite"]),
    "text for a truth value": (
        ["--gin.checkpoint.CheckpointConfig.async_save=no"],
        ["async_save", "True or"],
    ),
    "bucket for a run": (
        ["--gin.MODEL_DIR=s3://bucket/a"],
        ["MODEL_DIR", "s3://bucket/a", "gs://"],
    ),
    "address for stores": (
        ["--gin.STORE_DIR=hdfs://host/a"],
        ["STORE_DIR", "hdfs://host/a", "gs://"],
    ),
    "no bucket for stores": (["--gin.STORE_DIR=gs:///a"], ["STORE_DIR", "gs://BUCKET/PATH"]),
    "address for data": (["--gin.DATA_DIR=https://host/a"], ["DATA_DIR", "https://host/a"]),
    "file for stores": (["--gin.STORE_DIR=@/sums.jsonl"], ["STORE_DIR", "sums.jsonl is a file"]),
    "unknown home": (["--gin.MODEL_DIR=~nobody-here/a"], ["MODEL_DIR", "no such user"]),
    "name that is too long": ([f"--gin.MODEL_DIR={'x' * 300}"], ["MODEL_DIR", "too long"]),
    "gin file that is a folder": (["--gin_file=@"], ["is a folder"]),
    "gin file with a long name": ([f"--gin_file={'x' * 5000}"], ["unknown gin file"]),
    "reference to nothing": (["--gin.SEED= @x"], ["'x'"]),
    "number for a mixture": (["--gin.MIXTURE_OR_TASK_NAME=3"], ["mixture", "'3'"]),
    "number for a vocabulary": (["--gin.VOCABULARY=3"], ["vocabulary", "'3'"]),
    "number for a module": (["--gin.MIXTURE_OR_TASK_MODULE=3"], ["MODULE", "3", ".py"]),
    "number for lengths": (["--gin.TASK_FEATURE_LENGTHS=64"], ["64", "'inputs': 512"]),
    "one length": (["--gin.TASK_FEATURE_LENGTHS={'inputs': 64}"], ["inputs", "'targets'"]),
    "dropout of 2": (["--gin.DROPOUT_RATE=2.0"], ["dropout_rate", "2.0", "[0, 1)"]),
    "unknown choice": (["--gin.DataConfig.packing='best'"], ["'best'", "'best_fit'"]),
    "unknown task": (
        ["--gin.MIXTURE_OR_TASK_NAME=spoilt.sum"],
        ["'spoilt.sum'", "Did you mean 'spoilt.sums'"],
    ),
    "unknown split": (["--gin.DataConfig.split=trian"], ["'trian'", "train, validation"]),
    "unknown module": (["--gin.MIXTURE_OR_TASK_MODULE=my_taskz"], ["my_taskz", "Searched"]),
    "unknown module file": (
        ["--gin.MIXTURE_OR_TASK_MODULE=@/my_taskz.py"],
        ["my_taskz.py", "cannot find"],
    ),
    "heads and mesh": (
        ["--gin.ModelConfig.num_heads=6", "--gin.MeshConfig.data=2", "--gin.MeshConfig.tensor=4"],
        ["num_heads = 6", "tensor = 4", "one of 1, 2, 3, 6"],
    ),
    "mesh and devices": (["--gin.MeshConfig.data=3"], ["data = 3", "there are 8"]),
    "batch and mesh": (["--gin.BATCH_SIZE=6"], ["6 rows", "multiple of 8"]),
    "batch and microbatches": (
        ["--gin.loop.train.num_microbatches=3"],
        ["8 rows", "3 microbatches", "num_microbatches"],
    ),
    "no vocabulary file": (["--gin.VOCABULARY=@/no.model"], ["no.model", "'bytes'", "'gym'"]),
    "unreadable vocabulary": (
        ["--gin.VOCABULARY=@/text.model"],
        ["text.model", "not a SentencePiece model"],
    ),
    "vocabulary too large": (["--gin.VOCABULARY=gym"], ["'gym'", "384 rows", "at least 6144"]),
    "no data": (
        ["--gin.MIXTURE_OR_TASK_NAME=spoilt.absent"],
        ["absent.jsonl", "--gin.DATA_DIR=", "INSTRUCT_DATA_DIR"],
    ),
    "no data folder": (["--gin.DATA_DIR=/no/folder"], ["/no/folder/sums.jsonl", "DATA_DIR"]),
    "nothing but dropped rows": (
        ["--gin.MIXTURE_OR_TASK_NAME=spoilt.blank"],
        ["spoilt.blank", "without a single record"],
    ),
    "MODEL_DIR is a file": (["--gin.MODEL_DIR=@/sums.jsonl"], ["sums.jsonl", "MODEL_DIR"]),
    "MODEL_DIR cannot be": (["--gin.MODEL_DIR=/dev/null/a"], ["/dev/null/a", "MODEL_DIR"]),
    "no initial checkpoint": (
        ["--gin.INITIAL_CHECKPOINT_PATH=/no/run"],
        ["/no/run", "checkpoints/<step>"],
    ),
    "empty mixture": (["--module=empty_mixture"], ["spoilt.none", "empty"]),
    "weight of zero": (["--module=zero_weight"], ["spoilt.zero", "spoilt.blank", "above 0"]),
    "mixture of nothing known": (["--module=unknown_child"], ["spoilt.summs", "spoilt.sums"]),
    "name that is taken": (["--module=taken_name"], ["spoilt.sums", "unique"]),
    "module that raises": (["--module=raises"], ["ZeroDivisionError", "raises.py, line 2"]),
    "module that is no Python": (["--module=no_python"], ["SyntaxError", "no_python.py, line 2"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_wrong_settings_of_training(case, folder, tmp_path, capsys):
    flags, words = WRONG_FLAGS[case]
    modules = f"{MODULE_FLAG},{folder}/spoilt_"
    flags = [
        f"{modules}{flag.removeprefix('--module=')}.py"
        if flag.startswith("--module=")
        else flag.replace("=@", f"={folder}")
        for flag in flags
    ]
    model_dir = tmp_path / "run"
    message = failure(capsys, "train", *train_flags(model_dir), *flags)
    assert all(word in message for word in words), message
    assert not checkpoint_steps(model_dir) and not (model_dir / "run.json").exists()


OTHER_MODES = {
    "no mode": ([], ["MODE"]),
    "unknown mode": (["trian"], ["trian", "train"]),
    "unknown flag of a mode": (["show", "--exampels=2"], ["--exampels=2"]),
    "all that is required, at once": (
        ["train", "--gin_file=gin/runs/train.gin", "--gin_file=gin/models/tiny_test.gin"],
        ["MIXTURE_OR_TASK_NAME", "MODEL_DIR", "TASK_FEATURE_LENGTHS", "--gin.TRAIN_STEPS=..."],
    ),
    "nothing to train": (["train"], ["gin/runs/train.gin"]),
    "no gin file": (["infer", "--gin.MODEL_DIR=a", "--prompt=b"], ["MODEL_DIR", "is --gin_file"]),
    "no gin file for two": (
        ["train", "--gin.MODEL_DIR=a", "--gin.TRAIN_STEPS=3"],
        ["nothing uses", "TRAIN_STEPS", "is --gin_file missing, such as gin/runs/train.gin"],
    ),
    "nothing to check": (["check"], ["--gin_file=gin/models"]),
    "nothing to prepare": (["prepare"], ["--mixture=NAME"]),
    "nothing to evaluate": (["eval"], ["gin/runs/eval.gin"]),
    "nothing to infer": (["infer"], ["gin/runs/infer.gin"]),
    "mesh text": (
        ["check", "--gin_file=gin/models/tiny_test.gin", "--mesh=4by64"],
        ["4by64", "4x64"],
    ),
    "mesh of nothing": (
        ["check", "--gin_file=gin/models/tiny_test.gin", "--mesh=0x4"],
        ["is 0", "at least 1"],
    ),
    "heads and a pod": (
        ["check", "--gin_file=gin/models/t5_1_1_small.gin", "--mesh=4x64"],
        ["num_heads = 6", "tensor = 64"],
    ),
    "unknown task to show": (["show", "--task=gym.chain_summ"], ["Did you mean 'gym.chain_sum'"]),
    "unknown split to show": (
        ["show", "--task=gym.chain_sum", "--split=dev"],
        ["'dev'", "test, train, validation"],
    ),
    "unknown category": (["show", "--category=algbra"], ["'algbra'", "algebra"]),
    "unknown mixture to prepare": (["prepare", "--mixture=gym.demoo"], ["'gym.demo'"]),
    "no run to evaluate": (
        ["eval", "--gin_file=gin/runs/eval.gin", "--gin.EVAL_MIXTURES=gym.demo"]
        + ["--gin.MODEL_DIR=/no/run"],
        ["/no/run", "no such folder"],
    ),
    "no run to infer with": (
        ["infer", "--gin_file=gin/runs/infer.gin", "--gin.MODEL_DIR=/no/run", "--prompt=a"],
        ["/no/run", "MODEL_DIR"],
    ),
    "no run to report": (["report", "--model_dir=/no/run"], ["/no/run", "no such folder"]),
    "report on something else": (["report", "--model_dir=@"], ["holds no run", "MODEL_DIR"]),
}


@pytest.mark.parametrize("case", OTHER_MODES)
def test_wrong_use_of_other_modes(case, folder, capsys):
    argv, words = OTHER_MODES[case]
    argv = [argument.replace("=@", f"={folder}") for argument in argv]
    message = failure(capsys, *argv)
    assert all(word in message for word in words), message


# Data files


def test_bad_lines_of_data_are_dropped_and_counted(folder, capsys):
    assert main(["prepare", "--mixture=spoilt.sums", "--json", MODULE_FLAG]) == 0
    train, validation = json.loads(capsys.readouterr().out)
    assert train["records"] == validation["records"] == NUM_GOOD
    assert train["dropped"] == {
        "empty answer": 1,
        "line is not a JSON object": 1,
        "text is not UTF-8": 1,
    }


def test_prepare_fails_for_the_tasks_that_cannot_be_built_only(folder, capsys):
    names = ["--mixture=spoilt.absent", "--mixture=spoilt.sums"]
    assert main(["prepare", *names, "--workers=1", MODULE_FLAG]) == 1
    out = capsys.readouterr().out
    assert (
        f"{folder}/absent.jsonl cannot be read (No such file or directory)" in out
        and "text is not UTF-8: 2" in out
    )
