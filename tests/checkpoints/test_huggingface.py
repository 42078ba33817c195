"""Folders of transformers: its logits and tokens, its files back, and files it never wrote."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, safetensors_files
from instruct.checkpoints.convert import convert
from instruct.checkpoints.folders import file_inside
from instruct.checkpoints.t5_family import T5
from instruct.checkpoints.tokenizers import vocabulary_of
from instruct.checkpoints.weights import fit, model_shapes, translate
from instruct.errors import UserError
from instruct.models.encoder_decoder import EncoderDecoder
from tests.checkpoints.conftest import padded_batches, random_arrays, tree_of
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow


def test_logits_are_those_of_transformers(saved):
    torch = pytest.importorskip("torch")
    theirs, folder = saved
    opened = huggingface.open_checkpoint(folder)
    model = EncoderDecoder(opened.model)
    params = tree_of(opened.arrays)
    apply = jax.jit(model.apply)
    for source, target in padded_batches(opened.model.vocab_size, 50):
        with torch.no_grad():
            expected = theirs(
                input_ids=torch.tensor(source).long(),
                attention_mask=torch.tensor(source != 0).long(),
                decoder_input_ids=torch.tensor(target).long(),
            ).logits.numpy()
        found = apply(params, {"encoder_input_tokens": source, "decoder_input_tokens": target})
        assert_same_float32(found, expected)


@pytest.fixture
def folder(tiny, tmp_path) -> pathlib.Path:
    """A folder that this program wrote, in two shards."""
    path = tmp_path / "hf"
    arrays = random_arrays(tiny)
    huggingface.write_checkpoint(path, arrays, tiny, np.dtype(np.float32), shard_bytes=9000)
    return path


def change_json(path: pathlib.Path, **changes) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (found | changes).items() if v is not ...}))


def rename_tensor(folder: pathlib.Path, old: str, new: str) -> None:
    """Another name of the same length in a shard and in the index."""
    assert len(old) == len(new)
    for path in folder.glob("model*"):
        path.write_bytes(path.read_bytes().replace(f'"{old}"'.encode(), f'"{new}"'.encode()))


def spoil(folder: pathlib.Path, how: str) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    index, config = folder / huggingface.INDEX, folder / "config.json"
    if how == "lost shard":
        shards[1].unlink()
    elif how == "cut shard":
        shards[1].write_bytes(shards[1].read_bytes()[:-100])
    elif how == "all lost":
        for path in (index, *shards):
            path.unlink()
    elif how == "only pickles":
        for path in (index, *shards):
            path.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"PK")
    elif how == "index elsewhere":
        change_json(index, weight_map={"shared.weight": "../other/model.safetensors"})
    elif how == "index without names":
        change_json(index, weight_map=["model.safetensors"])
    elif how == "index names what is not there":
        weights = json.loads(index.read_text())["weight_map"]
        change_json(index, weight_map=weights | {"extra.weight": shards[0].name})
    elif how == "link out":
        target = folder.parent / "elsewhere.safetensors"
        shards[0].rename(target)
        shards[0].symlink_to(target)
    elif how == "link of the configuration":
        config.rename(folder.parent / "config.json")
        config.symlink_to(folder.parent / "config.json")
    elif how == "no configuration":
        config.unlink()
    elif how == "configuration is no JSON":
        config.write_text("{")
    elif how == "configuration of another size":
        change_json(config, d_ff=12, num_layers=2)
    elif how == "configuration of a deeper one":
        change_json(config, num_layers=4)
    elif how == "configuration of a shallower one":
        change_json(config, num_decoder_layers=2)
    elif how == "configuration of a billion layers":
        change_json(config, num_layers=10**9)
    elif how == "configuration of another model":
        change_json(config, model_type="bart")
    elif how == "unknown activation":
        change_json(config, feed_forward_proj="gated-mish")
    elif how.startswith("{"):
        change_json(config, **json.loads(how))
    elif how == "index with a name twice":
        text = index.read_text().replace('"shared.weight"', '"shared.weight": "x", "shared.weight"')
        index.write_text(text)
    elif how == "loop of links":
        shards[0].unlink()
        shards[0].symlink_to(shards[0].name)
    elif how == "no file":
        (folder / "spiece.model").mkdir()
    elif how == "generation settings are no JSON":
        (folder / "generation_config.json").write_text("{")
    elif how == "quantised":
        change_json(config, quantization_config={"bits": 4})
    elif how == "quantised by a method":
        change_json(config, quantization_config={"quant_method": "gptq", "bits": 4})
    elif how == "quantised by its names":
        rename_tensor(folder, "encoder.final_layer_norm.weight", "encoder.final_layer_norm.absmax")
    elif how == "quantised by a file":
        (folder / "quantize_config.json").write_text("{}")
    elif how == "adapter alone":
        for path in [*shards, index]:
            path.unlink()
        (folder / "adapter_model.safetensors").write_bytes(b"")
        settings = {"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-base"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    elif how == "adapter without a configuration":
        for path in [*shards, index, config]:
            path.unlink()
        (folder / "adapter_config.json").write_text("{}")
    elif how == "sizes missing":
        change_json(config, d_model=..., num_heads=...)
    elif how == "sizes as text":
        change_json(config, d_model="8")
    elif how == "extra key":
        rename_tensor(folder, "encoder.final_layer_norm.weight", "encoder.final_layer_norm.waight")
    elif how == "vocabulary too large":
        settings = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lost shard", "lacks model-00002-of-00002.safetensors of its 2 shards"),
        ("cut shard", "model-00002-of-00002.safetensors is damaged: .* cut off"),
        ("all lost", "neither model.safetensors nor"),
        ("only pickles", r"pickle \(\*.bin\).*\n.*save_pretrained"),
        ("index elsewhere", "not in that folder"),
        ("index without names", "no weight_map"),
        ("index names what is not there", "lacks 'extra.weight'"),
        ("link out", "symbolic link to .*elsewhere.safetensors, outside"),
        ("link of the configuration", "symbolic link"),
        ("no configuration", "cannot read .*config.json"),
        ("configuration is no JSON", "config.json is no JSON"),
        ("configuration of another size", r"wo/kernel is \[12, 8\] in the model.*\[10, 8\]"),
        ("configuration of a deeper one", "18 missing.*encoder/layers_2"),
        ("configuration of a shallower one", "14 left over.*decoder.block.2"),
        ("configuration of a billion layers", "num_encoder_layers = 1,000,000,000 is beyond"),
        ("configuration of another model", "model_type 'bart' is not read"),
        ("unknown activation", "'gated-mish' is not computed"),
        ("quantised", "quantised"),
        ("quantised by a method", "quantised by 'gptq' .*dequantize"),
        ("quantised by its names", "quantised weights .encoder.final_layer_norm.absmax"),
        ("quantised by a file", "quantised weights .quantize_config.json"),
        (
            "adapter alone",
            "is an adapter of 'google/flan-t5-base', which is no checkpoint on this machine",
        ),
        ("adapter without a configuration", "no model of its own. .*is an adapter .PEFT."),
        ('{"feed_forward_proj": ["relu"]}', "feed_forward_proj .* is not computed"),
        ('{"dense_act_fn": "gelu"}', "dense_act_fn 'gelu' is not computed .* must be 'gelu_new'"),
        ('{"dropout_rate": "0.1"}', "dropout_rate is '0.1'; use a number"),
        ('{"layer_norm_epsilon": Infinity}', "norm_epsilon is inf"),
        ('{"tie_word_embeddings": "false"}', "tie_word_embeddings is 'false'; it must be true or"),
        ('{"decoder_start_token_id": 5}', "decoder_start_token_id is 5, which is not computed"),
        ("index with a name twice", "'shared.weight' occurs twice"),
        ("loop of links", "is a symbolic link to .*, which does not exist"),
        ("no file", "spiece.model is no file"),
        ("generation settings are no JSON", "generation_config.json is no JSON"),
        ("sizes missing", "lacks d_model, num_heads"),
        ("sizes as text", "impossible model: ModelConfig.d_model"),
        ("extra key", "1 missing, 1 left over.*encoder_norm/scale is missing.*waight"),
        ("vocabulary too large", "has 384 ids, the model's embedding 24 rows"),
    ],
)
def test_damaged_ones_end_in_one_message(folder, tmp_path, how, message):
    spoil(folder, how)
    with pytest.raises(UserError, match=message):
        convert(folder, tmp_path / "out", "instruct")
    assert not list(tmp_path.glob("out*"))


def test_a_layers_number_has_one_spelling(tiny):
    array = random_arrays(tiny)["encoder/encoder_norm/scale"]
    names = [f"encoder.block.{n}.layer.0.layer_norm.weight" for n in ("1", "01", "\u0661")]
    ours, _, unknown = translate(dict.fromkeys(names, array), T5.rules)
    assert list(ours) == ["encoder/layers_1/pre_attention_layer_norm/scale"]
    assert list(unknown) == names[1:]


def test_hugging_faces_cache_may_link_to_its_blobs(folder, tmp_path):
    snapshot = tmp_path / "models--google--flan-t5" / "snapshots" / "abc"
    blobs = tmp_path / "models--google--flan-t5" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(folder.iterdir()):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    assert len(huggingface.open_checkpoint(snapshot).arrays) == 66
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(secret)
    with pytest.raises(UserError, match="outside of the checkpoint"):
        file_inside(snapshot, "config.json")


def test_copies_of_the_embedding_must_be_equal(tiny, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    tied = dataclasses.replace(tiny, tied_output=True)
    path = tmp_path / "hf"
    huggingface.write_checkpoint(path, random_arrays(tied), tied, np.dtype(np.float32))
    file = path / "model.safetensors"
    weights = safetensors.load_file(file)
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    copies = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    weights |= dict.fromkeys(copies, weights["shared.weight"])
    safetensors.save_file(weights | {unused: np.zeros((32, 2), np.float32)}, file)
    opened = huggingface.open_checkpoint(path)
    _, report = fit(opened, model_shapes(tied), "itself")
    report.check()
    assert {row.theirs for row in report.of("copy")} == set(copies)
    assert [row.theirs for row in report.of("ignored")] == [unused]
    del weights["shared.weight"]  # some converters keep the first name in the alphabet
    safetensors.save_file(weights, file)
    assert len(huggingface.open_checkpoint(path).arrays) == len(model_shapes(tied))
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    safetensors.save_file(weights, file)
    with pytest.raises(UserError, match="lm_head.weight differs from shared.weight"):
        huggingface.open_checkpoint(path)


def test_mt5_and_what_transformers_5_writes(tiny, tmp_path):
    """One matrix for embedding and output without T5 1.0's scaling: two arrays here."""
    tied = dataclasses.replace(tiny, tied_output=True)
    path = tmp_path / "hf"
    huggingface.write_checkpoint(path, random_arrays(tied), tied, np.dtype(np.float32))
    for changes in (
        {"tie_word_embeddings": True, "scale_decoder_outputs": False},
        {"model_type": "mt5", "tie_word_embeddings": True},
    ):
        change_json(path / "config.json", **changes)
        opened = huggingface.open_checkpoint(path)
        assert not opened.model.tied_output and any("scaling" in note for note in opened.notes)
        embedding = opened.arrays["token_embedder/embedding"].read()
        np.testing.assert_array_equal(
            opened.arrays["decoder/logits_dense/kernel"].read().T, embedding
        )


@pytest.mark.parametrize(
    ("settings", "pieces", "expected"),
    [
        ({"extra_ids": 7}, True, "#extra_ids=7"),
        ({"additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]}, True, "#extra_ids=2"),
        ({"extra_ids": 0, "additional_special_tokens": None}, True, "#extra_ids=0"),
        ({}, True, "#extra_ids=100"),
        ({"tokenizer_class": "ByT5Tokenizer"}, False, "bytes#extra_ids=125"),
        ({"tokenizer_class": "T5Tokenizer"}, False, None),
    ],
)
def test_vocabularies_of_folders(tmp_path, settings, pieces, expected):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    if pieces:
        (tmp_path / "spiece.model").write_bytes(b"")
    found = vocabulary_of(tmp_path)
    assert found is None if expected is None else str(found).endswith(expected)


def test_an_adapter_beside_weights_is_named(tiny, tmp_path, caplog):
    path = tmp_path / "hf"
    huggingface.write_checkpoint(path, random_arrays(tiny), tiny, np.dtype(np.float32))
    (path / "adapter_model.safetensors").write_bytes(b"")
    for _ in range(2):
        opened = huggingface.open_checkpoint(path)
        assert (
            "adapter_model.safetensors is an adapter (PEFT), which is not applied"
            in opened.notes[0]
        )
    (record,) = caplog.records  # said once
    assert "merge_and_unload" in record.message


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_names_that_a_wrapper_prefixed(folder, tmp_path, wrapper):
    expected = huggingface.open_checkpoint(folder)
    arrays = huggingface._read_arrays(folder, T5)
    named = {wrapper + name: array for name, array in arrays.items()}
    single = tmp_path / huggingface.SINGLE
    safetensors_files.write_file(single, named, np.dtype(np.float32), {})
    for path in folder.glob("model*"):
        path.unlink()
    single.rename(folder / huggingface.SINGLE)
    found = huggingface.open_checkpoint(folder)
    assert set(found.arrays) == set(expected.arrays) and not found.unknown
    assert any(f"begins with '{wrapper}'" in note for note in found.notes)


def test_a_prefix_of_some_names_only_is_none(folder):
    arrays = huggingface._read_arrays(folder, T5)
    mixed = {f"model.{name}" if name < "encoder" else name: a for name, a in arrays.items()}
    assert huggingface._without_wrapper(mixed, T5) == (mixed, "")
