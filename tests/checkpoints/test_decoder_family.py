"""Llama, Gemma and Qwen: transformers' logits, its files back to the bit, published settings."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, native, safetensors_files, t5x_writing
from instruct.checkpoints.arrays import BFLOAT16
from instruct.checkpoints.convert import convert, describe
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.huggingface_config import FAMILIES, config_of_model, open_config
from instruct.checkpoints.loading import load_initial, load_params
from instruct.checkpoints.weights import fit, model_shapes
from instruct.errors import UserError
from instruct.models.model import make_model
from tests.checkpoints.conftest import random_arrays, tree_of
from tests.checkpoints.decoder_models import MODELS, random_decoder

FLOAT32 = np.dtype(np.float32)


@pytest.fixture(scope="module", params=list(MODELS))
def saved(request, tmp_path_factory):
    """(transformers' model, the folder that it saved itself to)."""
    model = random_decoder(request.param)
    folder = tmp_path_factory.mktemp("decoders") / request.param
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.slow
def test_logits_are_those_of_transformers(saved):
    torch = pytest.importorskip("torch")
    theirs, folder = saved
    opened = open_checkpoint(folder)
    model = make_model(opened.model)
    # Several times as long as a window.
    tokens = np.random.default_rng(0).integers(3, 37, (3, 11)).astype(np.int32)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens).long()).logits.numpy()
    found = jax.jit(model.apply)(tree_of(opened.arrays), {"decoder_input_tokens": tokens})
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert np.abs(expected).max() > 1


@pytest.mark.slow
def test_transformers_to_ours_and_back(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, folder = saved
    report = convert(folder, tmp_path / "ours", "instruct")
    assert not report.of("missing", "left over", "shape differs")
    assert open_checkpoint(tmp_path / "ours").model == open_checkpoint(folder).model
    convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values()), info
    expected = {
        name.replace("model.language_model.", "model."): tensor
        for name, tensor in theirs.state_dict().items()
        if "vision_tower" not in name and "multi_modal" not in name
    }
    found = loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in found.items())
    text = theirs.config.get_text_config().to_dict()
    differing = {
        name: (value, text.get(name))
        for name, value in loaded.config.to_dict().items()
        if value != text.get(name)
    }
    # Written by name in version 4 of transformers; kept of a class, not of its text model.
    assert differing.keys() <= {"architectures", "dtype", "_name_or_path", "max_window_layers"}


def test_a_vision_tower_is_dropped_and_named(tmp_path):
    pytest.importorskip("transformers")
    random_decoder("gemma3_vision").save_pretrained(tmp_path / "new")
    opened = huggingface.open_checkpoint(tmp_path / "new")
    assert any("of the vision tower, which is not computed" in note for note in opened.notes)
    # Version 4 put other words in front of the names.
    arrays = safetensors_files.read_file(tmp_path / "new" / huggingface.SINGLE)
    assert any(name.startswith("language_model.model.") for name in arrays)
    renamed = {
        name.replace("language_model.model.", "model.language_model."): array
        for name, array in arrays.items()
    }
    (tmp_path / "old").mkdir()
    safetensors_files.write_file(tmp_path / "old" / huggingface.SINGLE, renamed, FLOAT32, {})
    (tmp_path / "old/config.json").write_bytes((tmp_path / "new/config.json").read_bytes())
    other = huggingface.open_checkpoint(tmp_path / "old")
    assert other.arrays.keys() == opened.arrays.keys() and not other.unknown


# As published, what does not matter here left out; (config.json, parameters of the text model).
_GEMMA3_TEXT = {
    **{"hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text"},
    **{"num_hidden_layers": 34, "sliding_window": 1024},
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
PUBLISHED = {
    "Llama-3.2-1B": (
        {
            **{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192},
            **{"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
            **{"head_dim": 64, "rope_theta": 500_000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu"},
            **{"vocab_size": 128_256, "tie_word_embeddings": True, "attention_bias": False},
            "rope_scaling": {
                **{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0},
                **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
            },
        },
        1_235_814_400,
    ),
    "gemma-2-2b": (
        {
            **{"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216},
            **{"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4},
            **{"head_dim": 256, "rope_theta": 10_000.0, "rms_norm_eps": 1e-6},
            **{"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
            **{"vocab_size": 256_000, "query_pre_attn_scalar": 256, "sliding_window": 4096},
            **{"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        },
        2_614_341_888,
    ),
    "gemma-3-4b": ({"model_type": "gemma3", "text_config": _GEMMA3_TEXT}, 3_880_263_168),
    "Qwen2.5-0.5B": (
        {
            **{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864},
            **{"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2},
            **{"rope_theta": 1_000_000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu"},
            **{"vocab_size": 151_936, "tie_word_embeddings": True, "max_window_layers": 24},
            **{"sliding_window": 32_768, "use_sliding_window": False},
        },
        494_032_768,
    ),
    "Qwen3-0.6B": (
        {
            **{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072},
            **{"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
            **{
                "head_dim": 128,
                "rope_theta": 1_000_000,
                "rms_norm_eps": 1e-6,
                "rope_scaling": None,
            },
            **{"hidden_act": "silu", "vocab_size": 151_936, "tie_word_embeddings": True},
            **{"attention_bias": False, "sliding_window": None, "use_sliding_window": False},
        },
        596_049_920,
    ),
}


def model_of(config, place="config.json"):
    family, settings = open_config(config, place)
    return family.read(settings, place)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_settings_there_and_back(name):
    config, num_params = PUBLISHED[name]
    model = model_of(config)
    assert model.num_params() == num_params
    written = config_of_model(model, FLOAT32, config | {"pad_token_id": 3})
    assert model_of(written) == model and written["pad_token_id"] == 3
    text = config.get("text_config", config)
    unread = {"hidden_act", "sliding_window", "max_window_layers"}
    assert {key: written[key] for key in text.keys() - unread} == {
        key: text[key] for key in text.keys() - unread
    }
    assert model_of(config_of_model(model, FLOAT32)) == model  # without an earlier one


def test_layers_of_gemma3_as_published():
    model = model_of(PUBLISHED["gemma-3-4b"][0])
    assert model.layer_pattern == ("local",) * 5 + ("global",) and model.window == 1024
    assert (model.rope_theta, model.local_rope_theta) == (1e6, 1e4)
    assert model.rope_scaling.kind == "linear" and model.query_scale is None


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Llama-3.2-1B", {"model_type": "mistral"}, "'mistral' is not read; .*llama, qwen2"),
        ("Llama-3.2-1B", {"hidden_act": "mish"}, "hidden_act 'mish' is not computed"),
        ("Llama-3.2-1B", {"rope_scaling": {"type": "dynamic"}}, "type 'dynamic' is not computed"),
        ("Llama-3.2-1B", {"rope_scaling": {"type": "linear"}}, "rope_scaling lacks factor"),
        ("Llama-3.2-1B", {"rope_scaling": "linear"}, "rope_scaling is linear; it must be an obj"),
        ("gemma-2-2b", {"layer_types": [["x"]] * 26}, "layer_types is"),
        ("Llama-3.2-1B", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("Llama-3.2-1B", {"attention_bias": "no"}, "attention_bias is 'no'; it must be true"),
        ("Llama-3.2-1B", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; it must be"),
        ("Llama-3.2-1B", {"num_key_value_heads": 5}, "impossible model: .*num_kv_heads is 5"),
        ("Llama-3.2-1B", {"vocab_size": None}, "lacks vocab_size"),
        ("Qwen3-0.6B", {"num_hidden_layers": 10**9}, "num_hidden_layers is .*from 1 to 4096"),
        ("Llama-3.2-1B", {"quantization_config": {"quant_method": "awq"}}, "quantised by 'awq'"),
        ("gemma-2-2b", {"layer_types": ["chunked_attention"] * 26}, "layer_types is .*chunked"),
        ("gemma-2-2b", {"layer_types": ["full_attention"]}, "for each of 26 layers"),
        ("gemma-2-2b", {"sliding_window": None}, "sliding_window is not set"),
        ("gemma-2-2b", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("gemma-2-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention is Tr"),
        ("gemma-3-4b", {"text_config": None}, "lacks text_config"),
        (
            "gemma-3-4b",
            {"text_config": _GEMMA3_TEXT | {"rope_parameters": {"rope_theta": 1.0}}},
            "by sliding_attention and full_attention",
        ),
        ("Qwen2.5-0.5B", {"use_sliding_window": True, "max_window_layers": "1"}, "without quotes"),
    ],
)
def test_what_is_not_computed_is_refused(name, changes, message):
    with pytest.raises(UserError, match=message):
        model_of(PUBLISHED[name][0] | changes)


def test_a_model_that_no_class_computes_is_not_written(decoder, tmp_path):
    for changes, message in (
        ({"parallel": True}, "nearest is Qwen2ForCausalLM, but parallel is False there, True in"),
        ({"norm": "layer"}, "norm is 'rms' there, 'layer' in this model.*--format=instruct"),
        ({"activations": "relu"}, "hidden_act 'relu' is not computed"),
        ({"norm": "rms_plus_one"}, "norm is"),
    ):
        model = dataclasses.replace(decoder, **changes)
        with pytest.raises(UserError, match=message):
            huggingface.write_checkpoint(tmp_path / "hf", {}, model, FLOAT32)
    native.write_checkpoint(tmp_path / "ours", random_arrays(decoder), decoder, info={})
    with pytest.raises(UserError, match="T5X's names are those of T5; a DecoderConfig is"):
        convert(tmp_path / "ours", tmp_path / "checkpoint_1", "t5x")


@pytest.fixture(scope="module")
def decoder():
    """A small model as Qwen 2 has them."""
    settings = {"model_type": "qwen2", "vocab_size": 384, "num_hidden_layers": 2}
    settings |= {"hidden_size": 12, "num_attention_heads": 3, "num_key_value_heads": 1}
    return model_of(settings | {"intermediate_size": 10})


def test_ours_to_transformers_and_back(decoder, tmp_path):
    """In shards of bfloat16, with the special tokens of the vocabulary, loaded in both layouts."""
    model = dataclasses.replace(decoder, prefix_lm=True)
    native.write_checkpoint(tmp_path / "ours", random_arrays(model), model, info={})
    settings = {"dtype": "bfloat16", "shard_bytes": 9000, "tokenizer": "bytes#extra_ids=125"}
    report = convert(tmp_path / "ours", tmp_path / "hf", "huggingface", **settings)
    assert any("prefix-LM" in note for note in report.notes)
    assert (tmp_path / "hf" / huggingface.INDEX).is_file()
    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert (written["bos_token_id"], written["eos_token_id"], written["pad_token_id"]) == (0, 1, 0)
    convert(tmp_path / "hf", tmp_path / "back", "instruct")
    first, second = open_checkpoint(tmp_path / "hf"), open_checkpoint(tmp_path / "back")
    assert first.model == second.model == decoder
    for path, array in first.arrays.items():
        assert array.dtype == BFLOAT16
        np.testing.assert_array_equal(second.arrays[path].read(), array.read().astype(np.float32))
    for scan in (False, True):
        network = make_model(dataclasses.replace(decoder, scan_layers=scan))
        load_params(tmp_path / "back", network.abstract_params())
        load_params(tmp_path / "hf", network.abstract_params())
    assert "DecoderConfig(d_model=12" in "\n".join(describe(tmp_path / "hf").lines())


def test_a_checkpoint_of_another_class_is_refused(decoder, tiny, tmp_path):
    """In the words of the configuration, not of hundreds of keys."""
    t5x_writing.write_checkpoint(tmp_path / "checkpoint_1", random_arrays(tiny), FLOAT32, step=1)
    abstract = make_model(decoder).abstract_params()
    with pytest.raises(UserError, match="another model: ModelConfig there, DecoderConfig in"):
        load_initial(str(tmp_path / "checkpoint_1"), abstract, decoder)


def test_names_that_are_not_needed(decoder, tmp_path):
    """Copies of the embedding must be equal; frequencies of rotary positions are computed."""
    tied = dataclasses.replace(decoder, tied_output=True)
    huggingface.write_checkpoint(tmp_path / "hf", random_arrays(tied), tied, FLOAT32)
    file = tmp_path / "hf" / huggingface.SINGLE
    arrays = safetensors_files.read_file(file)
    head, frequencies = "lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"
    arrays |= {head: arrays["model.embed_tokens.weight"], frequencies: arrays["model.norm.weight"]}

    def write(**changes):
        rewritten = tmp_path / "rewritten"
        safetensors_files.write_file(rewritten, arrays | changes, FLOAT32, {})
        rewritten.replace(file)
        return huggingface.open_checkpoint(tmp_path / "hf")

    opened = write()
    _, report = fit(opened, model_shapes(tied), "itself")
    report.check()
    assert [row.theirs for row in report.of("copy")] == [head]
    assert [row.theirs for row in report.of("ignored")] == [frequencies]
    with pytest.raises(UserError, match="lm_head.weight differs from model.embed_tokens.weight"):
        write(**{head: random_arrays(tied, seed=1)["token_embedder/embedding"]})


def test_an_adapter_of_a_decoder_names_its_class(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "task_type": "CAUSAL_LM"}')
    with pytest.raises(UserError, match=r"no model of its own(.|\n)*AutoPeftModelForCausalLM"):
        huggingface.open_checkpoint(tmp_path)


def test_pickles_name_the_class_that_reads_them(decoder, tmp_path):
    config = config_of_model(decoder, FLOAT32)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(UserError, match="import Qwen2ForCausalLM as M"):
        huggingface.open_checkpoint(tmp_path)


def test_every_family_has_its_own_class_but_the_vision_model():
    written = [family.model_type for family in FAMILIES.values()]
    assert [name for name in FAMILIES if name not in written] == ["gemma3"]
