"""`StackConfig`: one stack of transformer blocks by configuration, and how a model computes.

Axis letters as in `docs/architecture.md`. Imports no jax.
"""

import dataclasses
from typing import Any

from instruct.errors import UserError
from instruct.fields import bounded, check_fields, one_of

ACTIVATIONS = (
    *("gated-gelu", "gated-gelu-exact", "gated-silu"),
    *("gelu", "gelu-exact", "silu", "relu"),
)
ATTENTION_IMPLEMENTATIONS = ("einsum", "flash", "xla", "cudnn")


def size(example: str) -> Any:
    """Declares a field without a default: `check_fields` refuses 0 and names a file to include."""
    return bounded(0, least=1, note=f": include a model size, such as {example}, or bind it")


def _size() -> Any:
    return size("--gin_file=gin/models/tiny_decoder.gin")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary positions stretch beyond the length of pretraining.

    'linear' divides all frequencies by `factor` (Gemma 3). 'llama3' divides those whose wavelength
    is above original_length / low_frequency_factor, keeps those below original_length /
    high_frequency_factor, and interpolates between (Llama 3.1).
    """

    kind: str = one_of("linear", ("linear", "llama3"))
    factor: float = bounded(1.0, least=1, note=", for example 8.0")
    low_frequency_factor: float = bounded(1.0, above=0)
    high_frequency_factor: float = bounded(4.0, above=0)
    # Tokens of pretraining.
    original_length: int = bounded(8192, least=1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind == "llama3" and self.high_frequency_factor <= self.low_frequency_factor:
            raise UserError(
                f"RopeScaling.high_frequency_factor is {self.high_frequency_factor}; use a number "
                f"above low_frequency_factor = {self.low_frequency_factor}, for example "
                f"{4 * self.low_frequency_factor}."
            )


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Architecture of one stack of blocks; Llama's by default.

    Raises:
        UserError: a field has a wrong type or value, or fields contradict each other.
    """

    # Width of the residual stream (D).
    d_model: int = _size()
    num_layers: int = _size()
    # Query heads (N), and key-value heads (K, a divisor): N is multi-head, 1 is multi-query.
    num_heads: int = _size()
    num_kv_heads: int = _size()
    # Width of a head (H); N * H need not be d_model.
    head_dim: int = _size()
    # Width of the MLP's hidden layer (F).
    d_ff: int = _size()
    # Gated ones multiply two input projections, the others have one. 'gelu' is the tanh form.
    activations: str = one_of("gated-silu", ACTIVATIONS)
    # RMS with a factor w ('rms') or 1 + w (Gemma), or layer norm (PaLM).
    norm: str = one_of("rms", ("rms", "rms_plus_one", "layer"))
    norm_epsilon: float = bounded(1e-6, above=0, note=", for example 1e-6")
    # Layer norm with a bias.
    norm_bias: bool = False
    # Norms of the results of attention and MLP too, before they are added (Gemma 2 and 3).
    post_norms: bool = False
    # Attention and MLP read one norm of x and are added together (PaLM).
    parallel: bool = False
    # Rotary positions of queries and keys, or no positions.
    position: str = one_of("rope", ("rope", "none"))
    # Longest wavelength / 2 pi, and its stretching, in global layers.
    rope_theta: float = bounded(10_000.0, above=1, note=", for example 10000.0")
    rope_scaling: RopeScaling | None = None
    # Theta of local layers, without stretching (Gemma 3); None: as in global layers.
    local_rope_theta: float | None = bounded(None, above=1, note=", for example 10000.0, or None")
    # Tokens that a local layer attends to, itself included; needs 'local' in layer_pattern.
    window: int | None = bounded(None, least=1, note=", for example 4096, or None")
    # 'local' or 'global' of each layer, repeated over the stack.
    layer_pattern: tuple[str, ...] = ("global",)
    # RMS norm of queries and keys in each head, before rotation (Gemma 3, Qwen 3).
    qk_norm: bool = False
    # Logits are cap * tanh(logits / cap).
    attention_cap: float | None = bounded(None, above=0, note=", for example 50.0, or None")
    # Factor of query-key products; None: H^-0.5.
    query_scale: float | None = bounded(None, above=0, note=", for example 0.0625, or None")
    # Biases of no projection, of query, key and value (Qwen 2), or of the output too.
    attention_bias: str = one_of("none", ("none", "qkv", "all"))
    mlp_bias: bool = False
    # Embeddings times sqrt(D), a factor that is rounded to `dtype` (Gemma).
    embedding_scale: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.layer_pattern, list):  # as gin writes it, too
            object.__setattr__(self, "layer_pattern", tuple(self.layer_pattern))
        check_fields(self)
        name, pattern = type(self).__name__, self.layer_pattern
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"{name}.num_kv_heads is {self.num_kv_heads}; use a divisor of num_heads = "
                f"{self.num_heads}: {_divisors(self.num_heads)}."
            )
        if self.position == "rope" and self.head_dim % 2:
            raise UserError(
                f"{name}.head_dim is {self.head_dim}; rotary positions need an even number, for "
                f"example {self.head_dim + 1}."
            )
        if not pattern or not isinstance(pattern, tuple) or set(pattern) - {"local", "global"}:
            raise UserError(
                f"{name}.layer_pattern is {pattern!r}; use a tuple of 'local' and 'global', for "
                "example ('local', 'global')."
            )
        if (self.window is None) == ("local" in pattern):
            fix = "add 'local' to layer_pattern" if self.window else "set window to its tokens"
            raise UserError(
                f"{name}.window is {self.window}, but layer_pattern is {pattern!r}: {fix}, or use "
                "window = None and layer_pattern = ('global',)."
            )
        if self.parallel and self.post_norms:
            raise UserError(
                f"{name}: parallel blocks have no post_norms; set one of them to False."
            )
        if self.norm_bias and self.norm != "layer":
            raise UserError(f"{name}.norm_bias is True; only norm = 'layer' has biases.")

    def describe(self) -> str:
        """Sizes and kind in one line."""
        windows = f", window {self.window} in {'/'.join(self.pattern)}" if self.window else ""
        return (
            f"{self.num_layers} layers, d_model {self.d_model}, {self.num_heads} heads x "
            f"{self.head_dim} ({self.num_kv_heads} of keys and values), d_ff {self.d_ff}, "
            f"{self.activations}{windows}"
        )

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two input projections."""
        return self.activations.startswith("gated-")

    @property
    def pattern(self) -> tuple[str, ...]:
        """`layer_pattern` without layers beyond the stack: the period of the loop over layers."""
        return self.layer_pattern[: self.num_layers]

    @property
    def windows(self) -> tuple[int | None, ...]:
        """`window` of each layer of a period; None in global ones."""
        return tuple(self.window if kind == "local" else None for kind in self.pattern)

    @property
    def norm_params(self) -> int:
        """Parameters of one norm of width D."""
        return self.d_model * (2 if self.norm_bias else 1)

    def attention_params(self, memory_width: int | None = None) -> int:
        """Parameters of one attention; `memory_width`: width of what keys and values read, or D."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        count = 2 * self.d_model * queries + 2 * (memory_width or self.d_model) * keys
        if self.attention_bias != "none":
            count += queries + 2 * keys
        if self.attention_bias == "all":
            count += self.d_model
        return count + (2 * self.head_dim if self.qk_norm else 0)

    def stack_params(self) -> int:
        """Parameters of all layers and the final norm, without embeddings and cross-attention."""
        inputs = 2 if self.gated else 1
        mlp = (inputs + 1) * self.d_model * self.d_ff
        if self.mlp_bias:
            mlp += inputs * self.d_ff + self.d_model
        norms = (1 if self.parallel else 2) + (2 if self.post_norms else 0)
        layer = self.attention_params() + mlp + norms * self.norm_params
        return self.num_layers * layer + self.norm_params

    def stack_flops(self, tokens: int) -> int:
        """FLOPs of one sequence's matrix products in all layers, all pairs of tokens counted."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        projections = 4 * self.d_model * (queries + keys)
        mlp = 2 * (3 if self.gated else 2) * self.d_model * self.d_ff
        return self.num_layers * tokens * (projections + mlp + 4 * tokens * queries)


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How a model computes; `dtype` and `float32_attention_logits` change numbers."""

    # Share of values zeroed in training.
    dropout_rate: float = bounded(0.0, least=0, below=1, note=", for example 0.1")
    # Type of the activations; parameters are always float32.
    dtype: str = one_of("float32", ("float32", "bfloat16"))
    # Query-key products and softmax in float32 for any `dtype`.
    float32_attention_logits: bool = False
    # A loop over one compiled period of layers instead of a program that grows with depth.
    scan_layers: bool = False
    # What the backward pass recomputes: nothing, all but weight products, all. Speed only.
    remat: str = one_of("none", ("none", "minimal", "full"))
    # 'einsum' holds the logits of whole rows in memory. 'flash' does not on a TPU (T5's stacks
    # `models/flash.py`, causal ones `models/splash.py`); it is 'cudnn' on a GPU and 'einsum' on a
    # CPU. 'xla' and 'cudnn' are jax.nn.dot_product_attention. Speed and memory; all but 'einsum'
    # compute logits and softmax in float32, 'einsum' in `dtype` unless float32_attention_logits.
    # Only 'einsum' and splash have soft caps.
    attention: str = one_of("einsum", ATTENTION_IMPLEMENTATIONS)

    def forward_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of one forward pass over a batch of rows of these lengths."""
        raise NotImplementedError

    def train_flops(self, batch_size: int, inputs: int, targets: int) -> int:
        """FLOPs of forward and backward (3 times forward), without remat's recomputation."""
        return 3 * self.forward_flops(batch_size, inputs, targets)


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
