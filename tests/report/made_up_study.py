"""Writes a study's folder with made-up results, as `run.py study` leaves it; for tests.

python tests/report/made_up_study.py OUT      writes three studies to look at
"""

import itertools
import json
import math
import pathlib
import random
import sys
from collections.abc import Mapping, Sequence

from instruct import results
from tests.report.made_up_suites import suite_tasks

TASK_COUNTS = ("1", "8", "24", "64", "96")
SIZES = {"small": 77e6, "base": 248e6}
SEEDS = ("0", "1", "2")
# Held-out distance -> how much a factor of ten in tasks adds to the log-odds of a right answer.
DISTANCES = {
    "unseen_instances": 1.4,
    "unseen_wordings": 1.0,
    "unseen_tasks": 0.4,
    "unseen_categories": 0.05,
}


def write_study_json(
    folder: pathlib.Path,
    axes: Mapping[str, Sequence[str]],
    runs: Sequence[Mapping[str, str]],
    x_axis: str,
    only_eval: Sequence[Mapping[str, str]] = (),
    **fields: object,
) -> list[str]:
    """study.json; returns the runs' names."""
    names = [",".join(f"{axis}={label}" for axis, label in labels.items()) for labels in runs]
    stages = [["eval"] if labels in only_eval else ["train", "eval"] for labels in runs]
    content = {
        "title": "More finetuning tasks",
        "axes": {axis: list(labels) for axis, labels in axes.items()},
        "x_axis": x_axis,
        "seed_axis": "SEED" if "SEED" in axes else None,
        "papers": [],
        "protocol": "",
        "runs": [
            {"name": name, "labels": dict(labels), "stages": stage}
            for name, labels, stage in zip(names, runs, stages)
        ],
        "before": [],
        "recipe": ["gin/recipes/gym_small.gin"],
        "commit": "0123abcd",
        "time": "2026-01-02 10:00:00",
        **fields,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(content))
    return names


def write_state(folder: pathlib.Path, state: str = "done", **fields: object) -> pathlib.Path:
    """A run's study_run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"state": state, "stage": "eval", "error": "", "seconds": 431.0, **fields}
    (folder / "study_run.json").write_text(json.dumps(content))
    return folder


def write_training(folder: pathlib.Path, parameters: float, steps: int = 500) -> None:
    """run.json, metrics.jsonl, mixture.json and operative.gin of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"num_params": int(parameters)}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": steps, "loss": 1.0}) + "\n")
    (folder / "mixture.json").write_text(json.dumps({"mixture": "gym", "leaves": []}))
    (folder / "operative.gin").write_text("train.train_steps = 500\n")


def write_suite(
    folder: pathlib.Path,
    suite: str,
    tasks: Mapping[str, Sequence[float]],
    step: int = 500,
    group: str = "held_out",
    modes: Sequence[str] = ("direct",),
    split: str = "test",
    **fields: object,
) -> None:
    """One results file; `tasks` are the scores (0 or 100) of each task's examples, in all modes."""
    path = folder / "eval" / suite / f"step_{step}" / results.FILE_NAME
    checkpoint = f"checkpoints/{step}"
    header = {"suite": suite, "step": step, "checkpoint": checkpoint, "settings": {}}
    rows: list[dict] = []
    for (task, scores), mode in itertools.product(tasks.items(), modes):
        family = task.partition(".")[0]
        shared: dict[str, object] = {
            "suite": suite,
            "task": task,
            "task_version": "1",
            "family": family,
        }
        shared |= {"category": family, "mode": mode, "split": split, "group": group}
        shared["step"] = step
        for index, score in enumerate(scores):
            row = {"kind": "example", **shared, "template": "plain", "index": index}
            row |= {"id": f"{task}-{index}", "prompt": f"Question {index}?", "target": "yes"}
            row |= {"prediction": "yes" if score else "no", "correct": score > 0}
            rows.append(row | {"scores": {"exact_match": score}})
        n, mean = len(scores), sum(scores) / len(scores)
        row = {"kind": "metric", **shared, "metric": "exact_match", "value": mean, "n": n}
        row |= {"stderr": math.sqrt(mean * (100 - mean) / (n - 1)), "baseline": 30.0}
        row |= {"random_baseline": 25.0, "checkpoint": checkpoint, "template_set": "gym"}
        row |= {"exemplars_mean": 0.0, "exemplars_min": 0, "exemplars_asked": 0.0}
        rows.append(row | {"decode": "greedy", **fields})
    with results.ResultsWriter(path, header) as writer:
        writer.write(rows)


def answers(tasks: Sequence[str], skill: float, seed: str, examples: int) -> dict[str, list[float]]:
    """Scores of examples; their difficulty is the same in all runs, chance is the seed's."""
    luck = random.Random(f"{seed} {skill}")
    shift = luck.gauss(0, 0.15)
    scores = {}
    for task in tasks:
        of_task = random.Random(task)
        level = skill + shift + of_task.gauss(0, 0.6)
        logits = [level + of_task.gauss(0, 1) for _ in range(examples)]
        scores[task] = [100.0 * (luck.random() < 1 / (1 + math.exp(-x))) for x in logits]
    return scores


def write_curves(
    folder: pathlib.Path,
    tasks_per_suite: int = 4,
    examples: int = 12,
    counts: Sequence[str] = TASK_COUNTS,
    papers: Sequence[str] = (),
    suites: Sequence[str] = (),
) -> pathlib.Path:
    """Five numbers of tasks x two sizes x three seeds; two runs failed and one is missing."""
    axes = {"tasks": counts, "size": tuple(SIZES), "SEED": SEEDS}
    runs = [
        {"tasks": count, "size": size, "SEED": seed}
        for count in counts
        for size in SIZES
        for seed in SEEDS
    ]
    protocol = "A T5 of 77M or 248M on generated tasks; the paper's PaLM has 8B to 540B."
    names = write_study_json(folder, axes, runs, "tasks", papers=list(papers), protocol=protocol)
    for number, (name, labels) in enumerate(zip(names, runs)):
        run = folder / name
        if number == 10:
            continue  # missing
        if number in (4, 25):
            error = "RuntimeError: out of memory\nwhile step 12" if number == 4 else ""
            write_state(run, "failed", stage="train", error=error, seconds=12.0)
            continue
        write_state(run)
        write_training(run, SIZES[labels["size"]])
        growth = math.log10(1 + float(labels["tasks"]))
        size = 0.0 if labels["size"] == "small" else 0.4
        for suite, gain in DISTANCES.items():
            tasks = [f"gym.{suite}_{n}" for n in range(tasks_per_suite)]
            skill = -1.5 + gain * growth + size
            write_suite(run, suite, answers(tasks, skill, labels["SEED"], examples))
        for suite in suites:
            chosen = suite_tasks((suite,))
            skill = -0.9 + 0.3 * growth + size
            scores = answers([row[1] for row in chosen], skill, labels["SEED"], examples)
            _, _, mode, split, _ = chosen[0]
            write_suite(run, suite, scores, modes=(mode,), split=split, exemplars_asked=3.0)
    return folder


def write_categories(folder: pathlib.Path, examples: int = 30) -> pathlib.Path:
    """What each method adds: four mixtures, one of them only evaluated, and two seeds."""
    mixtures = ("Flan 2022", "minus CoT", "minus input inversion", "not trained")
    axes = {"mixture": mixtures, "SEED": SEEDS[:2]}
    runs = [{"mixture": m, "SEED": seed} for m in mixtures for seed in SEEDS[:2]][:-1]
    names = write_study_json(
        folder,
        axes,
        runs,
        "mixture",
        only_eval=runs[-1:],
        title="What each method adds",
        papers=["flan_collection.1"],
    )
    skills: dict[str, float] = dict(zip(mixtures, (0.6, 0.1, 0.5, -1.5)))
    for name, labels in zip(names, runs):
        run = write_state(folder / name)
        write_training(run, 248e6)
        for suite in ("unseen_tasks", "bbh.direct"):
            tasks = [row[1] for row in suite_tasks((suite,))] or ["gym.a", "gym.b", "gym.c"]
            scores = answers(tasks, skills[labels["mixture"]], labels["SEED"], examples)
            write_suite(run, suite, scores, exemplars_mean=3.0, exemplars_asked=3.0)
    return folder


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    paper = {"papers": ("flan_palm.3",), "suites": ("bbh.direct", "mmlu.direct")}
    write_curves(out / "curves", counts=("0", "9", "89", "282", "1836"), examples=25, **paper)
    write_curves(out / "distances", examples=40)
    write_categories(out / "categories")
