"""Writes run folders with the files of a real run and made-up numbers; for the report's tests.

python tests/report/made_up_run.py OUT [NUM_TASKS]     writes OUT/first and OUT/second to look at
"""

import json
import math
import pathlib
import random
import sys

from instruct import results

CATEGORIES = {
    "arithmetic": "held_in",
    "algebra": "held_in",
    "algorithmic": "held_in",
    "code_and_language_games": "held_in",
    "logic": "held_out",
    "geometry": "held_out",
}
GOODPUT = {"steps": 0.9, "input_wait": 0.01, "compilation": 0.03, "checkpoints": 0.02}
GOODPUT |= {"evaluation": 0.02, "restarts": 0.0, "other": 0.02}
HOSTILE = (
    'Say <script>alert("x")</script> & "quote" `code` | pipe\n<img src="http://e.example/a.png">'
)


def write_run(
    folder: pathlib.Path,
    seed: int = 0,
    steps: int = 2000,
    num_tasks: int = 24,
    eval_steps: tuple[int, ...] = (1000, 2000),
    examples_per_task: int = 8,
    with_nan: bool = False,
) -> pathlib.Path:
    """A whole run folder; `num_tasks` tasks are spread over the categories."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(CATEGORIES)
    tasks = [(f"gym.task_{i:04d}", names[i % len(names)]) for i in range(num_tasks)]
    _write_info(folder, steps, seed)
    _write_metrics(folder, rng, steps, with_nan)
    _write_mixture(folder, rng, [t for t in tasks if CATEGORIES[t[1]] == "held_in"])
    for step in eval_steps:
        _write_results(folder, rng, tasks, step, examples_per_task)
    return folder


def _write_info(folder: pathlib.Path, steps: int, seed: int) -> None:
    info = {
        "command_line": f"run.py train --gin_file=gin/recipes/demo.gin --gin.SEED={seed}",
        "start": "2026-01-02 10:00:00",
        "end": "2026-01-02 10:04:31",
        "commit": "0123abcd",
        "device": "cpu x 8",
        "matmul_peak_gflops": 154.2,
        "versions": {"python": "3.11.9", "jax": "0.10.2", "flax": "0.12.8", "seqio": "0.0.20"},
        "model": {"d_model": 128, "num_encoder_layers": 2, "dropout_rate": 0.0},
        "num_params": 2_734_080,
        "config": {"optimizer.learning_rate": 0.001, "data.packing": "best_fit"},
        "sessions": [{"start": "2026-01-02 10:00:00", "from_step": 0}],
    }
    (folder / "run.json").write_text(json.dumps(info))
    gin = f"# Parameters for train:\ntrain.train_steps = {steps}\ntrain.seed = {seed}\n"
    (folder / "operative.gin").write_text(gin + 'DataConfig.mixture = "gym.demo"\n')


def _write_metrics(folder: pathlib.Path, rng: random.Random, steps: int, with_nan: bool) -> None:
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1, 10) if steps > 1 else [1]:
            loss = 1.1 + 4.2 * math.exp(-step / 300) + rng.gauss(0, 0.05)
            row = {"step": step, "loss": loss, "accuracy": 0.85 - loss / 8, "learning_rate": 1e-3}
            row |= {"gradient_norm": 0.4 + rng.random() / 5, "real_tokens_per_sec": 21000.0}
            row["real_tokens_per_sec"] += rng.gauss(0, 900)
            row |= {"padding_share": 0.08 + rng.random() / 50, "step_secs": 0.11}
            row |= {"peak_share": 0.41 + rng.gauss(0, 0.01), "examples": step * 60}
            row |= {f"goodput/{kind}": share for kind, share in GOODPUT.items()}
            for place, name in enumerate(CATEGORIES):
                row[f"loss/{name}"] = loss * (0.6 + 0.2 * place)
            if step % 100 == 1 and step > 1:
                row["eval/loss"] = loss + 0.1
                row["eval/accuracy"] = 0.83 - loss / 8
            if with_nan and step > steps * 0.8:
                row["loss"] = math.nan
            file.write(json.dumps(row) + "\n")


def _write_mixture(folder: pathlib.Path, rng: random.Random, tasks: list[tuple[str, str]]) -> None:
    leaves = []
    for name, category in tasks:
        leaf = {"name": f"{name}.zs_noopt", "task": name, "family": "gym", "category": category}
        asked = 1.0 / max(len(tasks), 1)
        leaf |= {"mode": "zs_noopt", "asked": asked, "realised": asked * rng.uniform(0.97, 1.03)}
        leaf |= {"examples": 4000, "dropped": 12, "truncated": 3, "tokens": 310_000}
        leaves.append(leaf)
    reasons = {"inputs longer than 256 tokens": 120, "empty targets": 4}
    mixture = {"mixture": "gym.demo", "leaves": leaves, "dropped_reasons": reasons}
    (folder / "mixture.json").write_text(json.dumps(mixture))


def _write_results(
    folder: pathlib.Path, rng: random.Random, tasks: list[tuple[str, str]], step: int, n: int
) -> None:
    path = folder / "eval" / "gym.demo_eval" / f"step_{step}" / results.FILE_NAME
    checkpoint = str(folder / "checkpoints" / str(step))
    header = {"suite": "gym.demo_eval", "step": step, "checkpoint": checkpoint}
    rows: list[dict] = []
    with results.ResultsWriter(path, header | {"settings": {"num_examples": n}}) as writer:
        for name, category in tasks:
            shared = {
                "suite": "gym.demo_eval",
                "task": name,
                "task_version": "1",
                "family": "gym",
                "category": category,
                "mode": "zs_noopt",
                "split": "test",
                "group": CATEGORIES[category],
                "step": step,
            }
            skill = rng.uniform(30, 90) if CATEGORIES[category] == "held_in" else rng.uniform(0, 25)
            rows += [_example(rng, shared, index, skill) for index in range(n)]
            for metric, value in (("exact_match", skill), ("f1", min(100.0, skill + 5))):
                row = {"kind": "metric", **shared, "metric": metric, "value": value, "n": n}
                row |= {"stderr": rng.uniform(2, 5), "baseline": rng.uniform(2, 25)}
                row |= {"checkpoint": checkpoint, "template_set": "gym", "decode": "greedy"}
                rows.append(row)
        failed = shared | {"task": "gym.broken", "error": "KeyError: 'answer'"}
        writer.write([*rows, {"kind": "failure", **failed, "checkpoint": checkpoint}])


def _example(rng: random.Random, shared: dict, index: int, skill: float) -> dict:
    a, b = rng.randrange(100), rng.randrange(100)
    right = rng.random() * 100 < skill
    prompt = HOSTILE if index == 0 else f"Work out the sum and give only the number.\n\n{a} + {b} ="
    row = {"kind": "example", **shared, "template": "gym/plain_3", "index": index}
    row |= {"id": f"test-{index}", "prompt": prompt, "target": str(a + b), "correct": right}
    row["prediction"] = str(a + b) if right else str(a + b + 10) * (40 if index == 1 else 1)
    return row | {"scores": {"exact_match": 100.0 * right, "f1": 100.0 * right}}


if __name__ == "__main__":
    out, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24
    write_run(out / "first", seed=0, num_tasks=count)
    write_run(out / "second", seed=1, num_tasks=count, with_nan=True)
