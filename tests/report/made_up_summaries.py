"""Writes evaluations of summaries with made-up dialogues, for pages that compare models.

python -m tests.report.made_up_summaries OUT     writes OUT/before, OUT/after and more to look at
"""

import pathlib
import random
import sys
from collections.abc import Mapping

from instruct import results
from tests.report.made_up_run import HOSTILE
from tests.results_text import without_checksums

PEOPLE = ("Laura", "Samir", "Ms. Okafor", "Victor", "Agnes")
PLACES = ("Lisbon", "the Grand Hotel", "Toronto", "Park Avenue")
TIMES = ("half past six", "ten o'clock", "Friday", "the third of June")


def summary_rows(skill: float, seed: int = 0, n: int = 24) -> list[dict]:
    """Example lines, right with probability `skill`; always about the same dialogues."""
    rows = []
    for index in range(n):
        chance = random.Random(1000 * seed + index)
        facts = random.Random(index)
        person, place, time = (facts.choice(group) for group in (PEOPLE, PLACES, TIMES))
        cost = facts.randrange(20, 90)
        dialogue = (
            f"#Person1#: Shall we meet {person} in {place}?\n#Person2#: Yes, {time} suits me. The "
            f"tickets are {cost} dollars."
        )
        good = f"They meet {person} in {place}, {time}. Tickets cost ${cost}."
        bad = f"They meet Roderick in Bombay on Tuesday. {chance.randrange(3, 9)} friends come."
        right = chance.random() < skill
        score = chance.uniform(55, 95) if right else chance.uniform(5, 30)
        if index == 0:
            dialogue, bad = f"{dialogue}\n{HOSTILE}", f"{bad} {HOSTILE}"
        references = [good, f"{person} is met in {place}. They pay {cost} dollars."]
        row = {"template": "t", "index": index, "id": f"made-up-{index}", "target": good}
        row |= {"prompt": f"Summarise.\n\n{dialogue}", "prediction": good if right else bad}
        row |= {"source": dialogue, "references": references, "correct": None}
        rows.append(row | {"scores": {"rouge1": score + 3, "rougeL": score}})
    return rows


def write_evaluation(
    folder: pathlib.Path,
    tasks: Mapping[str, list[dict]],
    suite: str = "dialogsum",
    step: int = 0,
    group: Mapping[str, str] | str = "held_out",
    **fields: object,
) -> pathlib.Path:
    """A results file of tasks with example lines; metrics are their means; `fields` replace."""
    path = folder / "eval" / suite / f"step_{step}" / results.FILE_NAME
    checkpoint = str(folder / "checkpoints" / str(step))
    settings = {"num_examples": 24, "seed": 0, "decode": fields.get("decode", "greedy")}
    header = {"suite": suite, "step": step, "checkpoint": checkpoint, "settings": settings}
    with results.ResultsWriter(path, header) as writer:
        for task, examples in tasks.items():
            shared = {"suite": suite, "task": task, "task_version": "1", "family": "made_up"}
            shared |= {"category": "c", "mode": "zs_noopt", "split": "test", "step": step}
            shared["group"] = group if isinstance(group, str) else group.get(task, "held_out")
            lines = [{"kind": "example", **shared, **row} for row in examples]
            for metric in examples[0]["scores"]:
                values = [row["scores"][metric] for row in examples]
                row = {"kind": "metric", **shared, "metric": metric, "n": len(values)}
                row |= {"value": sum(values) / len(values), "stderr": 2.0, "baseline": None}
                row |= {"checkpoint": checkpoint, "template_set": "t", "decode": "greedy"}
                lines.append(row | fields)
            writer.write(lines)
    path.write_text(without_checksums(path))  # tests change it
    return path


def plain_rows(values: list[float], metric: str = "exact_match") -> list[dict]:
    """Example lines with these scores, and nothing else of interest."""
    row = {"template": "t", "prompt": "p", "target": "x", "prediction": "y", "correct": None}
    return [
        row | {"index": index, "id": str(index), "scores": {metric: value}}
        for index, value in enumerate(values)
    ]


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    write_evaluation(out / "before", {"dialogsum.main": summary_rows(0.2)})
    after = {"dialogsum.main": summary_rows(0.8, seed=1)}
    write_evaluation(out / "after", after, step=500, group="held_in")
