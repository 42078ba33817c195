"""`Model`: what training, evaluation and decoding know of a model.

B rows, S tokens of a prompt, T tokens of a row, D model, V vocabulary, M nodes of a tree, K
sequences of a prompt while decoding.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

Params = dict[str, Any]
Batch = Mapping[str, jax.Array]


class Model(Protocol):
    """Pure functions of a parameter tree (nested dicts of float32 arrays); holds no arrays.

    The configuration has `layout` (of batches), `describe()`, `num_params()`,
    `forward_flops(batch_size, inputs, targets)` and `train_flops(...)`. Axes of parameters follow
    from their paths (`mesh.py`). Prompts and caches are pytrees of the model's own structure.
    """

    @property
    def config(self) -> Any:
        """The configuration, a frozen dataclass."""
        ...

    @property
    def final_cap(self) -> float | None:
        """Soft cap of the logits (`instruct.head.head_logits`), or None."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        ...

    def abstract_params(self) -> Params:
        """Shapes and dtypes of `init`'s result; allocates nothing."""
        ...

    def apply(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, T, V] float32 of a teacher-forced batch of the configuration's layout."""
        ...

    def decoder_hidden(
        self, params: Params, batch: Batch, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] before the output head."""
        ...

    def head_kernel(self, params: Params) -> jax.Array:
        """[D, V] float32 output kernel."""
        ...

    def target_logits(self, params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Logits [B, T, V] float32 of each target token, given the prompt and the targets before.

        Args:
            params: as from `init`.
            inputs: [B, S] prompts, as in `start_prompts`.
            targets: [B, T] int32, padded below 0 on the right; there the logits mean nothing.
        """
        ...

    def tree_logits(
        self,
        params: Params,
        inputs: jax.Array,
        tokens: jax.Array,
        depths: jax.Array,
        seen: jax.Array,
    ) -> jax.Array:
        """Logits [B, M, V] float32 after each node of a tree of continuations.

        Args:
            params: as from `init`.
            inputs: [B, S] prompts, as in `start_prompts`.
            tokens: [B, M] int32, the input token of a node; 0 at the root.
            depths: [B, M] int32, the token's position in its continuation; 0 at the root only.
            seen: [B, M, M] boolean, the nodes that a node attends to: its ancestors and itself.
        """
        ...

    def int8_params(self, params: Params) -> Params:
        """The parameters with kernels in int8, adapters merged, for every method but training's."""
        ...

    def start_prompts(self, params: Params, tokens: jax.Array) -> Any:
        """Computes what decoding reads of prompts [B, S].

        Padding is on the right: a token below 0, or 0 too if no text has it
        (`EncoderDecoder`). Prompts of a `DecoderOnly` include its start tokens, if it has any.
        """
        ...

    def init_cache(
        self,
        prompts: Any,
        num_sequences: int,
        num_columns: int,
        reordered: bool = True,
        by_position: bool = False,
    ) -> Any:
        """Cache for `num_sequences` continuations of each prompt, of up to `num_columns` tokens.

        `reordered` allows `reorder_cache`, for beam search; `by_position` steps of several tokens,
        for one continuation a prompt.
        """
        ...

    def decode_step(
        self, params: Params, cache: Any, tokens: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Logits [B * K, V] float32 of the next token, and the cache with the current one in it.

        Args:
            params: as from `init`.
            cache: from `init_cache`, or of the previous step.
            tokens: [B * K] int32, the token at the row's position, ignored or 0 at position 0; the
                sequences of one prompt are adjacent. With a cache by position [B, M], the tokens
                from the row's position on, and the logits are [B, M, V].
            positions: [B] int32, from 0; a row's grows by one with each step, or with a cache by
                position by at most M; it may name a position again.
        """
        ...

    def fill_slots(
        self, cache: Any, prompts: Any, slots: jax.Array, rows: jax.Array, count: jax.Array
    ) -> Any:
        """Puts prompt `rows[i]` into slot `slots[i]`, for i below `count`."""
        ...

    def narrow(self, cache: Any, source_length: int) -> Any:
        """The cache cut to `source_length` tokens of prompts, which none in it exceeds."""
        ...

    def reorder_cache(self, cache: Any, beam_indices: jax.Array) -> Any:
        """See `decode_cache.reorder_cache`."""
        ...
