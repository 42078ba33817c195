"""Results of the papers' suites with made-up numbers, in run folders as a real run leaves them.

python tests/report/made_up_suites.py OUT      writes six runs to look at: sizes, tasks, an ablation
"""

import json
import pathlib
import random
import sys

from instruct import results
from instruct.report.papers import normalized
from tests.report.made_up_run import write_run

MMLU = tuple(f"subject_{number:02d}" for number in range(57))
HELD_IN = ("bool_q", "arc_easy", "arc_challenge", "anli_r1", "anli_r2", "anli_r3", "rte", "ai2")


def suite_tasks(parts: tuple[str, ...] = ()) -> list[tuple[str, str, str, str, str]]:
    """(suite, task, mode, split, metric) of every suite, or of those named."""
    bbh = tuple(normalized.BBH_LOWER_BOUNDS)
    made = [
        *(("mmlu.direct", f"mmlu.{name}", "direct", "validation", "exact_match") for name in MMLU),
        *(("mmlu.cot", f"mmlu.{name}", "cot", "validation", "exact_match") for name in MMLU),
        *(("bbh.direct", f"bbh.{name}", "direct", "test", "exact_match") for name in bbh),
        *(("bbh.cot", f"bbh.{name}", "cot", "test", "exact_match") for name in bbh),
        *(
            ("tydiqa", f"tydiqa.{name}", "direct", "validation", "em")
            for name in (*normalized.SUB_TASKS["tydiqa"], "en")
        ),
        *(
            ("mgsm", f"mgsm.{name}", "cot", "test", "number_match")
            for name in (*normalized.SUB_TASKS["mgsm"], "en")
        ),
        *(
            ("held_in", f"flan2021.{name}", mode, "validation", "exact_match")
            for name in HELD_IN
            for mode in ("zs_opt", "fs_opt")
        ),
    ]
    return [row for row in made if not parts or row[0] in parts]


def add_suites(
    folder: pathlib.Path,
    level: float = 40.0,
    steps: tuple[int, ...] = (2000,),
    parts: tuple[str, ...] = (),
    seed: int = 0,
    examples: int = 0,
    spread: float = 8.0,
    limit: int | None = None,
) -> pathlib.Path:
    """Writes results of the suites into a run's folder: scores about `level` that grow by step."""
    rng = random.Random(seed)
    chosen = suite_tasks(parts)
    for place, step in enumerate(steps):
        share = (place + 2) / (len(steps) + 1)
        for suite in dict.fromkeys(row[0] for row in chosen):
            path = folder / "eval" / suite / f"step_{step}" / results.FILE_NAME
            header = {"suite": suite, "step": step, "checkpoint": f"checkpoints/{step}"}
            header["settings"] = {"num_examples": limit, "decode": "greedy"}
            rows: list[dict] = []
            for _, task, mode, split, metric in (row for row in chosen if row[0] == suite):
                value = min(100.0, max(0.0, level * share + rng.uniform(-spread, spread)))
                rows += _rows(rng, (suite, task, mode, split), step, metric, value, examples)
            with results.ResultsWriter(path, header) as writer:
                writer.write(rows)
    return folder


def _rows(
    rng: random.Random,
    names: tuple[str, str, str, str],
    step: int,
    metric: str,
    value: float,
    examples: int,
) -> list[dict]:
    suite, task, mode, split = names
    family = task.split(".")[0]
    shared = {"suite": suite, "task": task, "task_version": "1.0.0", "family": family}
    shared |= {"category": family, "mode": mode, "split": split, "step": step}
    shared |= {"group": "held_in" if suite == "held_in" else "held_out"}
    rows: list[dict] = []
    for index in range(examples):
        right = rng.random() * 100 < value
        row = {"kind": "example", **shared, "template": "plain", "index": index}
        row |= {"id": f"{task}-{index}", "prompt": f"Question {index}?", "target": "yes"}
        row |= {"prediction": "yes" if right else "no", "correct": right}
        rows.append(row | {"scores": {metric: 100.0 * right}})
    row = {"kind": "metric", **shared, "metric": metric, "value": value, "n": examples or 100}
    row |= {"stderr": 4.0, "baseline": 25.0, "checkpoint": f"checkpoints/{step}"}
    row |= {"exemplars_mean": 5.0, "exemplars_min": 5, "exemplars_asked": 5.0}
    return [*rows, row | {"template_set": "published", "decode": "greedy"}]


def set_size(folder: pathlib.Path, parameters: float) -> None:
    """Sets the number of parameters in a run's run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_params": int(parameters)}))


def write_family(out: pathlib.Path) -> list[pathlib.Path]:
    """Six runs: three sizes, two of them on fewer tasks, and one ablation, with all suites."""
    made = []
    for name, tasks, size, level in (
        ("small", 24, 77e6, 30.0),
        ("small_9_tasks", 9, 77e6, 20.0),
        ("base", 24, 248e6, 38.0),
        ("base_9_tasks", 9, 248e6, 26.0),
        ("large", 24, 783e6, 46.0),
        ("large_no_cot", 20, 783e6, 41.0),
    ):
        steps = 2000
        folder = write_run(out / name, seed=len(made), num_tasks=tasks, steps=steps)
        set_size(folder, size)
        add_suites(folder, level, (500, 1000, 2000), seed=len(made), examples=20)
        made.append(folder)
    return made


if __name__ == "__main__":
    write_family(pathlib.Path(sys.argv[1]))
