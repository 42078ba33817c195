"""Model outputs for the examples of a task: texts, log-likelihoods, ranked options."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from instruct.data.config import DataConfig
from instruct.data.feed.examples import EvalExample
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.options import OptionScorer
from instruct.eval.scoring.score import Scorer
from instruct.eval.scoring.self_consistency import self_consistent
from instruct.eval.task_rows import ModelOutputs, Ranked, Task, needs_predictions, needs_scores
from instruct.model_interface import Model
from instruct.prompts.frame import Frame


@dataclasses.dataclass(frozen=True)
class ModelRunner:
    """Generates, scores and ranks the examples of a task with given parameters."""

    decoder: Decoder
    scorer: Scorer
    option_scorer: OptionScorer
    frame: Frame
    targets_length: int

    @classmethod
    def of_model(
        cls,
        model: Model,
        decode: DecodeConfig,
        batching: BatchConfig | None,
        mesh: Mesh,
        data: DataConfig,
    ) -> "ModelRunner":
        """The programs of a model for prompts framed as `data` says; nothing is compiled yet."""
        return cls(
            decoder=Decoder(model, decode, batching, mesh),
            scorer=Scorer(model.target_logits, batching, mesh),
            option_scorer=OptionScorer(model, batching, mesh),
            frame=data.frame,
            targets_length=data.feature_lengths["targets"],
        )

    @property
    def decode(self) -> str:
        """Description of the decoding strategy, and of what counts of several samples."""
        config = self.decoder.config
        return config.describe() + (" majority" if config.num_samples > 1 else "")

    def outputs(
        self, params: Any, task: Task, examples: Sequence[EvalExample], rank: bool
    ) -> ModelOutputs:
        """Computes what the task's metrics need; with `rank` also scores answer options."""
        inputs = [example.input_ids for example in examples]
        predictions, aux, scores, ranked = None, {}, None, None
        if needs_predictions(task):
            predictions, aux = self._generated(params, task, examples)
        if needs_scores(task):
            targets = [example.target_ids for example in examples]
            scores = [float(value) for value in self.scorer.score(params, inputs, targets)]
        if rank:
            ranked = self._ranked(params, examples)
        return ModelOutputs(predictions, aux, scores, ranked)

    def _generated(
        self, params: Any, task: Task, examples: Sequence[EvalExample]
    ) -> tuple[list[str], dict[str, list]]:
        """One text per example: of several samples the likeliest one with the majority answer."""
        inputs = [example.input_ids for example in examples]
        numbers = [example.index for example in examples]
        config = self.decoder.config

        def decode(tokens: Sequence[int]) -> str:
            return self.frame.tokenizer.decode(config.answer_ids(tokens))

        if config.num_samples == 1:
            generated = self.decoder.generate(params, inputs, numbers)
            texts = [decode(row[0].tolist()) for row in generated.tokens]
            return texts, {"scores": [float(row[0]) for row in generated.scores]}

        def read(text: str, number: int) -> Any:
            example = examples[number].seqio_example
            return task.postprocess_fn(text, example=example, is_target=False)

        votes, texts, scores = self_consistent(self.decoder, params, inputs, decode, read, numbers)
        aux = {
            "scores": [float(scores[number, vote.sample]) for number, vote in enumerate(votes)],
            "votes": [vote.votes for vote in votes],
            "read": [vote.read for vote in votes],
        }
        return [samples[vote.sample] for samples, vote in zip(texts, votes)], aux

    def _option_ids(self, text: str) -> list[int]:
        """Tokens of an answer, cut to the length of targets before its last token."""
        *ids, end = self.frame.answer(text) or [self.frame.tokenizer.eos_id]
        return [*ids[: self.targets_length - 1], end]

    def _ranked(self, params: Any, examples: Sequence[EvalExample]) -> list[Ranked | None]:
        """Log-likelihoods of all answer options, worded as the target is."""
        with_options = [n for n, example in enumerate(examples) if example.options]
        choices = []
        for number in with_options:
            example = examples[number]
            markers = [marker.decode() for marker in example.seqio_example.get("markers", ())]
            texts = markers if example.targets in markers else example.options
            choices.append([self._option_ids(text) for text in texts])
        ranked: list[Ranked | None] = [None] * len(examples)
        inputs = [examples[number].input_ids for number in with_options]
        for number, ranking in zip(with_options, self.option_scorer.rank(params, inputs, choices)):
            right = int(examples[number].seqio_example["answer_index"])
            ranked[number] = (ranking.log_likelihoods, ranking.lengths, right)
        return ranked
