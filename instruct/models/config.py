"""`ModelConfig`: the shape of an encoder-decoder, checked when it is built.

Its numbers alone give the parameter count and the matrix-multiply work of a batch, so `check`
needs no arrays. Axis letters as in `docs/architecture.md`; no jax is imported here.
"""

import dataclasses

from instruct.config_types import check_types
from instruct.errors import UserError, unknown_name

SIZES = (
    "vocab_size",
    "d_model",
    "num_heads",
    "head_dim",
    "d_ff",
    "num_encoder_layers",
    "num_decoder_layers",
)
ACTIVATIONS = ("gated-gelu", "gated-silu", "relu")
DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "minimal", "full")
ATTENTION_IMPLEMENTATIONS = ("einsum", "xla", "cudnn")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of a T5 encoder-decoder; T5 1.1 by default, T5 1.0 by `relu` and a tied output.

    Raises:
        UserError: a field has the wrong type or a value outside what is allowed.
    """

    # The seven sizes have no default: 0 means not set, which is refused.
    # Rows of the embedding (V); at least the vocabulary's size, a multiple of 128 shards best.
    vocab_size: int = 0
    # Width of the residual stream (D).
    d_model: int = 0
    # Attention heads (N) and the width of each (H); N * H need not be d_model.
    num_heads: int = 0
    head_dim: int = 0
    # Width of the MLP's hidden layer (F).
    d_ff: int = 0
    num_encoder_layers: int = 0
    num_decoder_layers: int = 0
    # Share of values zeroed while training; has no effect without a dropout key.
    dropout_rate: float = 0.0
    # Gated ones have two input kernels: GELU (T5 1.1), SiLU (UL2); 'relu' has one (T5 1.0).
    activations: str = "gated-gelu"
    # Output kernel is the embedding transposed, with hidden states scaled by D^-0.5 (T5 1.0).
    tied_output: bool = False
    # Relative position bias: buckets, and the distance from which all share the last bucket.
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    norm_epsilon: float = 1e-6
    # Type of the activations; parameters are float32 always. Changes numbers.
    dtype: str = "float32"
    # Query-key products and softmax in float32 whatever `dtype` is. Changes numbers.
    float32_attention_logits: bool = False
    # One compiled layer, looped, instead of a program as long as the stack is deep. Speed only.
    scan_layers: bool = False
    # What the backward pass recomputes: nothing, all but weight products, all. Speed only.
    remat: str = "none"
    # 'einsum' is ours; 'xla' and 'cudnn' are jax.nn.dot_product_attention. Speed only.
    attention: str = "einsum"

    def __post_init__(self) -> None:
        check_types(self)
        for name in SIZES:
            if getattr(self, name) == 0:
                raise UserError(
                    f"ModelConfig.{name} is not set. Include a model size, for example "
                    "--gin_file=gin/models/tiny_demo.gin, or bind it."
                )
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "dropout_rate", 0 <= self.dropout_rate < 1, "in [0, 1), for example 0.1")
        _require(self, "norm_epsilon", self.norm_epsilon > 0, "above 0, for example 1e-6")
        _require(
            self,
            "relpos_buckets",
            self.relpos_buckets >= 4 and self.relpos_buckets % 4 == 0,
            "a multiple of 4, for example 32",
        )
        _require(
            self,
            "relpos_max_distance",
            self.relpos_max_distance > self.relpos_buckets // 2,
            f"above relpos_buckets / 2 = {self.relpos_buckets // 2}, for example 128",
        )
        for name, allowed in (
            ("activations", ACTIVATIONS),
            ("dtype", DTYPES),
            ("remat", REMAT_POLICIES),
            ("attention", ATTENTION_IMPLEMENTATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise unknown_name(f"ModelConfig.{name}", getattr(self, name), allowed)
        if self.attention != "einsum" and self.dropout_rate > 0:
            raise UserError(
                f"ModelConfig.attention = {self.attention!r} cannot drop attention probabilities, "
                f"but dropout_rate = {self.dropout_rate}. Use attention = 'einsum', or "
                "dropout_rate = 0.0."
            )

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two input projections."""
        return self.activations.startswith("gated-")

    def num_params(self) -> int:
        """Number of parameters; 11,135,332,352 for T5 1.1 XXL."""
        attention = 4 * self.d_model * self.num_heads * self.head_dim
        mlp = (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder_layer = attention + mlp + 2 * self.d_model
        decoder_layer = 2 * attention + mlp + 3 * self.d_model
        stack_ends = 2 * (self.num_heads * self.relpos_buckets + self.d_model)
        embeddings = self.vocab_size * self.d_model * (1 if self.tied_output else 2)
        return (
            self.num_encoder_layers * encoder_layer
            + self.num_decoder_layers * decoder_layer
            + stack_ends
            + embeddings
        )

    def forward_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of one forward pass's matrix products over [B, S] sources and [B, T] targets.

        Padding counts, because it is computed; attention counts all S x S, T x T and T x S pairs;
        a multiply and its add are 2. Norms, softmax and the embedding gather are left out.
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

    def train_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of forward and backward (3 times forward), without what remat recomputes."""
        return 3 * self.forward_flops(batch_size, inputs, targets)

    def flops_per_token(self, inputs: int, targets: int) -> float:
        """`train_flops` of one packed row over its inputs + targets tokens."""
        return self.train_flops(1, inputs, targets) / (inputs + targets)


def _require(config: ModelConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"ModelConfig.{name} = {getattr(config, name)!r} must be {allowed}.")
