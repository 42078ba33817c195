"""`EvalConfig`: suites, checkpoints and number of examples (gin: `runner.EvalConfig`).

`SuitesConfig` is that of evaluations while training. And how prompts of a trained model are framed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from instruct.batch import LAYOUTS
from instruct.checkpoints.trained_run import TrainedRun
from instruct.data.config import DataConfig
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.fields import bounded, check_fields
from instruct.prompts.frame import EOS
from instruct.results import TRAINING, is_of_training


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
        if self.name == TRAINING or is_of_training(self.name):
            raise UserError(
                f"EvalConfig.name is {self.name!r}, which names the evaluations that training "
                "writes; use another name"
            )
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


@dataclasses.dataclass(frozen=True)
class SuitesConfig:
    """Evaluation of suites by generation while training (gin: `eval_config.SuitesConfig`).

    Attributes:
        every_steps: evaluate at every multiple, and at the last step; None: never.
        mixtures, splits, num_examples, rank_options, bootstrap_samples, seed: as in `EvalConfig`.
            The validation split comes first, since the numbers choose a checkpoint.
        num_samples: examples a suite whose prompt, target and prediction are shown, the same ones
            each time.
        decode: strategy; None: greedy with the length of the targets.
        batching: rows and shapes; affects speed only.
    """

    every_steps: int | None = bounded(None, least=1)
    mixtures: str | Sequence[str] | None = None
    splits: Sequence[str] = ("validation", "test")
    num_examples: int | None = bounded(64, least=1, note=", or None for all")
    rank_options: bool = False
    bootstrap_samples: int = bounded(200, least=0)
    seed: int = bounded(0, least=0)
    num_samples: int = bounded(4, least=0)
    decode: DecodeConfig | None = None
    batching: BatchConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every_steps is not None:
            if self.mixtures is None:
                raise UserError(
                    "EVAL_SUITES_EVERY_STEPS is set, but EVAL_SUITES names no mixture or task; for "
                    "example --gin.EVAL_SUITES=gym.held_out (--data evaluates its own task)"
                )
            self.evaluation()

    def evaluation(self) -> EvalConfig:
        """These settings as those of `run.py eval`. Raises UserError for wrong ones."""
        names = {field.name for field in dataclasses.fields(EvalConfig)}
        mine = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        shared = {name: value for name, value in mine.items() if name in names}
        return EvalConfig(**shared, overwrite=True)


def decode_strategy(decode: DecodeConfig | None, data: DataConfig) -> DecodeConfig:
    """`decode`, or greedy with the length of the targets; ends at the vocabulary's stop tokens."""
    strategy = decode or DecodeConfig(max_decode_steps=data.feature_lengths["targets"])
    return strategy.ending_with(load_vocabulary(data.vocabulary).stop_ids)


def prompt_data(
    mixture: str,
    lengths: Mapping[str, int],
    vocabulary: str,
    layout: Literal["encoder_decoder", "decoder_only"],
    separator: str,
    chat_template: bool,
) -> DataConfig:
    """What the prompts of an evaluation depend on."""
    return DataConfig(
        mixture,
        lengths,
        batch_size=1,
        vocabulary=vocabulary,
        layout=layout,
        separator=EOS if chat_template else separator,
        chat_template=chat_template,
    )


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
    separator = recorded.get("data.separator", "" if plain else EOS)
    return prompt_data(mixture, lengths, vocabulary, layout, separator, chat)


def _texts(value: Any) -> bool:
    """Whether a value is a non-empty list of non-empty texts."""
    is_list = isinstance(value, list | tuple) and len(value) > 0
    return is_list and all(isinstance(text, str) and text for text in value)
