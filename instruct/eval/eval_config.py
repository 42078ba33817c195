"""`EvalConfig`: suites, checkpoints and number of examples (gin: `runner.EvalConfig`).

And how prompts of a trained model are framed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from instruct.batch import LAYOUTS
from instruct.checkpoints.trained_run import TrainedRun
from instruct.data.config import DataConfig
from instruct.errors import UserError
from instruct.fields import bounded, check_fields
from instruct.prompts.frame import EOS


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Suites, checkpoints and number of examples of an evaluation.

    Attributes:
        mixtures: suites: names of registered mixtures or tasks.
        splits: a task is evaluated on the first of these splits that it has.
        num_examples: most examples per task, drawn by `seed`; None for all.
        checkpoints: "latest", "all", a step, or several steps.
        name: prefix of the results' folder, "<name>-<suite>", to keep results of several settings;
            "" for none.
        base_checkpoint_path: the checkpoint that training started from, for `adaptation`.
        adaptation: share of what training changed: base + adaptation * (trained - base) is
            evaluated (partial adaptation, arXiv 2504.11626); 1 for the checkpoint as it is.
        rank_options: also rank the answer options of a prompt by log-likelihood.
        bootstrap_samples: resamples for standard errors of metrics that are not means.
        seed: of the choice and wording of examples, and of the bootstrap.
        overwrite: replace results of other settings.
    """

    mixtures: str | Sequence[str]
    splits: Sequence[str] = ("test", "validation")
    num_examples: int | None = bounded(200, least=1, note=", or None for all")
    checkpoints: str | int | Sequence[int] = "latest"
    name: str = ""
    base_checkpoint_path: str | None = None
    adaptation: float = bounded(1.0, least=0)
    rank_options: bool = False
    bootstrap_samples: int = bounded(200, least=0)
    seed: int = bounded(0, least=0)
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not _texts([self.mixtures] if isinstance(self.mixtures, str) else self.mixtures):
            raise UserError(
                f"EvalConfig.mixtures is {self.mixtures!r}; name at least one mixture or task, for "
                "example --gin.EVAL_MIXTURES=gym.held_out"
            )
        if isinstance(self.splits, str):
            object.__setattr__(self, "splits", (self.splits,))
        if not _texts(self.splits):
            raise UserError(f"EvalConfig.splits is {self.splits!r}; give names, such as ('test',)")
        if "/" in self.name or self.name.startswith("."):
            raise UserError(f"EvalConfig.name is {self.name!r}; use a folder name, not a path")
        if self.adaptation != 1 and self.base_checkpoint_path is None:
            raise UserError(
                f"EvalConfig.adaptation is {self.adaptation}, which is a share of what training "
                "changed; give EvalConfig.base_checkpoint_path, the checkpoint that it started from"
            )
        if self.checkpoints not in ("latest", "all") and not self.steps:
            raise UserError(
                f"EvalConfig.checkpoints is {self.checkpoints!r}; allowed: 'latest', 'all', a "
                "step, or a list of steps"
            )

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites."""
        return (self.mixtures,) if isinstance(self.mixtures, str) else tuple(self.mixtures)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps given by number; () for "latest", "all" and invalid values."""
        steps = (self.checkpoints,) if isinstance(self.checkpoints, int) else self.checkpoints
        if not isinstance(steps, list | tuple):
            return ()
        return tuple(steps) if all(type(step) is int and step >= 0 for step in steps) else ()


def trained_data(
    run: TrainedRun,
    layout: Literal["encoder_decoder", "decoder_only"],
    vocabulary: str,
    lengths: Mapping[str, int],
    chat_template: bool | None = None,
    mixture: str = "text",
) -> DataConfig:
    """Vocabulary, lengths and frame of prompts, as the run trained them.

    A checkpoint without a run of ours (another program's, converted or not) continues a prompt as
    it stands if it is a decoder's, unless `chat_template`; an encoder reads EOS after it.
    """
    recorded = run.config()
    chat = recorded.get("data.chat_template", False) if chat_template is None else chat_template
    plain = not (recorded or LAYOUTS[layout].encoder_keys or chat)
    separator = EOS if chat else recorded.get("data.separator", "" if plain else EOS)
    return DataConfig(
        mixture,
        lengths,
        batch_size=1,
        vocabulary=vocabulary,
        layout=layout,
        separator=separator,
        chat_template=chat,
    )


def _texts(value: Any) -> bool:
    """Whether a value is a non-empty list of non-empty texts."""
    is_list = isinstance(value, list | tuple) and len(value) > 0
    return is_list and all(isinstance(text, str) and text for text in value)
