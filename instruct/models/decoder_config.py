"""`DecoderConfig`: the architecture of a decoder-only or prefix-LM model. Imports no jax."""

import dataclasses

from instruct.fields import bounded
from instruct.models.stack_config import ComputeConfig, StackConfig, size


@dataclasses.dataclass(frozen=True)
class DecoderConfig(ComputeConfig, StackConfig):
    """One stack of blocks between an embedding and an output head.

    Raises:
        UserError: a field has a wrong type or value, or fields contradict each other.
    """

    # Rows of the embedding (V); at least the vocabulary's size, a multiple of 128 shards best.
    vocab_size: int = size("--gin_file=gin/models/tiny_decoder.gin")
    # The output kernel is the embedding transposed.
    tied_output: bool = True
    # Logits times D^-0.5 (PaLM, T5 1.0).
    output_scale: bool = False
    # Logits are cap * tanh(logits / cap).
    final_cap: float | None = bounded(None, above=0, note=", for example 30.0, or None")
    # Tokens of the prompt attend to each other in both directions; else all is causal.
    prefix_lm: bool = False

    @property
    def layout(self) -> str:
        """Name of the layout of its batches."""
        return "decoder_only"

    def describe(self) -> str:
        """Sizes and kind in one line."""
        return (
            f"{'prefix-LM' if self.prefix_lm else 'causal'} decoder, {super().describe()}, "
            f"vocabulary {self.vocab_size}, {'tied' if self.tied_output else 'untied'} output"
        )

    def num_params(self) -> int:
        """Number of parameters."""
        embeddings = self.vocab_size * self.d_model * (1 if self.tied_output else 2)
        return self.stack_params() + embeddings

    def forward_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of one forward pass's matrix products over rows of inputs + targets tokens.

        Includes padding and all pairs of a row's tokens, those that masks hide too; a multiply-add
        is 2. Excludes norms, softmax and the embedding gather.
        """
        tokens = inputs + targets
        head = 2 * tokens * self.d_model * self.vocab_size
        return batch_size * (self.stack_flops(tokens) + head)
