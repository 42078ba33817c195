"""`DataConfig`: the data that a run trains on, bound by gin."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from instruct.batch import DECODER_ONLY, ENCODER_DECODER, LAYOUTS, Layout
from instruct.data.vocab import chat_template, load_vocabulary
from instruct.errors import UserError
from instruct.fields import LARGEST, Range, bounded, check_fields, check_value, one_of
from instruct.prompts.frame import EOS, Frame

PACKINGS = ("best_fit", "next_fit", "none")
FEEDS = ("records", "seqio")
PLANS = ("low_discrepancy", "iid")
LOSSES = ("targets", "all")
# The vocabulary of the mixture's own tasks; see `registry.with_vocabulary`.
AUTO_VOCABULARY = "auto"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data that a run trains on.

    Attributes:
        mixture: a registered mixture, task or one mode of a task.
        feature_lengths: {"inputs": S, "targets": T}, tokens. A row of "decoder_only" has S + T.
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
        records_share: of each task's records that training uses, at least one: a random subset,
            which `seed` fixes. Rates stay as they are, and exemplars come from all records.
        layout: of the batches (instruct/batch.py), the model's: "encoder_decoder" or
            "decoder_only".
        loss_on: "targets", or "all" tokens of a sequence ("decoder_only").
        separator: what follows a prompt: "eos" for the end-of-sequence token (T5, Flan-PaLM), else
            a text such as "\\n\\n".
        chat_template: whether prompts and answers are turns of the vocabulary's chat template,
            which replaces separator and end-of-sequence token.
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
    records_share: float = bounded(1.0, above=0, most=1)
    layout: Literal["encoder_decoder", "decoder_only"] = one_of("encoder_decoder", LAYOUTS)
    loss_on: Literal["targets", "all"] = one_of("targets", LOSSES)
    separator: str = EOS
    chat_template: bool = False

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
        if self.records_share != 1 and self.feed == "seqio":
            raise UserError(
                f"DataConfig.records_share is {self.records_share}, which needs "
                "DataConfig.feed='records': SeqIO's own pipeline reads all records"
            )
        if self.loss_on == "all" and self.layout == ENCODER_DECODER.name:
            raise UserError(
                "DataConfig.loss_on is 'all', but an encoder-decoder predicts no token of its "
                "inputs. Use 'targets', or DataConfig.layout='decoder_only'"
            )
        framed = self.chat_template or self.separator != EOS
        if framed and self.feed == "seqio":
            raise UserError(
                "DataConfig.separator and chat_template (CHAT_TEMPLATE) need "
                "DataConfig.feed='records': SeqIO's tasks add the end-of-sequence token"
            )
        if self.chat_template and self.separator != EOS:
            raise UserError(
                f"DataConfig.separator is {self.separator!r}, but a chat template separates "
                "prompts and answers itself. Leave it out, or set CHAT_TEMPLATE = False"
            )

    @property
    def lengths(self) -> tuple[int, int]:
        """(S, T)."""
        return self.feature_lengths["inputs"], self.feature_lengths["targets"]

    @property
    def example_lengths(self) -> tuple[int, int]:
        """Most tokens of a prompt, its start included, and of an answer.

        Decoder-only prompts get a token more than S, as in SeqIO: a row holds S + T tokens beside
        the start.
        """
        inputs, targets = self.lengths
        return inputs + (self.batch_layout is DECODER_ONLY), targets

    @property
    def batch_layout(self) -> Layout:
        return LAYOUTS[self.layout]

    @property
    def frame(self) -> Frame:
        """The frame of prompts and answers.

        An encoder's inputs start with a beginning-of-sequence token, never with padding.
        """
        vocabulary = load_vocabulary(self.vocabulary)
        start = vocabulary.start_ids
        chat = chat_template(vocabulary) if self.chat_template else None
        if self.batch_layout is ENCODER_DECODER:
            start = tuple(token for token in start if token != vocabulary.pad_id)
        one_sequence = self.batch_layout is DECODER_ONLY
        return Frame(vocabulary, start, self.separator, chat, one_sequence)

    def identity(self) -> list[Any]:
        """Settings that affect the batches, as JSON values."""
        # Only where they differ from the defaults, so that older checkpoints resume.
        others = {
            name: getattr(self, name)
            for name in ("layout", "loss_on", "separator", "records_share")
            if getattr(self, name) != getattr(DataConfig, name)
        }
        if chat := self.frame.chat:
            others["chat_template"] = chat.fingerprint
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
            *([others] if others else ()),
        ]
