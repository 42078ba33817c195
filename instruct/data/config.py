"""`DataConfig`: the data that a run trains on, bound by gin."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.fields import LARGEST, Range, bounded, check_fields, check_value, one_of

PACKINGS = ("best_fit", "next_fit", "none")
FEEDS = ("records", "seqio")
PLANS = ("low_discrepancy", "iid")
# The vocabulary of the mixture's own tasks; see `registry.with_vocabulary`.
AUTO_VOCABULARY = "auto"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data that a run trains on.

    Attributes:
        mixture: a registered mixture, task or one mode of a task.
        feature_lengths: {"inputs": S, "targets": T}, tokens.
        batch_size: rows of a batch over all processes.
        lanes: independent sequences of windows that share the rows of a batch
            (instruct/data/feed/pipeline.py). They divide among the processes, so a run goes on with
            any number of processes that divides them. Changes the order of the examples.
        vocabulary: see instruct/data/vocab.py; `registry.with_vocabulary` replaces "auto", the
            value of run files, before anything reads it.
        seed: of order, wording and packing.
        packing: "best_fit", "next_fit" (as SeqIO) or "none". Changes the examples per step.
        window_examples: examples that are packed together. Changes results slightly.
        workers: processes that build windows; 0 for a thread. Speed only.
        prefetch_windows: windows built ahead, and one more for each further lane. Speed only.
        feed: "records", or "seqio" for SeqIO's own pipeline (small mixtures, for comparison).
        plan: "low_discrepancy", or "iid" for independent draws like SeqIO's.
        split: the split to train on.
        skip_unavailable: leave out the tasks on the record of `run.py prepare --skip_unavailable`
            (instruct/data/stores/left_out.py); their sub-mixtures keep their shares.
    """

    mixture: str
    feature_lengths: Mapping[str, int]
    batch_size: int = bounded(least=1)
    vocabulary: str = "gym"
    seed: int = bounded(0, least=0, most=LARGEST, note=" (SEED)")
    packing: Literal["best_fit", "next_fit", "none"] = one_of("best_fit", PACKINGS)
    window_examples: int = bounded(2048, least=1)
    workers: int = bounded(0, least=0)
    prefetch_windows: int = bounded(2, least=1)
    feed: Literal["records", "seqio"] = one_of("records", FEEDS)
    plan: Literal["low_discrepancy", "iid"] = one_of("low_discrepancy", PLANS)
    split: str = "train"
    skip_unavailable: bool = False
    lanes: int = bounded(1, least=1, note=" (LANES)")

    def __post_init__(self) -> None:
        for name in ("mixture", "vocabulary", "split"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UserError(f"DataConfig.{name} is {value!r}; it must be a name, as text")
        lengths = self.feature_lengths
        if not isinstance(lengths, Mapping) or set(lengths) != {"inputs", "targets"}:
            raise UserError(
                f"feature_lengths (TASK_FEATURE_LENGTHS) is {lengths!r}; it must be a dict of "
                "'inputs' and 'targets', for example {'inputs': 512, 'targets': 128}"
            )
        for name, length in lengths.items():
            check_value(f"feature_lengths[{name!r}]", length, int, Range(least=2))  # a token, EOS
        check_fields(self)
        if self.batch_size % self.lanes:
            divisors = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            raise UserError(
                f"LANES is {self.lanes}, which does not divide the {self.batch_size} rows of a "
                f"batch; use one of {', '.join(map(str, divisors))}."
            )
        if self.skip_unavailable and self.feed == "seqio":
            raise UserError(
                "skip_unavailable (SKIP_UNAVAILABLE) needs DataConfig.feed='records': SeqIO's own "
                "pipeline mixes all registered tasks"
            )

    @property
    def lengths(self) -> tuple[int, int]:
        """(S, T)."""
        return self.feature_lengths["inputs"], self.feature_lengths["targets"]

    def identity(self) -> list[Any]:
        """Settings that affect the batches, as JSON values."""
        return [
            self.lengths,
            self.batch_size,
            load_vocabulary(self.vocabulary).fingerprint,
            self.seed,
            self.packing,
            self.window_examples,
            self.feed,
            self.plan,
            self.split,
        ]
