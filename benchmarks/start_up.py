"""Start-up: what each command costs before and while it does its first piece of work.

    PYTHONPATH=. python benchmarks/start_up.py [--repeats=3] [--checkout=OTHER] [--folder=FOLDER]

Prepares the stores of `lists.counting` and trains one step of a model of one million parameters,
then runs, each `--repeats` times in a process of its own and in turns:

    show      run.py show --task=lists.count_animals: one prompt of a task from its table
    train     one step of the prepared mixture, its compilation and its checkpoint
    cached    the same with the compiled step in COMPILATION_CACHE_DIR
    eval      one example of one task with the checkpoint, decoding compiled
    infer     one --prompt with the checkpoint, decoding compiled

and prints the least seconds, CPU seconds (user and system, what a busy machine changes least) and
peak memory of the process, the number of its Python modules, which of the heavy packages it
imported, and how many lines it wrote to standard error. The last line has the least figures as
JSON.

--checkout measures another working copy, such as that of an earlier version.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "seqio", "jax", "flax", "optax", "orbax", "transformers", "tensorboardX")
# Runs a command as run.py does, then writes what the process imported and needed.
_CHILD = """
import json, resource, sys
from instruct.cli.arguments import main
status = main(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_SELF)
facts = {"cpu": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss / 1024}
open(sys.argv[1], "w").write(json.dumps(facts | {"modules": sorted(sys.modules)}))
sys.stdout.flush()
import os
os._exit(status)
"""
_TRAIN = ("train", "--gin_file=gin/recipes/replica_counting.gin", "--gin.TRAIN_STEPS=1")


def run(checkout: pathlib.Path, folder: pathlib.Path, command: list[str]) -> dict[str, float | str]:
    """Runs one command; its figures by column. Raises SystemExit if it fails."""
    facts_file = folder / "facts.json"
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "INSTRUCT_STORE_DIR": str(folder / "stores"),
        "JAX_PLATFORMS": "cpu",
    }
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(facts_file), *command],
        **{"cwd": checkout, "env": environment, "capture_output": True, "text": True},
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    facts = json.loads(facts_file.read_text())
    return {
        "seconds": seconds,
        "CPU s": facts["cpu"],
        "MB": facts["mb"],
        "modules": len(facts["modules"]),
        "imports": " ".join(name for name in HEAVY if name in facts["modules"]),
        "stderr": len(done.stderr.splitlines()),
    }


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkout", type=pathlib.Path, default=ROOT)
    parser.add_argument("--folder", type=pathlib.Path, help="default: a temporary one, removed")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        checkout = flags.checkout.resolve()
        model_dir = f"--gin.MODEL_DIR={folder / 'trained'}"
        run(checkout, folder, ["prepare", "--mixture=lists.counting"])
        run(checkout, folder, [*_TRAIN, model_dir])
        suite = "--gin.EVAL_MIXTURES=lists.count_animals.zs_noopt"
        measured_run = f"--gin.MODEL_DIR={folder / 'measured'}"
        commands = {
            "show": ["show", "--task=lists.count_animals"],
            "train": [*_TRAIN, measured_run],
            "cached": [*_TRAIN, measured_run, f"--gin.COMPILATION_CACHE_DIR={folder / 'compiled'}"],
            "eval": ["eval", _TRAIN[1], suite, "--limit=1", model_dir],
            "infer": [
                *("infer", "--gin_file=gin/runs/infer.gin", "--gin.MAX_DECODE_STEPS=8"),
                *("--prompt=List: goats, birds, crabs\nHow many items are there?", model_dir),
            ],
        }
        rows: dict[str, list[dict[str, float | str]]] = {name: [] for name in commands}
        for _ in range(flags.repeats):
            for name, command in commands.items():
                for leftover in ("measured", "trained/eval"):
                    shutil.rmtree(folder / leftover, ignore_errors=True)
                rows[name].append(run(checkout, folder, command))
        leasts = {}
        print("command  seconds  CPU s     MB  modules  stderr  imports")
        for name, own in rows.items():
            least = leasts[name] = {
                key: min(row[key] for row in own) for key in ("seconds", "CPU s", "MB")
            }
            print(
                f"{name:7s}  {least['seconds']:7.2f}  {least['CPU s']:5.2f}  {least['MB']:5.0f}  "
                f"{own[-1]['modules']:7d}  {own[-1]['stderr']:6d}  {own[-1]['imports']}",
                flush=True,
            )
        print(json.dumps(leasts))


if __name__ == "__main__":
    main()
