"""Llama, Gemma 2 and 3, Qwen 2 and 3 of Hugging Face: names of weights, `config.json` both ways.

Settings are read as transformers reads them, with its defaults, in the forms of version 4
(`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`); written is the first, which both read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.checkpoints.family import Family, build, check_fixed, check_flags, computed, required
from instruct.checkpoints.weights import MOST_LAYERS, Rule
from instruct.errors import UserError
from instruct.fields import Range, check_value
from instruct.models.decoder_config import DecoderConfig
from instruct.models.stack_config import RopeScaling, StackConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"
_KINDS = {LOCAL: "local", GLOBAL: "global"}
# Names of transformers' functions -> our gated activations; the first of each is written.
_ACTIVATIONS = {
    "silu": "gated-silu",
    "swish": "gated-silu",
    "gelu_pytorch_tanh": "gated-gelu",
    "gelu_new": "gated-gelu",
    "gelu": "gated-gelu-exact",
}
_STACK_FIELDS = {
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "norm_epsilon",
}
_ENDS = {"vocab_size": "vocab_size", "tie_word_embeddings": "tied_output"}
# Of `RopeScaling`, by its kind.
_SCALING_FIELDS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_length",
    },
}


@dataclasses.dataclass(frozen=True)
class StackSettings:
    """How a `model_type` describes a stack of blocks."""

    # Our fields that follow from the class.
    fixed: Mapping[str, Any]
    # transformers' defaults of the settings that it may leave out.
    defaults: Mapping[str, Any]
    activation: str = "hidden_act"
    # Settings that may be None -> our fields.
    caps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Settings that are true or false -> (our field, its values for false and true).
    flags: Mapping[str, tuple[str, tuple[Any, Any]]] = dataclasses.field(default_factory=dict)
    # Whether `query_pre_attn_scalar` gives the scale of queries.
    query_scalar: bool = False
    # Theta of rotary positions in local layers, if it is their own.
    local_theta: float | None = None

    def read(self, config: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Fields of a `StackConfig`."""
        config = {**self.defaults, **config}
        check_flags(config, tuple(self.flags), place)
        check_fixed(config, {"use_bidirectional_attention": False}, place)
        if config.get("num_key_value_heads") is None:
            config["num_key_value_heads"] = config.get("num_attention_heads")
        width, heads = config.get("hidden_size"), config.get("num_attention_heads")
        if config.get("head_dim") is None and type(width) is type(heads) is int and heads:
            config["head_dim"] = width // heads
        fields = dict(self.fixed) | required(config, _STACK_FIELDS, place)
        setting = f"{place}: {self.activation}"
        fields["activations"] = computed(config.get(self.activation), _ACTIVATIONS, setting)
        fields |= {ours: config.get(theirs) for theirs, ours in self.caps.items()}
        for name, (ours, values) in self.flags.items():
            fields[ours] = values[bool(config.get(name))]
        if self.query_scalar:
            scalar = config["query_pre_attn_scalar"]
            check_value(f"{place}: query_pre_attn_scalar", scalar, float, Range(above=0))
            fields["query_scale"] = None if scalar == fields["head_dim"] else scalar**-0.5
        return fields | self._read_layers(config, place) | self._read_positions(config, place)

    def _read_layers(self, config: Mapping[str, Any], place: str) -> dict[str, Any]:
        if "sliding_window" not in self.defaults:  # the class has no local layers
            return {}
        depth, types = config["num_hidden_layers"], config.get("layer_types")
        check_value(f"{place}: num_hidden_layers", depth, int, Range(least=1, most=MOST_LAYERS))
        window = config["sliding_window"] if config.get("use_sliding_window", True) else None
        if types is None and "sliding_window_pattern" in self.defaults:
            period = config["sliding_window_pattern"]  # of which the last layer is global
            check_value(f"{place}: sliding_window_pattern", period, int, Range(least=1))
            types = [LOCAL if (i + 1) % period else GLOBAL for i in range(depth)]
        elif types is None:
            first = depth if window is None else config["max_window_layers"]
            check_value(f"{place}: max_window_layers", first, int)
            types = [LOCAL if i >= first else GLOBAL for i in range(depth)]
        if (
            not isinstance(types, Sequence)
            or len(types) != depth
            or not set(map(str, types)) <= set(_KINDS)
        ):
            raise UserError(
                f"{place}: layer_types is {types!s:.200}; it must name {LOCAL} or {GLOBAL} for "
                f"each of {depth} layers."
            )
        if LOCAL not in types:
            return {}
        if window is None:
            raise UserError(
                f"{place}: layer_types has {LOCAL}, but sliding_window is not set (or not used: "
                "use_sliding_window). Download or copy it again."
            )
        kinds = tuple(_KINDS[name] for name in types)
        repeats = (n for n in range(1, depth + 1) if kinds == (kinds[:n] * depth)[:depth])
        return {"window": window, "layer_pattern": kinds[: next(repeats)]}

    def _read_positions(self, config: Mapping[str, Any], place: str) -> dict[str, Any]:
        parameters = _settings(config, "rope_parameters", place)
        full, local = parameters, {}
        if self.local_theta is not None:
            full, local = (_settings(parameters, kind, place) for kind in (GLOBAL, LOCAL))
            if parameters and not full and not local:
                raise UserError(f"{place}: rope_parameters must be given by {LOCAL} and {GLOBAL}.")
        scaled = _settings(config, "rope_scaling", place)
        full = {"rope_theta": config["rope_theta"], **full, **scaled}
        local = {"rope_theta": config.get("rope_local_base_freq") or self.local_theta} | local
        check_fixed({**config, **full}, {"partial_rotary_factor": 1.0}, place)
        check_fixed(local, {"rope_type": "default", "partial_rotary_factor": 1.0}, place)
        fields = {"rope_theta": full["rope_theta"]}
        if self.local_theta is not None:
            fields["local_rope_theta"] = local["rope_theta"]
        kind = full.get("rope_type", full.get("type")) or "default"
        names = computed(kind, _SCALING_FIELDS, f"{place}: rope_scaling of type")
        if not names:
            return fields
        full.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
        scaling = required(full, names, f"{place}: rope_scaling")
        return fields | {"rope_scaling": build(RopeScaling, {"kind": kind, **scaling}, place)}

    def write(self, stack: StackConfig) -> dict[str, Any]:
        """The inverse of `read`."""
        config = {theirs: getattr(stack, ours) for theirs, ours in _STACK_FIELDS.items()}
        functions = [name for name, ours in _ACTIVATIONS.items() if ours == stack.activations]
        config[self.activation] = functions[0] if functions else stack.activations
        config |= {theirs: getattr(stack, ours) for theirs, ours in self.caps.items()}
        for name, (ours, values) in self.flags.items():
            config[name] = getattr(stack, ours) == values[True]
        if self.query_scalar:
            scale = stack.query_scale
            config["query_pre_attn_scalar"] = round(scale**-2) if scale else stack.head_dim
        if "sliding_window" in self.defaults:
            depth = stack.num_layers
            kinds = (stack.layer_pattern * depth)[:depth]
            names = {kind: name for name, kind in _KINDS.items()}
            config["layer_types"] = [names[kind] for kind in kinds]
            config["sliding_window"] = stack.window
            if "use_sliding_window" in self.defaults:
                first = kinds.index("local") if "local" in kinds else depth
                config |= {"use_sliding_window": first < depth, "max_window_layers": first}
        config |= {"rope_theta": stack.rope_theta, "rope_scaling": None}
        if self.local_theta is not None:
            config["rope_local_base_freq"] = stack.local_rope_theta or self.local_theta
        if (scaling := stack.rope_scaling) is not None:
            names = _SCALING_FIELDS[scaling.kind]
            config["rope_scaling"] = {"rope_type": scaling.kind} | {
                theirs: getattr(scaling, ours) for theirs, ours in names.items()
            }
        return config


def _settings(config: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    """Settings within settings; {} for none."""
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: {name} is {value!s:.60}; it must be an object with settings.")
    return dict(value)


ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
_MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}


def kernel_rules(ours: str, theirs: str, names: Mapping[str, str]) -> list[Rule]:
    """Rules of projections with their biases."""
    kernels = [
        Rule(f"{ours}/{our}/kernel", f"{theirs}.{name}.weight", "transposed")
        for our, name in names.items()
    ]
    return kernels + [Rule(f"{ours}/{o}/bias", f"{theirs}.{t}.bias") for o, t in names.items()]


def stack_rules(stack: str, theirs: str, norms: Mapping[str, str]) -> list[Rule]:
    """Rules of all that a stack of blocks may have; `norms` of a layer: our name -> theirs."""
    layer, block = f"{stack}/layers_{{i}}", f"{theirs}.layers.{{i}}"
    rules = kernel_rules(f"{layer}/attention", f"{block}.self_attn", ATTENTION)
    rules += kernel_rules(f"{layer}/mlp", f"{block}.mlp", _MLP)
    scales = {f"{ours}/scale": f"{name}.weight" for ours, name in norms.items()}
    scales["attention/query_norm/scale"] = "self_attn.q_norm.weight"
    scales["attention/key_norm/scale"] = "self_attn.k_norm.weight"
    rules += [Rule(f"{layer}/{ours}", f"{block}.{name}") for ours, name in scales.items()]
    return [*rules, Rule(f"{stack}/{stack}_norm/scale", f"{theirs}.norm.weight")]


_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_PRE_NORMS = {
    "pre_attention_norm": "input_layernorm",
    "pre_mlp_norm": "post_attention_layernorm",
}
GEMMA_NORMS = {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


def _family(
    model_type: str,
    architecture: str,
    stack: StackSettings,
    norms: Mapping[str, str] = _PRE_NORMS,
) -> Family:
    """The family of a decoder-only class."""
    caps = {"final_logit_softcapping": "final_cap"} if stack.caps else {}

    def read(config: Mapping[str, Any], place: str) -> DecoderConfig:
        config = {**stack.defaults, **config}
        check_flags(config, ("tie_word_embeddings",), place)
        fields = stack.read(config, place) | required(config, _ENDS, place)
        fields |= {ours: config.get(theirs) for theirs, ours in caps.items()}
        return build(DecoderConfig, fields, place)

    def write(model: DecoderConfig) -> dict[str, Any]:
        return stack.write(model) | {t: getattr(model, o) for t, o in (_ENDS | caps).items()}

    return Family(
        model_type=model_type,
        architecture=architecture,
        config_class=DecoderConfig,
        rules=(
            Rule("token_embedder/embedding", _EMBEDDING),
            Rule("decoder/logits_dense/kernel", _HEAD, "transposed"),
            *stack_rules("decoder", "model", norms),
        ),
        embedding=_EMBEDDING,
        head=_HEAD,
        read=read,
        write=write,
        fixed={"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
        ignored={
            r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "computed from rope_theta",
        },
    )


_BIAS = {"attention_bias": ("attention_bias", ("none", "all"))}
_LLAMA = StackSettings(
    fixed={},
    defaults={
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    flags=_BIAS | {"mlp_bias": ("mlp_bias", (False, True))},
)
_QWEN2 = StackSettings(
    fixed={"attention_bias": "qkv"},
    defaults={
        **_LLAMA.defaults,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 32,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
)
_QWEN3 = dataclasses.replace(
    _QWEN2, fixed={"qk_norm": True}, defaults={**_QWEN2.defaults, "head_dim": 128}, flags=_BIAS
)
GEMMA2_STACK = StackSettings(
    fixed={"norm": "rms_plus_one", "post_norms": True, "embedding_scale": True},
    defaults={
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "vocab_size": 256_000,
        "tie_word_embeddings": True,
    },
    activation="hidden_activation",
    caps={"attn_logit_softcapping": "attention_cap"},
    flags=_BIAS,
    query_scalar=True,
)
GEMMA3_STACK = dataclasses.replace(
    GEMMA2_STACK,
    fixed={**GEMMA2_STACK.fixed, "qk_norm": True},
    defaults={
        **GEMMA2_STACK.defaults,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 131_072,
        "sliding_window_pattern": 6,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "vocab_size": 262_208,
    },
    local_theta=10_000.0,
)
_GEMMA3 = _family("gemma3_text", "Gemma3ForCausalLM", GEMMA3_STACK, GEMMA_NORMS)
VISION = "of the vision tower, which is not computed here: the model reads text only"
# The text part of Gemma3ForConditionalGeneration, which is written as Gemma3ForCausalLM. Its names
# begin otherwise in files of transformers 4 and 5.
_GEMMA3_VISION = dataclasses.replace(
    _GEMMA3,
    text_config="text_config",
    renamed={
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
        "model.language_model.": "model.",
    },
    ignored={**_GEMMA3.ignored, r"(model\.)?(vision_tower|multi_modal_projector)\..*": VISION},
)
# By `model_type` in config.json.
DECODERS = {
    "llama": _family("llama", "LlamaForCausalLM", _LLAMA),
    "qwen2": _family("qwen2", "Qwen2ForCausalLM", _QWEN2),
    "qwen3": _family("qwen3", "Qwen3ForCausalLM", _QWEN3),
    "gemma2": _family("gemma2", "Gemma2ForCausalLM", GEMMA2_STACK, GEMMA_NORMS),
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3_VISION,
}
