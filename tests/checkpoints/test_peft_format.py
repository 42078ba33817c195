"""Adapters of PEFT: its logits with its own matrices, and its files back to the bit."""

import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import convert as conversion
from instruct.checkpoints.detect import detect, open_checkpoint
from instruct.checkpoints.loading import load_params
from instruct.checkpoints.peft_format import KIND, WEIGHTS
from instruct.checkpoints.safetensors_files import read_file
from instruct.errors import UserError
from instruct.models.model import make_model

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.slow

T5 = {"q", "k", "v", "o"}
LLAMA = {"q_proj", "v_proj", "down_proj"}


def t5():
    config = transformers.T5Config(
        vocab_size=96,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return transformers.T5ForConditionalGeneration(config), sorted(T5), "SEQ_2_SEQ_LM"


def llama():
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config), sorted(LLAMA), "CAUSAL_LM"


def adapted(folder, make, **settings):
    """Saves a random model and a random adapter of it; returns the adapted model of PEFT."""
    torch.manual_seed(0)
    model, targets, task = make()
    model.eval().save_pretrained(folder / "base")
    settings = {"r": 3, "lora_alpha": 6, "target_modules": targets, "task_type": task} | settings
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    wrapped.peft_config["default"].base_model_name_or_path = str(folder / "base")
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    wrapped.save_pretrained(folder / "adapter")
    return wrapped


def logits_of_both(folder, wrapped):
    """(ours, PEFT's), from the adapter's folder alone."""
    draw = np.random.default_rng(0)
    inputs, targets = draw.integers(3, 90, (2, 7)), draw.integers(3, 90, (2, 5))
    network = make_model(open_checkpoint(folder).model)
    params = load_params(folder, network.abstract_params())
    if wrapped.config.is_encoder_decoder:
        fed = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
        with torch.no_grad():
            theirs = wrapped(
                input_ids=torch.tensor(inputs), decoder_input_ids=torch.tensor(fed)
            ).logits
        ours = jax.jit(network.target_logits)(params, inputs, targets)
    else:
        with torch.no_grad():
            theirs = wrapped(input_ids=torch.tensor(np.hstack([inputs, targets]))).logits
        theirs, ours = theirs[:, 6:-1], jax.jit(network.target_logits)(params, inputs, targets)
    return np.asarray(ours), theirs.numpy()


@pytest.mark.parametrize("make", [t5, llama])
def test_logits_and_files_are_pefts(make, tmp_path):
    wrapped = adapted(tmp_path, make)
    ours, theirs = logits_of_both(tmp_path / "adapter", wrapped)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # Through a checkpoint of this program, adapters apart, and back.
    conversion.convert(tmp_path / "adapter", tmp_path / "ours", "instruct")
    opened = open_checkpoint(tmp_path / "ours")
    assert opened.adapters and opened.kind == "instruct"
    report = conversion.convert(tmp_path / "ours", tmp_path / "back", KIND)
    with pytest.raises(UserError, match="a mapping gives these other ones"):
        names = [("decoder/(.*)", r"decoder/\1")]
        conversion.convert(tmp_path / "ours", tmp_path / "x", "instruct", mapping=names)
    first, second = (read_file(tmp_path / name / WEIGHTS) for name in ("adapter", "back"))
    assert sorted(first) == sorted(second) and len(report.rows) == len(first)
    for name, array in first.items():
        assert array.read().tobytes() == second[name].read().tobytes(), name
    written = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"]) == (3, 6)
    assert set(written["target_modules"]) == (T5 if make is t5 else LLAMA)
    assert written["base_model_name_or_path"] == str(tmp_path / "base")
    assert "library_name: peft" in (tmp_path / "back" / "README.md").read_text()
    # PEFT loads what we wrote.
    base = type(wrapped.base_model.model).from_pretrained(tmp_path / "base").eval()
    again = peft.PeftModel.from_pretrained(base, tmp_path / "back").eval()
    assert np.array_equal(logits_of_both(tmp_path / "ours", again)[1], theirs)
    # Merged, in this program's format and in Hugging Face's.
    conversion.convert(tmp_path / "ours", tmp_path / "merged", "instruct", merge=True)
    assert not open_checkpoint(tmp_path / "merged").adapters
    conversion.convert(tmp_path / "merged", tmp_path / "whole", "huggingface")
    whole = type(base).from_pretrained(tmp_path / "whole").eval()
    np.testing.assert_allclose(logits_of_both(tmp_path / "ours", whole)[1], theirs, atol=1e-5)


def test_rslora_has_its_scale(tmp_path):
    wrapped = adapted(tmp_path, llama, use_rslora=True)
    np.testing.assert_allclose(*logits_of_both(tmp_path / "adapter", wrapped), atol=1e-5)


def test_what_is_more_than_plain_lora_is_refused(tmp_path):
    adapted(tmp_path, llama)
    folder = tmp_path / "adapter"
    assert detect(folder).kind == KIND
    path = folder / "adapter_config.json"
    good = json.loads(path.read_text())
    for name, value in {
        "use_dora": True,
        "bias": "all",
        "modules_to_save": ["lm_head"],
        "rank_pattern": {"q_proj": 8},
        "init_lora_weights": "pissa",
        "lora_alpha": "16",
    }.items():
        path.write_text(json.dumps(good | {name: value}))
        with pytest.raises(UserError, match=f"{name} is "):
            open_checkpoint(folder)
    path.write_text(json.dumps(good | {"base_model_name_or_path": "someone/somewhere"}))
    with pytest.raises(UserError, match=r"no checkpoint on this machine(.|\n)*--base=FOLDER"):
        open_checkpoint(folder)
    assert open_checkpoint(folder, base=tmp_path / "base").adapters
    (tmp_path / "other").mkdir()
    adapted(tmp_path / "other", t5)
    assert conversion.describe(folder, base=tmp_path / "base").model
    with pytest.raises(UserError, match="a base belongs to a PEFT adapter"):
        conversion.convert(tmp_path / "base", tmp_path / "x", "instruct", base=tmp_path / "base")
    with pytest.raises(UserError, match="does not fit|left over"):
        conversion.convert(folder, tmp_path / "x", "instruct", base=tmp_path / "other" / "base")
    with pytest.raises(UserError, match="no adapters to merge"):
        conversion.convert(tmp_path / "base", tmp_path / "x", "instruct", merge=True)
    with pytest.raises(UserError, match="it was not trained with LORA_RANK"):
        conversion.convert(tmp_path / "base", tmp_path / "x", KIND)


@pytest.mark.parametrize("shape", [(), (0, 16), (3, 16, 1, 1)])
def test_matrices_of_other_shapes_are_refused(shape, tmp_path):
    adapted(tmp_path, llama)
    path = tmp_path / "adapter" / WEIGHTS
    arrays = {name: torch.tensor(array.read()) for name, array in read_file(path).items()}
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    arrays[name] = torch.zeros(shape)
    if 0 in shape:
        arrays[name.replace("lora_A", "lora_B")] = torch.zeros(16, 0)
    safetensors_torch.save_file(arrays, path, {"format": "pt"})
    with pytest.raises(UserError, match="q_proj has matrices .* but the kernel"):
        open_checkpoint(tmp_path / "adapter")
