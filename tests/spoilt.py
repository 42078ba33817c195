"""Files with some spoilt lines and a run over them, for the tests of what goes wrong."""

import json
import pathlib

from instruct.cli.arguments import main

MODULE_FLAG = "--gin.MIXTURE_OR_TASK_MODULE=tests.spoilt_tasks"
NUM_GOOD = 37


def write_files(folder: pathlib.Path) -> None:
    """Data: 40 sums of which 37 are good, and a file of nothing good."""
    lines = [json.dumps({"q": f"{i} + 1 = ?", "a": str((i + 1) % 7)}).encode() for i in range(40)]
    lines[3] = b'{"q": "caf\xe9 + 1 = ?", "a": "1"}'
    lines[5] = b'{"q": "what?", "a": " "}'
    lines[7] = b'{"q": '
    (folder / "sums.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "blank.jsonl").write_text('{"q": "what?", "a": ""}\n')


def train_flags(model_dir: pathlib.Path) -> list[str]:
    """A run of two small steps on eight fake devices, with nothing wrong."""
    return [
        "--gin_file=gin/runs/train.gin",
        "--gin_file=gin/models/tiny_test.gin",
        MODULE_FLAG,
        "--gin.MIXTURE_OR_TASK_NAME=spoilt.sums",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 8}",
        "--gin.BATCH_SIZE=8",
        "--gin.VOCABULARY=bytes",
        "--gin.TRAIN_STEPS=2",
        f"--gin.MODEL_DIR={model_dir}",
        "--gin.DataConfig.window_examples=32",
        "--gin.checkpoint.CheckpointConfig.save_every_steps=1",
        "--gin.ModelConfig.num_encoder_layers=1",
        "--gin.ModelConfig.num_decoder_layers=1",
        "--gin.loop.train.eval_every_steps=None",
        "--gin.loop.train.trackers=()",
    ]


def failure(capsys, *argv: str, status: int = 2) -> str:
    """Runs the program, which must fail with that status and one message; returns the message."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    out, err = capsys.readouterr()
    assert code == status, out + err
    assert "Traceback" not in out + err
    assert (out + err).count("error: ") == 1, out + err
    return err.partition("error: ")[2]
