"""Your own metric: a function of targets and predictions, beside ROUGE on a file of dialogues.

python examples/own_metric.py [MODEL_DIR]            # of own_task.py by default
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence

import instruct

ROWS = [
    {
        "dialogue": f"Mia: Hello, shall I bring {thing}?\nSara: Yes, on {day}.",
        "summary": f"Mia will bring {thing} on {day}.",
    }
    for thing in ("the keys", "bread", "a lamp", "two tickets")
    for day in ("Monday", "Friday", "Sunday")
]


def brevity(
    targets: Sequence[str | Sequence[str]], predictions: Sequence[str]
) -> Mapping[str, float]:
    """Per cent of answers of at most ten words. Values are 0 to 100, means over examples.

    Evaluation calls it with all examples, then with each one for the standard error.
    """
    short = [len(prediction.split()) <= 10 for prediction in predictions]
    return {"at_most_ten_words": 100.0 * sum(short) / len(short)}


def main(model_dir: str | pathlib.Path = "runs/example") -> None:
    """Evaluates a run on the file's held-out rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "dialogues.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        task = instruct.TaskFile(
            data=str(path),
            name="example.dialogues",
            inputs=("dialogue",),
            targets="summary",
            templates=("Summarize: {dialogue}",),
            held_out_share=0.5,
            metric="rouge",
        )
        name = instruct.add_task(task, metric_fns=[brevity])
        (result,) = instruct.evaluate_model(model_dir, name)
    print(result)
    example = next(result.examples())
    print(f"{example['prompt']}\n-> {example['prediction']}\n   {example['scores']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
