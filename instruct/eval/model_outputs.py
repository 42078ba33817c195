"""Model outputs for the examples of a task: texts, log-likelihoods, ranked options."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from instruct.eval import task_rows
from instruct.eval.decoding.batching import Decoder
from instruct.eval.scoring.options import OptionScorer
from instruct.eval.scoring.score import Scorer
from instruct.eval.scoring.self_consistency import self_consistent
from instruct.eval.task_rows import ModelOutputs


class Vocabulary(Protocol):
    """The part of `instruct.data.vocab.Vocabulary` that is used here."""

    @property
    def eos_id(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...


class TokenExample(task_rows.Example, Protocol):
    """An example with its tokens; `instruct.data.feed.examples.EvalExample` is one."""

    @property
    def input_ids(self) -> list[int]: ...
    @property
    def target_ids(self) -> list[int]: ...
    @property
    def options(self) -> Sequence[str]: ...


@dataclasses.dataclass(frozen=True)
class ModelRunner:
    """Generates, scores and ranks the examples of a task with given parameters."""

    decoder: Decoder
    scorer: Scorer
    option_scorer: OptionScorer
    vocabulary: Vocabulary
    targets_length: int

    def outputs(
        self, params: Any, task: Any, examples: Sequence[TokenExample], rank: bool
    ) -> ModelOutputs:
        """Generates and scores what the task's metrics ask for."""
        inputs = [example.input_ids for example in examples]
        predictions, aux, scores, ranked = None, {}, None, None
        if task_rows.needs_predictions(task):
            predictions, aux = self._generated(params, task, examples)
        if task_rows.needs_scores(task):
            targets = [example.target_ids for example in examples]
            scores = [float(value) for value in self.scorer.score(params, inputs, targets)]
        if rank:
            ranked = self._ranked(params, examples)
        return ModelOutputs(predictions, aux, scores, ranked)

    def _generated(
        self, params: Any, task: Any, examples: Sequence[TokenExample]
    ) -> tuple[list[str], dict[str, list]]:
        """One text an example: of several samples the likeliest with the answer of most."""
        inputs = [example.input_ids for example in examples]
        numbers = [example.index for example in examples]
        decode = self.vocabulary.decode
        if self.decoder.config.num_samples == 1:
            found = self.decoder.generate(params, inputs, numbers)
            texts = [decode(row[0].tolist()) for row in found.tokens]
            return texts, {"scores": [float(row[0]) for row in found.scores]}

        def read(text: str, place: int) -> Any:
            return task.postprocess_fn(text, example=examples[place].seqio_example, is_target=False)

        votes, texts, scores = self_consistent(self.decoder, params, inputs, decode, read, numbers)
        chosen = [(place, vote.place) for place, vote in enumerate(votes)]
        aux = {"scores": [float(scores[where]) for where in chosen]}
        aux |= {"votes": [vote.votes for vote in votes], "read": [vote.read for vote in votes]}
        return [texts[place][sample] for place, sample in chosen], aux

    def _ranked(self, params: Any, examples: Sequence[TokenExample]) -> list[Any]:
        """Log-likelihoods of all answer options, in the wording that the target has."""
        ranked: list[Any] = [None] * len(examples)
        shown = [place for place, example in enumerate(examples) if example.options]
        choices = []
        for place in shown:
            example = examples[place]
            markers = [_text(marker) for marker in example.seqio_example.get("markers", ())]
            texts = markers if example.targets in markers else example.options
            ids = [self.vocabulary.encode(text)[: self.targets_length - 1] for text in texts]
            choices.append([[*tokens, self.vocabulary.eos_id] for tokens in ids])
        if shown:
            inputs = [examples[place].input_ids for place in shown]
            for place, found in zip(shown, self.option_scorer.rank(params, inputs, choices)):
                right = int(examples[place].seqio_example["answer_index"])
                ranked[place] = (found.log_likelihoods, found.lengths, right)
        return ranked


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
