"""`ModelConfig`: the architecture of an encoder-decoder, its parameter count and its FLOPs.

Axis letters as in `docs/architecture.md`. Imports no jax.
"""

import dataclasses
from typing import Any, ClassVar

from instruct.errors import UserError
from instruct.fields import bounded, check_fields, one_of
from instruct.models.stack_config import ComputeConfig, size


def _size() -> Any:
    return size("--gin_file=gin/models/tiny_demo.gin")


@dataclasses.dataclass(frozen=True)
class ModelConfig(ComputeConfig):
    """Architecture of a T5 encoder-decoder: T5 1.1 by default, T5 1.0 with `relu` and tied output.

    Raises:
        UserError: a field has a wrong type or value.
    """

    # The seven sizes have no default: `check_fields` refuses 0.
    # Rows of the embedding (V); at least the vocabulary's size, a multiple of 128 shards best.
    vocab_size: int = _size()
    # Width of the residual stream (D).
    d_model: int = _size()
    # Attention heads (N) and the width of each (H); N * H need not be d_model.
    num_heads: int = _size()
    head_dim: int = _size()
    # Width of the MLP's hidden layer (F).
    d_ff: int = _size()
    num_encoder_layers: int = _size()
    num_decoder_layers: int = _size()
    # The gated ones have two input kernels, GELU (T5 1.1) or SiLU (UL2); 'relu' has one (T5 1.0).
    activations: str = one_of("gated-gelu", ("gated-gelu", "gated-silu", "relu"))
    # The output kernel is the embedding transposed, and hidden states scale by D^-0.5 (T5 1.0).
    tied_output: bool = False
    # Relative position bias: buckets, and the distance from which all share the last bucket.
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    # A table of biases in each layer (umT5) instead of one for a stack.
    relpos_per_layer: bool = False
    norm_epsilon: float = bounded(1e-6, above=0, note=", for example 1e-6")
    # As in `StackConfig` and `DecoderConfig`: norms are RMS without bias, logits have no soft cap.
    norm: ClassVar[str] = "rms"
    norm_bias: ClassVar[bool] = False
    final_cap: ClassVar[None] = None
    windows: ClassVar[tuple[None]] = (None,)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.relpos_buckets < 4 or self.relpos_buckets % 4:
            raise UserError(
                f"ModelConfig.relpos_buckets is {self.relpos_buckets}; use a multiple of 4, for "
                "example 32."
            )
        if self.relpos_max_distance <= self.relpos_buckets // 2:
            raise UserError(
                f"ModelConfig.relpos_max_distance is {self.relpos_max_distance}; use a number "
                f"above relpos_buckets / 2 = {self.relpos_buckets // 2}, for example 128."
            )

    @property
    def layout(self) -> str:
        """Name of the layout of its batches."""
        return "encoder_decoder"

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two input projections."""
        return self.activations.startswith("gated-")

    def describe(self) -> str:
        """Sizes and kind in one line."""
        return (
            f"{self.num_encoder_layers} + {self.num_decoder_layers} layers, d_model "
            f"{self.d_model}, {self.num_heads} heads x {self.head_dim}, d_ff {self.d_ff}, "
            f"vocabulary {self.vocab_size}, {self.activations}, "
            f"{'tied' if self.tied_output else 'untied'} output"
        )

    def num_params(self) -> int:
        """Number of parameters; 11,135,332,352 for T5 1.1 XXL."""
        attention = 4 * self.d_model * self.num_heads * self.head_dim
        mlp = (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder_layer = attention + mlp + 2 * self.d_model
        decoder_layer = 2 * attention + mlp + 3 * self.d_model
        layers = self.num_encoder_layers + self.num_decoder_layers
        tables = layers if self.relpos_per_layer else 2
        stack_ends = tables * self.num_heads * self.relpos_buckets + 2 * self.d_model
        embeddings = self.vocab_size * self.d_model * (1 if self.tied_output else 2)
        return (
            self.num_encoder_layers * encoder_layer
            + self.num_decoder_layers * decoder_layer
            + stack_ends
            + embeddings
        )

    def forward_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of one forward pass's matrix products over [B, S] sources and [B, T] targets.

        Includes padding and all S x S, T x T and T x S pairs of attention; a multiply-add is 2.
        Excludes norms, softmax and the embedding gather.
        """
        joined = self.num_heads * self.head_dim
        projection = 2 * self.d_model * joined
        mlp = 2 * (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder_token = 4 * projection + mlp + 4 * inputs * joined
        decoder_token = 6 * projection + mlp + 4 * (targets + inputs) * joined
        row = self.num_encoder_layers * inputs * encoder_token
        row += self.num_decoder_layers * (targets * decoder_token + inputs * 2 * projection)
        row += 2 * targets * self.d_model * self.vocab_size
        return batch_size * row
