"""What the folder of a training run says of its model, for those who use it afterwards."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError
from instruct.lineage import read_lineage, read_object
from instruct.models.config import ModelConfig

# Fields that make a run faster or slower and leave its results alone; they may change on resume.
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
    """What a run's folder says of the model; empty for a folder without run.json.

    `entry` is the function, as gin calls it, to which errors say how to give what is missing.
    """

    folder: pathlib.Path
    info: Mapping[str, Any]
    entry: str

    @classmethod
    def read(cls, folder: pathlib.Path, entry: str = "runner.evaluate") -> "TrainedRun":
        """Reads run.json as far as it is there and whole."""
        return cls(folder, read_object(folder / "run.json"), entry)

    def config(self) -> Mapping[str, Any]:
        """All settings that the run's results hang on: {"data.vocabulary": "gym", ...}."""
        config = self.info.get("config")
        return config if isinstance(config, Mapping) else {}

    def _lacks_run_file(self) -> str:
        if not self.info and (self.folder / "run.json").exists():
            return f"{self.folder}/run.json is damaged; there is no other file"
        return f"{self.folder} has no run.json{'' if self.folder.is_dir() else ' (no such folder)'}"

    def setting(self, name: str) -> str:
        """A setting of the training data. Raises UserError if the run does not say."""
        value = self.info.get(name) or self.config().get(f"data.{name}")
        if not value:
            raise UserError(
                f"{self._lacks_run_file()} that says which {name} it was trained with; "
                f"add --gin_bindings='{self.entry}.{name} = \"...\"'"
            )
        return str(value)

    def feature_lengths(self) -> dict[str, int]:
        """Lengths of inputs and targets in training."""
        prefix = "data.feature_lengths."
        found = {
            name.removeprefix(prefix): value
            for name, value in self.config().items()
            if name.startswith(prefix) and type(value) is int
        }
        if set(found) != {"inputs", "targets"}:
            raise UserError(
                f"{self._lacks_run_file()} that says how long its inputs and targets were; "
                f"add --gin_bindings='{self.entry}.feature_lengths = "
                '{"inputs": 512, "targets": 128}\''
            )
        return found

    def model(self) -> ModelConfig:
        """The architecture."""
        recorded = self.info.get("model")
        if not isinstance(recorded, Mapping):
            raise UserError(
                f"{self._lacks_run_file()} that says what its model looks like; add the gin "
                f"file of its size and --gin_bindings='{self.entry}.model = "
                "@config.ModelConfig()'"
            )
        names = [field.name for field in dataclasses.fields(ModelConfig)]
        return ModelConfig(**{name: recorded[name] for name in names if name in recorded})

    def tasks(self) -> set[str] | None:
        """Tasks that were trained on, initial checkpoints included; None if that is not known."""
        tasks = read_lineage(self.folder).tasks
        return None if tasks is None else set(tasks)
