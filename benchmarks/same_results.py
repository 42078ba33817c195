"""Compares what two commits compute: stores, plans, the demo's parameters and its results.

python benchmarks/same_results.py OLD NEW --data ../shared/data [--steps 600]

Each commit is checked out into a temporary folder and runs in a process of its own, with its own
code and gin files: the demo (`gin/recipes/gym_demo.gin`: stores, training, evaluation) and two
steps of `public.sample`. Both run on the same machine, so equal means equal to the last bit.
Prints one line for each item; exits with 1 if one differs.
"""

import argparse
import functools
import hashlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLAN_EXAMPLES = 10_000
# Where `make_builder`, which makes the plan of a run, has been; the first that exists is used.
BUILDERS = ("instruct.data.feed.leaves", "instruct.data.feed_leaves")
CALLERS = ("instruct.data.feed.pipeline", "instruct.data.pipeline")


def digest(data: bytes) -> str:
    """The first 16 hex digits of a SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def first_module(names: tuple[str, ...]):
    """The first module of `names` that this commit has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"this commit has none of {', '.join(names)}: add where `make_builder` is now")


def run(*arguments: str) -> None:
    """Runs one mode of the commit's own command line in this process."""
    from instruct.cli.arguments import main

    status = main(arguments)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: exit status {status}")


def record_plans(plans: list[str]) -> None:
    """Makes every training feed that is built from now on append a hash of its plan to `plans`."""
    module, caller = first_module(BUILDERS), first_module(CALLERS)
    original = module.make_builder

    @functools.wraps(original)
    def recording(*args, **kwargs):
        result = original(*args, **kwargs)
        rows = result[0].plan.examples(0, PLAN_EXAMPLES)
        names = [leaf.name for leaf in result[1]]
        plans.append(digest(repr(names).encode() + b"".join(row.tobytes() for row in rows)))
        return result

    module.make_builder = recording
    if hasattr(caller, "make_builder"):
        caller.make_builder = recording


def probe(folder: pathlib.Path, data: str, steps: int) -> dict[str, str]:
    """Runs the demo and `public.sample` with the code of the current folder; item -> hash."""
    plans: list[str] = []
    record_plans(plans)
    items = {}
    runs = {
        "gym.demo": ("gin/recipes/gym_demo.gin", f"--gin.TRAIN_STEPS={steps}"),
        "public.sample": ("gin/recipes/public_sample.gin", "--gin.TRAIN_STEPS=2"),
    }
    for name, (gin_file, *flags) in runs.items():
        model_dir, store_dir = folder / name, folder / f"stores.{name}"
        common = (f"--gin_file={gin_file}", f"--gin.MODEL_DIR={model_dir}")
        common += (f"--gin.STORE_DIR={store_dir}", f"--gin.DATA_DIR={data}")
        plans.clear()
        run("train", *common, *flags)
        items[f"{name}: first {PLAN_EXAMPLES:,} plan entries"] = plans[0]
        stores = [
            (str(path.relative_to(store_dir)), digest(path.read_bytes()))
            for path in sorted(store_dir.rglob("*"))
            if path.name in ("manifest.json", "records.array_record")
        ]
        count = sum(path.endswith("manifest.json") for path, _ in stores)
        items[f"{name}: {count} stores, records and manifests"] = digest(repr(stores).encode())
        run("convert", f"--from={model_dir}", f"--to={folder / 'weights' / name}")
        weights = (folder / "weights" / name / "model.safetensors").read_bytes()
        items[f"{name}: parameters after training, {len(weights):,} bytes"] = digest(weights)
        losses = [json.loads(line) for line in (model_dir / "metrics.jsonl").open()]
        losses = [
            {key: value for key, value in row.items() if key == "step" or "loss" in key}
            for row in losses
        ]
        items[f"{name}: losses of {len(losses)} logged steps"] = digest(repr(losses).encode())
    model_dir = folder / "gym.demo"
    common = ("--gin_file=gin/recipes/gym_demo.gin", f"--gin.MODEL_DIR={model_dir}")
    run("eval", *common, f"--gin.STORE_DIR={folder / 'stores.gym.demo'}", f"--gin.DATA_DIR={data}")
    for path in sorted((model_dir / "eval").rglob("results.jsonl")):
        lines = [json.loads(line) for line in path.open()]
        kept = [line for line in lines if line["kind"] in ("example", "metric")]
        for line in kept:
            line.pop("checkpoint", None)  # a path, of a temporary folder here
        name = f"{path.parent.parent.name}: {len(kept):,} examples and metrics of results.jsonl"
        items[name] = digest("\n".join(json.dumps(k, sort_keys=True) for k in kept).encode())
    return items


def probe_commit(commit: str, folder: pathlib.Path, data: str, steps: int) -> dict[str, str]:
    """`probe` in a checkout of `commit`."""
    checkout, output = folder / "checkout", folder / "items.json"
    git = ("git", "-C", str(ROOT))
    subprocess.run([*git, "worktree", "add", "-q", "--detach", checkout, commit], check=True)
    try:
        command = [sys.executable, __file__, "--probe", str(output), "--data", data]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        with (folder / "log.txt").open("w") as log:
            done = subprocess.run(
                [*command, "--steps", str(steps)],
                cwd=checkout,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            raise SystemExit(f"{commit}:\n" + (folder / "log.txt").read_text()[-3000:])
        return json.loads(output.read_text())
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", checkout], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commits", nargs="*", help="two commits")
    parser.add_argument("--data", required=True, help="folder with the public files")
    parser.add_argument("--steps", type=int, default=600, help="of the demo's training")
    parser.add_argument("--folder", type=pathlib.Path, help="keep what the runs wrote here")
    parser.add_argument("--probe", type=pathlib.Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    data = str(pathlib.Path(flags.data).resolve())
    if flags.probe:
        sys.path.insert(0, os.getcwd())
        items = probe(flags.probe.parent, data, flags.steps)
        flags.probe.write_text(json.dumps(items))
        return 0
    old, new = flags.commits
    with tempfile.TemporaryDirectory() as temporary:
        sides = []
        for name, commit in (("old", old), ("new", new)):
            folder = (flags.folder or pathlib.Path(temporary)).resolve() / name
            folder.mkdir(parents=True)
            sides.append(probe_commit(commit, folder, data, flags.steps))
    differing = 0
    for item in {**sides[0], **sides[1]}:
        first, second = (side.get(item, "absent") for side in sides)
        same = first == second
        differing += not same
        print(f"{'same' if same else 'DIFFERS':8}{first:18}{'' if same else second:18}{item}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
