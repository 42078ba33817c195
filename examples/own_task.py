"""Your own task in Python: records, wordings and a metric; a tiny model is trained and evaluated.

    python examples/own_task.py            # writes runs/example, which the other examples read

A task of a file of inputs and targets needs none of this: see lora.py and docs/your_data.md.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import instruct
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.template import Template, TemplateSet
from instruct.workspace import Workspace

PLACES = ("Oslo", "Lima", "Perth", "Cairo", "Quito", "Delhi", "Bergen", "Turin")
SKIES = {"rain": "wet", "drizzle": "wet", "a thunderstorm": "wet", "sunshine": "dry", "fog": "dry"}
TIMES = {"train": ("at dawn", "at noon", "all day"), "test": ("at night",)}


@dataclasses.dataclass(frozen=True)
class Weather:
    """A source is any class with these four members; files have ready ones (data/sources)."""

    splits: tuple[str, ...] = tuple(TIMES)

    def available(self, workspace: Workspace) -> str | None:
        return None  # or why it cannot be read here

    def fingerprint(self, workspace: Workspace) -> str:
        return "weather 1"  # changes when the records do

    def records(self, workspace: Workspace, split: str) -> Iterator[Record]:
        for place in PLACES:
            for sky, label in SKIES.items():
                for time in TIMES[split]:
                    text = f"{place}: {sky} {time}."
                    index = ("wet", "dry").index(label)
                    yield Record(text, {"text": text}, label, ("wet", "dry"), index)


WEATHER = TaskSpec(
    name="example.weather",
    family="example",
    dataset="weather",
    category="classification",
    source=Weather(),
    templates=TemplateSet(
        "example_weather",
        input_fields=("text",),
        zs_noopt=(
            Template("question", "{text}\n\nIs the day wet or dry?"),
            Template("report", "Weather report: {text}\nIn one word, wet or dry:"),
        ),
        zs_opt=(Template("choose", "{text}\nWhat kind of day is it?\n{options}"),),
    ),
    modes={"zs_noopt": 2.0, "zs_opt": 1.0},  # prompt styles and their shares
    metric_fns=(metrics.exact_match,),
)
# Of gin/models/tiny_test.gin; the rows are those of the vocabulary `gym`, the default.
SIZES: dict[str, Any] = {
    "config.ModelConfig.vocab_size": 6144,
    "config.ModelConfig.num_encoder_layers": 1,
    "config.ModelConfig.num_decoder_layers": 1,
}


def main(model_dir: str | pathlib.Path = "runs/example", steps: int = 200) -> None:
    """Trains a model of 430,816 parameters from scratch, and prints its scores."""
    instruct.train_model(
        ["gin/runs/train.gin", "gin/models/tiny_test.gin"],
        model_dir,
        MIXTURE_OR_TASK_NAME=instruct.add_task(WEATHER),
        TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 8},
        TRAIN_STEPS=steps,
        BATCH_SIZE=16,
        LEARNING_RATE=0.01,
        **SIZES,
    )
    for result in instruct.evaluate_model(model_dir, WEATHER.name):
        print(result)


if __name__ == "__main__":
    main()
