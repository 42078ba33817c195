"""Hugging Face's T5 or Llama on our weights, as users run it: the other side of a benchmark."""

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from instruct.checkpoints import huggingface
from instruct.checkpoints.arrays import held
from instruct.mesh import tree_paths
from instruct.models.model import AnyConfig

EOS = 1


def write_huggingface(folder: pathlib.Path, config: AnyConfig, params: Any) -> None:
    """A Hugging Face folder of our parameters, float32, without a tokenizer."""
    arrays = {path: held(np.asarray(leaf), path) for path, leaf in tree_paths(params)}
    huggingface.write_checkpoint(folder, arrays, config, np.dtype(np.float32))


class Peer:
    """`T5ForConditionalGeneration` or `LlamaForCausalLM` in float32, with batches as users make.

    Prompts of Llama are padded on the left.

    Args:
        config: architecture.
        params: our parameters, which are converted.
    """

    def __init__(self, config: AnyConfig, params: Any):
        transformers.logging.set_verbosity_error()
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder, "peer")
            write_huggingface(target, config, params)
            (name,) = json.loads((target / "config.json").read_text())["architectures"]
            self._model = getattr(transformers, name).from_pretrained(target)
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


def _padded(sequences: Sequence[Sequence[int]], left: bool = False) -> torch.Tensor:
    width = max(len(sequence) for sequence in sequences)
    paddings = ([0] * (width - len(sequence)) for sequence in sequences)
    rows = zip(sequences, paddings)
    return torch.tensor([[*pad, *ids] if left else [*ids, *pad] for ids, pad in rows])


def use_threads(count: int) -> None:
    """How many threads PyTorch computes with."""
    torch.set_num_threads(count)


VERSIONS = f"torch {torch.__version__}, transformers {transformers.__version__}"
