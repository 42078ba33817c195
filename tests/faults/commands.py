"""The program's command lines over `tasks.py`, and an undisturbed life of a run to compare with."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.faults import oracle, saves, tasks
from tests.faults.processes import WRITES, counting, run, serving, value_of

STEPS, HALF_STEPS, SAVE_EVERY = 8, 4, 2
BUCKET = "bucket"
# Family -> arguments of `train` that choose its model.
MODELS = {
    "encoder_decoder": (
        "--gin_file=gin/models/tiny_test.gin",
        "--gin.ModelConfig.num_encoder_layers=1",
        "--gin.ModelConfig.num_decoder_layers=1",
    ),
    "decoder": ("--gin_file=gin/models/tiny_decoder.gin",),
}
_MODULE = "--gin.MIXTURE_OR_TASK_MODULE=tests.faults.tasks"


def program(argv: Sequence[str], variables: Mapping[str, str] = {}) -> Callable[[], int]:
    """`run.py` with these arguments and environment variables, for `run`."""

    def call() -> int:
        from instruct.cli.arguments import main

        os.environ.update(variables)
        sys.argv = ["run.py", *argv]
        return main(argv)

    return call


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders of one life of a run, and the family of its model: a name of MODELS."""

    folder: pathlib.Path
    family: str

    @property
    def data(self) -> pathlib.Path:
        return self.folder / "data"

    @property
    def stores(self) -> pathlib.Path:
        return self.folder / "stores"

    @property
    def model_dir(self) -> pathlib.Path:
        return self.folder / "run"

    @property
    def prompts(self) -> pathlib.Path:
        return self.folder / "prompts.jsonl"

    @property
    def answers(self) -> pathlib.Path:
        return self.folder / "answers" / "answers.jsonl"

    def _workspace(self) -> list[str]:
        return [_MODULE, f"--gin.DATA_DIR={self.data}", f"--gin.STORE_DIR={self.stores}"]

    def prepare(self, workers: int = 1) -> list[str]:
        flags = [f"--mixture={tasks.MIXTURE}", f"--workers={workers}", "--report_examples=0"]
        return ["prepare", *flags, *self._workspace()]

    def stage(self) -> list[str]:
        """Copies the stores of the emulated bucket to `staged`."""
        argv = [flag for flag in self.prepare() if not flag.startswith("--gin.STORE_DIR=")]
        return [*argv, f"--gin.STORE_DIR=gs://{BUCKET}/stores"]

    def stage_variables(self, emulator: str) -> dict[str, str]:
        return json.loads(emulator) | {"INSTRUCT_STAGE_DIR": str(self.folder / "staged")}

    @property
    def staged(self) -> pathlib.Path:
        return self.folder / "staged" / "gs" / BUCKET / "stores"

    def serve_stores(self, ready: pathlib.Path) -> None:
        """Serves the stores in an emulated bucket for ever; `ready` gets the variables."""
        from tests.gcs_emulator import GcsEmulator

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it prints a traceback for a killed client
        with GcsEmulator(buckets=(BUCKET,)) as emulator:
            for name in oracle.stores(self.stores):
                emulator.put(f"stores/{name}", (self.stores / name).read_bytes(), BUCKET)
            draft = ready.with_suffix(".draft")
            draft.write_text(json.dumps(emulator.environment()))
            draft.rename(ready)
            signal.pause()

    def train(self, steps: int = STEPS, keep: int = 2) -> list[str]:
        config = "--gin.checkpoint.CheckpointConfig"
        return [
            "train",
            "--gin_file=gin/runs/train.gin",
            *MODELS[self.family],
            *self._workspace(),
            f"--gin.MODEL_DIR={self.model_dir}",
            f"--gin.MIXTURE_OR_TASK_NAME={tasks.MIXTURE}",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 8}",
            "--gin.BATCH_SIZE=8",
            "--gin.VOCABULARY=bytes",
            f"--gin.TRAIN_STEPS={steps}",
            "--gin.DROPOUT_RATE=0.1",
            "--gin.DataConfig.window_examples=24",
            f"{config}.save_every_steps={SAVE_EVERY}",
            f"{config}.keep={keep}",
            f"{config}.first_retry_secs=0.05",
            "--gin.loop.train.log_every_steps=1",
            "--gin.loop.train.eval_every_steps=4",
            "--gin.loop.train.num_eval_examples=12",
        ]

    def evaluate(self, checkpoints: str = "'latest'") -> list[str]:
        flags = [f"--gin.EVAL_MIXTURES={tasks.MIXTURE}", f"--gin.EVAL_CHECKPOINTS={checkpoints}"]
        flags += ["--gin.EVAL_BATCH_SIZE=8", f"--gin.MODEL_DIR={self.model_dir}", "--limit=5"]
        return ["eval", "--gin_file=gin/runs/eval.gin", *self._workspace(), *flags]

    def infer(self) -> list[str]:
        flags = [f"--gin.MODEL_DIR={self.model_dir}", "--gin.MAX_DECODE_STEPS=6"]
        flags += ["--gin.BATCH_SIZE=4", "--gin.infer.infer.lines_per_range=4"]
        flags += [f"--input={self.prompts}", f"--output={self.answers}"]
        return ["infer", "--gin_file=gin/runs/infer.gin", *flags]

    def report(self) -> list[str]:
        return ["report", f"--model_dir={self.model_dir}"]

    def write_inputs(self) -> None:
        """Data files and prompts."""
        tasks.write_data(self.data)
        lines = [json.dumps({"inputs": f"faults.next {n}?"}) + "\n" for n in range(14)]
        self.prompts.write_text("".join(lines))


class Base:
    """An undisturbed life below a folder: `half` stopped at step 4, `whole` finished and was used.

    Each part is lived when it is first asked for, and once for a folder.

    Attributes:
        stores: what `prepare` leaves: hashes.
        run: what training leaves: checkpoints (step -> `oracle.whole_checkpoint` of every saved
            one), steps (those that stay), metrics, mixture, config, model.
        saves: what `saves.resume_and_save` leaves: checkpoints.
        use: what `eval` (of steps 6 and 8) and `infer` leave: results, answers.
        calls: command -> storage calls that write. secs: command -> seconds.
    """

    def __init__(self, folder: pathlib.Path, family: str) -> None:
        self.folder, self.family = folder, family
        self.calls: dict[str, int] = {}
        self.secs: dict[str, float] = {}

    @functools.cached_property
    def stores(self) -> dict[str, Any]:
        return self._part("stores", self._live_stores)

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        return self._part("run", self._live_run)

    @functools.cached_property
    def saves(self) -> dict[str, Any]:
        return self._part("saves", self._live_saves)

    @functools.cached_property
    def use(self) -> dict[str, Any]:
        return self._part("use", self._live_use)

    @property
    def prepared(self) -> Place:
        assert self.stores
        return self._place("prepared")

    @property
    def half(self) -> Place:
        assert self.run
        return self._place("half")

    @property
    def whole(self) -> Place:
        assert self.run and self.use
        return self._place("whole")

    def _place(self, name: str) -> Place:
        return Place(self.folder / name, self.family)

    def _part(self, name: str, live: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            document = live() | {"calls": self.calls, "secs": self.secs}
            path.write_text(json.dumps(document))
        document = json.loads(path.read_text())
        self.calls |= document["calls"]
        self.secs |= document["secs"]
        return document

    @functools.cached_property
    def stage(self) -> dict[str, Any]:
        return self._part("stage", self._live_stage)

    def _must(
        self,
        name: str,
        argv: Sequence[str],
        watched: pathlib.Path,
        variables: Mapping[str, str] = {},
    ) -> None:
        ended = run(program(argv, variables), self.folder, counting(watched, WRITES))
        if ended.status:
            raise RuntimeError(f"{' '.join(argv)}\n{ended.text}")
        self.calls[name], self.secs[name] = ended.calls, ended.secs

    def _live_stores(self) -> dict[str, Any]:
        place = self._place("prepared")
        shutil.rmtree(place.folder, ignore_errors=True)
        place.write_inputs()
        self._must("prepare", place.prepare(), place.stores)
        return {"hashes": oracle.stores(place.stores)}

    def _live_run(self) -> dict[str, Any]:
        half, reference = self._place("half"), self._place("reference")
        for name in ("half", "reference", "whole"):  # of an interrupted life
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for place in (half, reference):
            shutil.copytree(self.prepared.folder, place.folder)
        self._must("train", reference.train(keep=99), reference.model_dir)
        self._must("train half", half.train(HALF_STEPS), half.model_dir)
        whole = self._place("whole")
        shutil.copytree(half.folder, whole.folder)
        self._must("resume", whole.train(), whole.model_dir)

        def look() -> dict[str, Any]:
            runs = [place.model_dir for place in (reference, whole)]
            checkpoints = {
                str(step): oracle.whole_checkpoint(runs[0] / "checkpoints" / str(step))
                for step in oracle.steps(runs[0] / "checkpoints")
            }
            info = [json.loads((run / "run.json").read_text()) for run in runs]
            # A run that was resumed equals one that was not: the comparison is worth something.
            assert sorted(checkpoints) == ["2", "4", "6", "8"]
            for step in oracle.steps(runs[1] / "checkpoints"):
                whole_one = oracle.whole_checkpoint(runs[1] / "checkpoints" / str(step))
                assert whole_one == checkpoints[str(step)], step
            for read in (oracle.metrics, oracle.mixture):
                assert read(runs[0]) == read(runs[1])
            assert info[0]["config"] == info[1]["config"]
            return {
                "checkpoints": checkpoints,
                "steps": oracle.steps(runs[1] / "checkpoints"),
                "metrics": oracle.metrics(runs[1]),
                "mixture": oracle.mixture(runs[1]),
                "config": info[1]["config"],
                "model": info[1]["model"],
            }

        document = value_of(look, self.folder)
        shutil.rmtree(reference.folder)
        return document

    def _live_saves(self) -> dict[str, Any]:
        folder = self.folder / "saves"
        shutil.rmtree(folder, ignore_errors=True)
        checkpoints, self.calls["save"], self.secs["save"] = saves.live(folder)
        return {"checkpoints": checkpoints}

    def _live_use(self) -> dict[str, Any]:
        whole = self._place("whole")
        for folder in (whole.model_dir / "eval", whole.answers.parent):
            shutil.rmtree(folder, ignore_errors=True)
        self._must("eval", whole.evaluate("(6, 8)"), whole.model_dir)
        self._must("infer", whole.infer(), whole.answers.parent)
        results = oracle.results(whole.model_dir)
        return {"results": results, "answers": whole.answers.read_text()}

    def _live_stage(self) -> dict[str, Any]:
        place = self._place("staging")
        shutil.rmtree(place.folder, ignore_errors=True)
        place.write_inputs()
        with serving(self.prepared.serve_stores, self.folder) as emulator:
            self._must("stage", place.stage(), place.staged, place.stage_variables(emulator))
        assert oracle.stores(place.staged) == self.stores["hashes"]
        return {}
