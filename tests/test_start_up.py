"""What commands import: TensorFlow and SeqIO not at all where records are prepared, and of the
task tables the families that are named. Whoever imports SeqIO later finds every task there."""

import json
import os
import subprocess
import sys

import pytest

from tests.xla_flags import QUICK_COMPILATION

COMMANDS = """
import fnmatch, json, sys
from instruct.cli.arguments import main
from instruct.cli.settings import TASK_MODULES

leaf, (folder,) = "lists.count_animals.zs_noopt", sys.argv[1:]
tiny = ["--gin_file=gin/recipes/replica_counting.gin", "--gin.TRAIN_STEPS=1", "--gin.BATCH_SIZE=2",
        f"--gin.MIXTURE_OR_TASK_NAME={leaf}", f"--gin.EVAL_MIXTURES={leaf}",
        f"--gin.MODEL_DIR={folder}/run", "--gin.loop.train.num_eval_examples=0",
        "--gin.EvalConfig.rank_options=False", "--gin.DataConfig.window_examples=32",
        *(f"--gin.ModelConfig.{side}_layers=1" for side in ("num_encoder", "num_decoder"))]
modes = {
    "prepare": [f"--mixture={leaf}", "--workers=1", "--report_examples=0"],
    "show": [f"--task={leaf}"],
    "train": tiny,
    "eval": [*tiny, "--limit=1"],
    "infer": ["--gin_file=gin/runs/infer.gin", tiny[5], "--prompt=a", "--gin.MAX_DECODE_STEPS=2"],
}
imported = {}
for mode, flags in modes.items():
    assert main([mode, *flags]) == 0, mode
    imported[mode] = sorted({"tensorflow", "seqio", "torch", *TASK_MODULES} & set(sys.modules))

from instruct.data import registry

assert registry.find_spec(registry.Workspace(), "flan2021.bool_q").family == "flan2021"
imported["flan2021"] = sorted(TASK_MODULES.keys() & set(sys.modules))
names = {*registry._leaves, *registry._mixtures}
outside = {"before": sorted({name.partition(".")[0] for name in names} - {"lists", "flan2021"})}
for module, families in TASK_MODULES.items():  # each registers names of its declared families only
    __import__(module)
    own = {*registry._leaves, *registry._mixtures} - names
    names |= own
    firsts = {name.partition(".")[0] for name in own}
    outside[module] = [n for n in firsts if not any(fnmatch.fnmatchcase(n, f) for f in families)]

import seqio

registered = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
missing = sorted(names - registered)
rates = seqio.MixtureRegistry.get("lists.counting").rate_per_task_name
print(json.dumps([imported, outside, missing, len(names), sum(rates.values())]))
"""


@pytest.mark.slow(secs=20)
def test_commands_import_what_they_need_and_seqio_gets_every_task(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(tmp_path)],
        env=os.environ
        | {
            "INSTRUCT_STORE_DIR": str(tmp_path / "stores"),
            "PYTHONPATH": os.getcwd(),
            "XLA_FLAGS": QUICK_COMPILATION,  # one device
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    imported, outside, missing, number, total = json.loads(lines[-1])
    lists = ["tasks.lists.mixtures"]
    assert imported == {
        **dict.fromkeys(("prepare", "show", "train", "eval", "infer"), lists),
        "flan2021": ["tasks.flan2021.family", *lists],
    }
    assert not any(outside.values()) and not missing and number > 10_000
    assert total == pytest.approx(1)
    # Nothing of a library's own on the terminal.
    noise = ("tensorflow", "oneDNN", "cuda", "WARNING: All log")
    assert not [line for line in done.stderr.splitlines() if any(word in line for word in noise)]
