"""The model and the data settings that the folder of a training run records, for later use."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from instruct.checkpoints.model_fields import recorded_model
from instruct.errors import UserError
from instruct.lineage import read_lineage, read_object
from instruct.models.model import AnyConfig

# Fields that affect speed but no result; they may change on resume.
SPEED_ONLY = frozenset(
    {
        "model.scan_layers",
        "model.remat",
        "model.attention",
        "data.workers",
        "data.prefetch_windows",
        "loss.chunk_logits",
    }
)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a run's folder records; empty for a folder without run.json.

    `entry` is the function, as gin calls it, whose argument replaces what is missing; "" for a
    function that Python calls.
    """

    folder: pathlib.Path
    info: Mapping[str, Any]
    entry: str

    @classmethod
    def read(cls, folder: pathlib.Path, entry: str = "runner.evaluate") -> "TrainedRun":
        """Reads run.json; a damaged one counts as empty."""
        return cls(folder, read_object(folder / "run.json"), entry)

    def config(self) -> Mapping[str, Any]:
        """All settings that affect the run's results: {"data.vocabulary": "gym", ...}."""
        config = self.info.get("config")
        return config if isinstance(config, Mapping) else {}

    def _lacks(self, fact: str, fix: str) -> UserError:
        path = self.folder / "run.json"
        if not self.folder.exists():
            problem = f"no such folder: {self.folder}; nothing records"
        elif not path.exists():
            problem = f"{self.folder} has no run.json that records"
        else:
            problem = f"{path} {'does not record' if self.info else 'is damaged; it should record'}"
        return UserError(f"{problem} {fact}; {fix}")

    def _fix(self, name: str, example: str) -> str:
        """How the user gives an argument."""
        if not self.entry:
            return f"give {name}={example}"
        return f"add --gin_bindings='{self.entry}.{name} = {example}'"

    def setting(self, name: str) -> str:
        """A setting of the training data. Raises UserError if it is not recorded."""
        value = self.info.get(name) or self.config().get(f"data.{name}")
        if not value:
            fix = self._fix(name, '"..."')
            raise self._lacks(f"which {name} the model was trained with", fix)
        return str(value)

    def feature_lengths(self) -> dict[str, int]:
        """Lengths of inputs and targets in training."""
        prefix = "data.feature_lengths."
        lengths = {
            name.removeprefix(prefix): value
            for name, value in self.config().items()
            if name.startswith(prefix) and type(value) is int
        }
        if set(lengths) != {"inputs", "targets"}:
            fix = self._fix("feature_lengths", '{"inputs": 512, "targets": 128}')
            raise self._lacks("how long inputs and targets were in training", fix)
        return lengths

    def model(self) -> AnyConfig:
        """The architecture."""
        fields = self.info.get("model")
        if not isinstance(fields, Mapping):
            fix = self._fix("model", "@config.ModelConfig()" if self.entry else "ModelConfig(...)")
            fix += " and the gin file of its size" if self.entry else ""
            fix += " (or that of a DecoderConfig or PairConfig)"
            raise self._lacks("what its model looks like", fix)
        return recorded_model(fields, self.folder / "run.json")

    def tasks(self) -> set[str] | None:
        """Tasks that were trained on, initial checkpoints included; None if that is not known."""
        tasks = read_lineage(self.folder).tasks
        return None if tasks is None else set(tasks)
