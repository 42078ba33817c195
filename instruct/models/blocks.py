"""Encoder and decoder layers, and the other modules of each stack.

NNX modules that hold only parameters, named as in T5X (`t5x/examples/t5/network.py`);
`encoder_decoder.py` splits them and runs them as functions. Pre-norm throughout; dropout on
attention probabilities, the MLP's hidden layer and the additions to the residual stream.
B rows, S source and T target tokens, D model, N heads, H head dim, K sequences of a row (while
decoding).
"""

import jax
from flax import nnx

from instruct.mesh import logical_constraint
from instruct.models.attention import Attention, CachePlace, KeyValue
from instruct.models.config import ModelConfig
from instruct.models.layers import MLP, Dense, Norm, RelativePositionBias, apply_kept, draw_kept
from instruct.models.masks import SegmentMask

# Axis names of the residual stream [B, T, D].
RESIDUAL = ("batch", "length", "model")


class EncoderLayer(nnx.Module):
    """Pre-norm self-attention and MLP, each added to its input."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.pre_attention_layer_norm = Norm(config, config.dtype)
        self.attention = Attention(config, rngs=rngs)
        if config.relpos_per_layer:
            self.relpos_bias = RelativePositionBias(config, bidirectional=True, rngs=rngs)
        self.pre_mlp_layer_norm = Norm(config, config.dtype)
        self.mlp = MLP(config, dtype=config.dtype, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        mask: jax.Array | SegmentMask,
        key: jax.Array | None,
    ) -> jax.Array:
        """[B, S, D] -> [B, S, D]; bias [1, N, S, S] and mask [B, 1, S, S], or as in `attend`."""
        rows, tokens, width = x.shape
        kept = draw_kept(
            key,
            self.config.dropout_rate,
            [
                (rows, self.config.num_heads, 1, tokens),
                (rows, 1, width),
                (rows, 1, self.config.d_ff),
                (rows, 1, width),
            ],
            self.config.dtype,
        )
        y = self.pre_attention_layer_norm(x)
        y = self.attention(y, self.attention.keys_values(y), bias, mask, kept[0])
        x = logical_constraint(x + apply_kept(y, kept[1]), RESIDUAL)
        y = self.mlp(self.pre_mlp_layer_norm(x), kept[2])
        return logical_constraint(x + apply_kept(y, kept[3]), RESIDUAL)


class DecoderLayer(nnx.Module):
    """Pre-norm self-attention, cross-attention and MLP, each added to its input."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.pre_self_attention_layer_norm = Norm(config, config.dtype)
        self.self_attention = Attention(config, rngs=rngs)
        if config.relpos_per_layer:
            self.relpos_bias = RelativePositionBias(config, bidirectional=False, rngs=rngs)
        self.pre_cross_attention_layer_norm = Norm(config, config.dtype)
        self.encoder_decoder_attention = Attention(config, rngs=rngs)
        self.pre_mlp_layer_norm = Norm(config, config.dtype)
        self.mlp = MLP(config, dtype=config.dtype, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        encoded: jax.Array,
        bias: jax.Array,
        mask: jax.Array | SegmentMask,
        cross_mask: jax.Array | SegmentMask,
        key: jax.Array | None,
    ) -> jax.Array:
        """[B, T, D] and encoded [B, S, D] -> [B, T, D]; masks as in `masks.py`."""
        rows, tokens, width = x.shape
        heads = self.config.num_heads
        kept = draw_kept(
            key,
            self.config.dropout_rate,
            [
                (rows, heads, 1, tokens),
                (rows, 1, width),
                (rows, heads, 1, encoded.shape[1]),
                (rows, 1, width),
                (rows, 1, self.config.d_ff),
                (rows, 1, width),
            ],
            self.config.dtype,
        )
        y = self.pre_self_attention_layer_norm(x)
        y = self.self_attention(y, self.self_attention.keys_values(y), bias, mask, kept[0])
        x = logical_constraint(x + apply_kept(y, kept[1]), RESIDUAL)
        cross = self.encoder_decoder_attention
        y = self.pre_cross_attention_layer_norm(x)
        y = cross(y, cross.keys_values(encoded), None, cross_mask, kept[2])
        x = logical_constraint(x + apply_kept(y, kept[3]), RESIDUAL)
        y = self.mlp(self.pre_mlp_layer_norm(x), kept[4])
        return logical_constraint(x + apply_kept(y, kept[5]), RESIDUAL)

    def decode_step(
        self,
        x: jax.Array,
        memory: KeyValue,
        cross: KeyValue,
        cross_mask: jax.Array,
        place: CachePlace,
    ) -> tuple[jax.Array, KeyValue]:
        """One token of each sequence [R, Q, D] -> [R, Q, D] and this layer's updated cache.

        `memory` as in `Attention.decode_step`; `cross`, also with turned keys, serves all sequences
        of a prompt as queries (B * K = R * Q).
        """
        y, memory = self.self_attention.decode_step(
            self.pre_self_attention_layer_norm(x), memory, place
        )
        x = x + y
        y = self.pre_cross_attention_layer_norm(x)
        y = y.reshape(cross.key.shape[0], -1, y.shape[-1])
        # A flash kernel's blocks of queries would be empty but for one.
        y = self.encoder_decoder_attention(
            y, cross.turned(), None, cross_mask, implementation="einsum"
        )
        x = x + y.reshape(x.shape)
        return x + self.mlp(self.pre_mlp_layer_norm(x)), memory


class EncoderFrame(nnx.Module):
    """The encoder's modules outside its layers."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if not config.relpos_per_layer:
            self.relpos_bias = RelativePositionBias(config, bidirectional=True, rngs=rngs)
        self.encoder_norm = Norm(config, config.dtype)


class DecoderFrame(nnx.Module):
    """The decoder's modules outside its layers."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if not config.relpos_per_layer:
            self.relpos_bias = RelativePositionBias(config, bidirectional=False, rngs=rngs)
        self.decoder_norm = Norm(config, config.dtype)
        if not config.tied_output:
            self.logits_dense = Dense(config.d_model, config.vocab_size, dtype="float32", rngs=rngs)
