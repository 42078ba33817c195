"""`PairConfig`: an encoder-decoder of two stacks, as T5Gemma and T5Gemma 2. Imports no jax."""

import dataclasses
from typing import Any

from instruct.errors import UserError
from instruct.fields import bounded, check_fields, one_of
from instruct.models.stack_config import ComputeConfig, StackConfig, size

_NO_STACK: Any = None  # refused by `check_fields`, which says what to bind


@dataclasses.dataclass(frozen=True)
class PairConfig(ComputeConfig):
    """A bidirectional stack that encodes sources, and a causal one that also attends to them.

    On a TPU attention = 'flash' is computed as 'einsum'.

    Raises:
        UserError: a field has a wrong type or value, or fields contradict each other.
    """

    encoder: StackConfig = _NO_STACK
    decoder: StackConfig = _NO_STACK
    # Rows of the embedding (V); at least the vocabulary's size, a multiple of 128 shards best.
    vocab_size: int = size("--gin_file=gin/models/t5gemma_s_s.gin")
    # 'separate': cross-attention with weights and norms of its own (T5Gemma). 'merged': the
    # decoder's attention has the sources' keys, which it computes without rotation, in the same
    # softmax as its own (T5Gemma 2).
    cross: str = one_of("separate", ("separate", "merged"))
    # What a local layer of the encoder attends to: `window` tokens on each side, or `window` tokens
    # in all, itself in their middle (T5Gemma 2).
    encoder_window: str = one_of("each_side", ("each_side", "centred"))
    # Encoder and decoder read one embedding.
    shared_embedding: bool = False
    # The output kernel is the decoder's embedding transposed.
    tied_output: bool = True
    # Logits are cap * tanh(logits / cap).
    final_cap: float | None = bounded(None, above=0, note=", for example 30.0, or None")
    # The decoder's input at the first position, where batches have 0: Gemma's beginning of text.
    start_id: int = bounded(2, least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        widths = self.encoder.d_model, self.decoder.d_model
        for name, needs in (
            ("cross", self.cross == "merged"),
            ("shared_embedding", self.shared_embedding),
        ):
            if needs and widths[0] != widths[1]:
                raise UserError(
                    f"PairConfig.{name} is {getattr(self, name)!r}, which needs one width, but "
                    f"d_model is {widths[0]} in the encoder and {widths[1]} in the decoder."
                )
        if self.decoder.parallel:
            raise UserError("PairConfig.decoder.parallel is True; use False for a decoder.")
        if self.start_id >= self.vocab_size:
            raise UserError(
                f"PairConfig.start_id is {self.start_id}; use a token below vocab_size = "
                f"{self.vocab_size}."
            )

    @property
    def layout(self) -> str:
        """Name of the layout of its batches."""
        return "encoder_decoder"

    @property
    def d_model(self) -> int:
        """Width of what the output head reads."""
        return self.decoder.d_model

    @property
    def windows(self) -> tuple[int | None, ...]:
        """`window` of each layer of the decoder's period."""
        return self.decoder.windows

    @property
    def encoder_reach(self) -> tuple[int, int]:
        """Tokens behind and ahead of a token that a local layer of the encoder attends to."""
        window = self.encoder.window or 0
        if self.encoder_window == "each_side":
            return window, window
        return (window - 1) // 2, window // 2

    def describe(self) -> str:
        """Sizes and kind in one line."""
        return (
            f"encoder {self.encoder.describe()}; decoder {self.decoder.describe()}, {self.cross} "
            f"cross-attention; vocabulary {self.vocab_size}, "
            f"{'tied' if self.tied_output else 'untied'} output"
        )

    def num_params(self) -> int:
        """Number of parameters."""
        encoder, decoder = self.encoder, self.decoder
        count = encoder.stack_params() + decoder.stack_params()
        if self.cross == "separate":
            norms = (2 if decoder.post_norms else 1) * decoder.norm_params
            count += decoder.num_layers * (decoder.attention_params(encoder.d_model) + norms)
        count += self.vocab_size * decoder.d_model * (1 if self.tied_output else 2)
        return count + (0 if self.shared_embedding else self.vocab_size * encoder.d_model)

    def forward_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of one forward pass's matrix products over [B, S] sources and [B, T] targets.

        Includes padding and all pairs of attention, those that masks hide too; a multiply-add is 2.
        Excludes norms, softmax and the embedding gather.
        """
        decoder = self.decoder
        queries, keys = (n * decoder.head_dim for n in (decoder.num_heads, decoder.num_kv_heads))
        cross = 4 * inputs * self.encoder.d_model * keys + 4 * targets * inputs * queries
        if self.cross == "separate":
            cross += 4 * targets * decoder.d_model * queries
        row = self.encoder.stack_flops(inputs) + decoder.stack_flops(targets)
        row += decoder.num_layers * cross + 2 * targets * decoder.d_model * self.vocab_size
        return batch_size * row
