"""Hugging Face's T5 or Llama on our weights, as users run or train it: a benchmark's other side."""

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import get_length_grouped_indices

from instruct.checkpoints import huggingface
from instruct.checkpoints.arrays import held
from instruct.mesh import tree_paths
from instruct.models.config import ModelConfig
from instruct.models.model import AnyConfig

EOS = 1
# Batches that `Trainer` sorts by length together, where the data set is large.
MEGA_BATCHES = 50

Pair = tuple[Sequence[int], Sequence[int]]


def write_huggingface(folder: pathlib.Path, config: AnyConfig, params: Any) -> None:
    """A Hugging Face folder of our parameters, float32, without a tokenizer."""
    arrays = {path: held(np.asarray(leaf), path) for path, leaf in tree_paths(params)}
    huggingface.write_checkpoint(folder, arrays, config, np.dtype(np.float32))


def load(config: AnyConfig, params: Any, **settings: Any) -> Any:
    """Hugging Face's model of our parameters, float32; `settings` of its configuration."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder, "peer")
        write_huggingface(target, config, params)
        (name,) = json.loads((target / "config.json").read_text())["architectures"]
        return getattr(transformers, name).from_pretrained(target, **settings)


class Peer:
    """`T5ForConditionalGeneration` or `LlamaForCausalLM` in float32, with batches as users make.

    Prompts of Llama are padded on the left.

    Args:
        config: architecture.
        params: our parameters, which are converted.
    """

    def __init__(self, config: AnyConfig, params: Any):
        self._model = load(config, params)
        self._is_encoder_decoder = self._model.config.is_encoder_decoder
        self._model.eval()
        self._ends: torch.Tensor | None = None
        self._step = 0
        self._model.lm_head.register_forward_hook(self._end_answers)

    def _end_answers(self, module: Any, inputs: Any, logits: torch.Tensor) -> None:
        """Masks logits [R, .., V] in place, as `answer_ends` of `decode.py` does."""
        if self._ends is None:
            return
        self._step += 1
        last = self._step >= self._ends
        logits[~last, :, EOS] = -torch.inf
        if bool(last.any()):
            logits[last] = -torch.inf
            logits[last, :, EOS] = 0.0

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        answer_lengths: np.ndarray | None,
        batch_size: int,
        beams: int,
        max_steps: int,
        sort: bool,
    ) -> np.ndarray:
        """The best sequence of each prompt [prompts, max_steps] int32, zeros after EOS.

        Args:
            prompts: token ids.
            answer_lengths: tokens of each answer, EOS included; None: all of `max_steps` tokens,
                without an EOS.
            batch_size: prompts of a batch, padded to its longest.
            beams: 1 for greedy.
            max_steps: most tokens.
            sort: batch prompts of similar length, the longest first; else in the given order.
        """
        lengths = [len(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: -lengths[i] if sort else i)
        found = np.zeros((len(prompts), max_steps), np.int32)
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            tokens = _padded([prompts[i] for i in numbers], left=not self._is_encoder_decoder)
            ends = np.full(len(numbers), max_steps + 1)
            if answer_lengths is not None:
                ends = answer_lengths[numbers]
            self._ends, self._step = torch.tensor(np.repeat(ends, beams)), 0
            with torch.inference_mode():
                answers = self._model.generate(
                    input_ids=tokens,
                    attention_mask=(tokens != 0).long(),
                    max_new_tokens=max_steps,
                    num_beams=beams,
                    do_sample=False,
                    eos_token_id=EOS,
                    pad_token_id=0,
                    **({"decoder_start_token_id": 0} if self._is_encoder_decoder else {}),
                )
            self._ends = None
            # The start token, or the prompt.
            before = 1 if self._is_encoder_decoder else tokens.shape[1]
            tokens = answers[:, before:].numpy()
            # Beam search goes on writing EOS to answers that ended before others.
            ended_before = np.cumsum(tokens == EOS, axis=-1) - (tokens == EOS) > 0
            found[numbers, : tokens.shape[1]] = np.where(ended_before, 0, tokens)
        return found

    def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], batch_size: int
    ) -> np.ndarray:
        """Log-likelihood of each target, [pairs]; batches of similar prompt length."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found = np.zeros(len(prompts))
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            labels = _padded([targets[i] for i in numbers])
            with torch.inference_mode():
                logits = self._target_logits([prompts[i] for i in numbers], labels)
                each = torch.gather(logits.log_softmax(-1), 2, labels[..., None])[..., 0]
            found[numbers] = (each * (labels != 0)).sum(-1).numpy()
        return found

    def _target_logits(
        self, prompts: Sequence[Sequence[int]], labels: torch.Tensor
    ) -> torch.Tensor:
        """Logits [R, T, V] of labels [R, T]."""
        if self._is_encoder_decoder:
            tokens = _padded(prompts)
            fed = torch.nn.functional.pad(labels, (1, 0))[:, :-1]
            mask = (tokens != 0).long()
            return self._model(input_ids=tokens, attention_mask=mask, decoder_input_ids=fed).logits
        tokens = torch.cat([_padded(prompts, left=True), labels], dim=1)
        mask = (tokens != 0).long()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        output = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=labels.shape[1] + 1,
        )
        return output.logits[:, :-1]


class TrainingPeer:
    """`T5ForConditionalGeneration` that trains in float32, as `Trainer` does on one CPU.

    Adafactor is transformers' at a constant rate, with the formulas of `OptimizerConfig`'s default.
    No gradient is clipped, and no keys and values are cached, which `Trainer` does to no use.

    Args:
        config: architecture, with the dropout rate.
        params: our parameters, which are converted.
        learning_rate: of Adafactor.
        attention: transformers' `attn_implementation`.
    """

    def __init__(
        self, config: ModelConfig, params: Any, learning_rate: float, attention: str = "sdpa"
    ):
        settings = {"dropout_rate": config.dropout_rate, "attn_implementation": attention}
        self._model = load(config, params, **settings).train()
        self._optimizer = Adafactor(
            self._model.parameters(), lr=learning_rate, scale_parameter=True, relative_step=False
        )

    def update(self, examples: Sequence[Pair]) -> tuple[float, tuple[int, int]]:
        """(mean loss of the target tokens before the update, (S, T) of the padded batch).

        Args:
            examples: (inputs, targets), tokens; padded to their longest, as
                `DataCollatorForSeq2Seq` pads.
        """
        inputs, targets = zip(*examples)
        tokens, labels = _padded(inputs), _padded(targets, padding=-100)
        mask = _padded([[1] * len(each) for each in inputs])
        output = self._model(input_ids=tokens, attention_mask=mask, labels=labels, use_cache=False)
        output.loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return output.loss.item(), (tokens.shape[1], labels.shape[1])


def length_grouped_order(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """The order of examples in which `Trainer` reads with `group_by_length`."""
    generator = torch.Generator().manual_seed(seed)
    return get_length_grouped_indices(lengths, batch_size, MEGA_BATCHES, generator)


def _padded(
    sequences: Sequence[Sequence[int]], left: bool = False, padding: int = 0
) -> torch.Tensor:
    width = max(len(sequence) for sequence in sequences)
    paddings = ([padding] * (width - len(sequence)) for sequence in sequences)
    rows = zip(sequences, paddings)
    return torch.tensor([[*pad, *ids] if left else [*ids, *pad] for ids, pad in rows])


def use_threads(count: int) -> None:
    """How many threads PyTorch computes with."""
    torch.set_num_threads(count)


VERSIONS = f"torch {torch.__version__}, transformers {transformers.__version__}"
