"""From every kind into every other and back: no bit changes, no key is lost or made up."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, native
from instruct.checkpoints.arrays import BFLOAT16, held
from instruct.checkpoints.convert import convert, describe, generation_settings
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.loading import load_params
from instruct.checkpoints.weights import model_shapes
from instruct.errors import UserError
from instruct.models.encoder_decoder import EncoderDecoder
from tests.checkpoints.conftest import random_arrays, tree_of
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together


def values(path) -> dict[str, np.ndarray]:
    opened = open_checkpoint(path)
    return {name: array.read() for name, array in opened.arrays.items()}


def assert_identical(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_transformers_to_ours_and_back(saved, tmp_path, caplog):
    theirs, folder = saved
    report = convert(folder, tmp_path / "ours", "instruct")
    assert not report.of("missing", "left over", "shape differs")
    back = convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    assert len(back.of("used")) == len(model_shapes(open_checkpoint(folder).model))
    transformers = pytest.importorskip("transformers")
    with caplog.at_level(logging.WARNING):
        loaded, info = transformers.T5ForConditionalGeneration.from_pretrained(
            tmp_path / "back", output_loading_info=True
        )
    assert not any(info.values()), info
    assert not any("initialized" in r.message or "not used" in r.message for r in caplog.records)
    expected = dict(theirs.state_dict())
    for name, tensor in loaded.state_dict().items():
        assert tensor.equal(expected[name]), name
    for name in ("scale_decoder_outputs", "dense_act_fn", "is_gated_act", "d_ff", "d_kv"):
        assert getattr(loaded.config, name) == getattr(theirs.config, name), name
    assert loaded.generation_config.decoder_start_token_id == 0
    loaded.save_pretrained(tmp_path / "again")
    assert_identical(values(tmp_path / "again"), values(folder))


@pytest.mark.parametrize("kind", ["huggingface", "t5x"])
@pytest.mark.parametrize("tied", [False, True])
def test_ours_there_and_back(tiny, tmp_path, kind, tied):
    model = dataclasses.replace(
        tiny, tied_output=tied, activations="relu" if tied else "gated-gelu"
    )
    arrays = random_arrays(model)
    native.write_checkpoint(tmp_path / "ours", arrays, model, info={})
    convert(tmp_path / "ours", tmp_path / "checkpoint_1", kind)
    convert(tmp_path / "checkpoint_1", tmp_path / "back", "instruct")
    assert_identical(values(tmp_path / "back"), {n: a.read() for n, a in arrays.items()})
    for scan in (False, True):
        network = EncoderDecoder(dataclasses.replace(model, scan_layers=scan))
        load_params(tmp_path / "back", network.abstract_params())  # checksums and all
    found = open_checkpoint(tmp_path / "back").model
    assert dataclasses.replace(found, dropout_rate=model.dropout_rate) == model


def test_bfloat16_shards_come_back_as_they_were(tiny, tmp_path):
    native.write_checkpoint(tmp_path / "ours", random_arrays(tiny), tiny, info={})
    small = {"dtype": "bfloat16", "shard_bytes": 600}
    convert(tmp_path / "ours", tmp_path / "first", "huggingface", **small)
    assert (tmp_path / "first" / huggingface.INDEX).is_file()
    assert max(f.stat().st_size for f in tmp_path.glob("first/*.safetensors")) < 600 + 2000
    convert(tmp_path / "first", tmp_path / "f32", "instruct")
    convert(tmp_path / "f32", tmp_path / "second", "huggingface", **small)
    first, second = values(tmp_path / "first"), values(tmp_path / "second")
    assert all(array.dtype == BFLOAT16 for array in first.values())
    assert_identical(second, first)
    convert(tmp_path / "first", tmp_path / "checkpoint_0", "t5x", dtype="bfloat16")
    assert_identical(values(tmp_path / "checkpoint_0"), first)
    transformers = pytest.importorskip("transformers")
    _, info = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path / "first", output_loading_info=True
    )
    assert not any(info.values()), info


def test_slots_go_to_a_run_and_back(tiny, tmp_path):
    arrays = random_arrays(tiny)
    slots = {f"{path}/v": array for path, array in arrays.items()}
    native.write_checkpoint(tmp_path / "run", arrays, tiny, info={}, slots=slots, step=7)
    convert(tmp_path / "run", tmp_path / "checkpoint_7", "t5x", slots=True)
    convert(tmp_path / "checkpoint_7", tmp_path / "back", "instruct", slots=True)
    opened = open_checkpoint(tmp_path / "back", slots=True)
    assert opened.step == 7 and opened.place.endswith("checkpoints/7")
    assert_identical(
        {name: array.read() for name, array in opened.slots.items()},
        {name: array.read() for name, array in slots.items()},
    )
    with pytest.raises(UserError, match="leave the slots out"):
        convert(tmp_path / "run", tmp_path / "hf", "huggingface", slots=True)


def test_tokenizer_files_are_carried_and_made(tiny, tmp_path):
    model = dataclasses.replace(tiny, vocab_size=384)
    native.write_checkpoint(tmp_path / "ours", random_arrays(model), model, info={})
    out = tmp_path / "hf"
    convert(tmp_path / "ours", out, "huggingface", tokenizer="bytes#extra_ids=125")
    assert open_checkpoint(out).vocabulary == "bytes#extra_ids=125"
    (out / "generation_config.json").write_text('{"num_beams": 4, "length_penalty": 0.6}')
    convert(out, tmp_path / "carried", "instruct")
    assert generation_settings(tmp_path / "carried") == {"num_beams": 4, "length_penalty": 0.6}
    convert(tmp_path / "carried", tmp_path / "again", "huggingface")
    for name in ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name
    text = "\n".join(describe(out).lines())
    assert "num_beams" in text and "bytes#extra_ids=125" in text and "gated-gelu" in text


def test_a_tokenizer_of_elsewhere_brings_no_settings(tiny, tmp_path):
    model = dataclasses.replace(tiny, vocab_size=384)
    native.write_checkpoint(tmp_path / "ours", random_arrays(model), model, info={})
    convert(tmp_path / "ours", tmp_path / "hf", "huggingface", tokenizer="bytes#extra_ids=125")
    (tmp_path / "hf/generation_config.json").write_text('{"num_beams": 4}')
    other = tmp_path / "bart"
    other.mkdir()
    (other / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (other / "config.json").write_text('{"model_type": "bart", "scale_embedding": true}')
    (other / "generation_config.json").write_text('{"num_beams": 2}')
    for tokenizer in (other, "bytes#extra_ids=125"):
        target = tmp_path / f"to_{type(tokenizer).__name__}"
        convert(tmp_path / "hf", target, "huggingface", tokenizer=tokenizer)
        assert generation_settings(target) == {"num_beams": 4}
    convert(tmp_path / "ours", tmp_path / "last", "huggingface", tokenizer=other)
    config = json.loads((tmp_path / "last/config.json").read_text())
    assert config["model_type"] == "t5" and "scale_embedding" not in config


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["instruct", "t5x", "huggingface"])
def test_what_is_no_number_is_not_converted(tiny, tmp_path, kind, value):
    arrays = {name: array.read() for name, array in random_arrays(tiny).items()}
    huggingface.write_checkpoint(tmp_path / "hf", random_arrays(tiny), tiny, np.dtype(np.float32))
    path = tmp_path / "hf/model.safetensors"
    norm = arrays["encoder/encoder_norm/scale"]
    damaged = norm.copy()
    damaged[0] = value
    path.write_bytes(path.read_bytes().replace(norm.tobytes(), damaged.tobytes()))
    with pytest.raises(UserError, match="encoder.final_layer_norm.weight holds NaN or infinity"):
        convert(tmp_path / "hf", tmp_path / "checkpoint_0", kind)
    assert [child.name for child in tmp_path.iterdir()] == ["hf"]


def test_slots_must_have_the_shapes_of_their_parameters(tiny, tmp_path):
    arrays = random_arrays(tiny)
    slots = {f"{path}/v": array for path, array in arrays.items()}
    slots["encoder/encoder_norm/scale/v"] = held(np.zeros(3, np.float32), "three")
    native.write_checkpoint(tmp_path / "run", arrays, tiny, info={}, slots=slots, step=7)
    with pytest.raises(UserError, match=r"slots of encoder/encoder_norm/scale .*\[3\]"):
        convert(tmp_path / "run", tmp_path / "checkpoint_7", "t5x", slots=True)


def test_a_sentencepiece_vocabulary_goes_along(tiny, tmp_path):
    model = dataclasses.replace(tiny, vocab_size=6144)
    native.write_checkpoint(tmp_path / "ours", random_arrays(model), model, info={})
    convert(tmp_path / "ours", tmp_path / "hf", "huggingface", tokenizer="gym")
    opened = open_checkpoint(tmp_path / "hf")
    assert opened.vocabulary == f"{tmp_path}/hf/spiece.model#extra_ids=100"
    assert any("are padding" in note for note in opened.notes)
    small = dataclasses.replace(tiny, vocab_size=24)
    native.write_checkpoint(tmp_path / "small", random_arrays(small), small, info={})
    with pytest.raises(UserError, match=r"'gym' has \d+ ids.*24 rows.*Use a model of at least"):
        convert(tmp_path / "small", tmp_path / "no", "huggingface", tokenizer="gym")
    assert not (tmp_path / "no").exists()


def test_vocabulary_rows_are_cut_and_continued(tiny, tmp_path):
    arrays = random_arrays(tiny)
    native.write_checkpoint(tmp_path / "ours", arrays, tiny, info={})
    convert(tmp_path / "ours", tmp_path / "more", "instruct", vocab_rows=128)
    convert(tmp_path / "more", tmp_path / "back", "instruct", vocab_rows=tiny.vocab_size)
    more = values(tmp_path / "more")
    assert more["token_embedder/embedding"].shape == (128, 8)
    assert not more["decoder/logits_dense/kernel"][:, 24:].any()
    assert_identical(values(tmp_path / "back"), {n: a.read() for n, a in arrays.items()})


def test_what_is_asked_for_wrongly_is_said(tiny, tmp_path):
    native.write_checkpoint(tmp_path / "ours", random_arrays(tiny), tiny, info={})
    ours = tmp_path / "ours"
    for arguments, message in (
        ({"to": "pytorch"}, "unknown kind of checkpoint"),
        ({"to": "t5x", "dtype": "float16"}, "overflow"),
        ({"to": "instruct", "dtype": "bfloat16"}, "float32"),
        ({"to": "t5x", "vocab_rows": 0}, "vocab_rows is 0"),
        ({"to": "t5x", "slots": True}, "parameters only"),
        (
            {"to": "t5x", "mapping": [("decoder/logits.*", None)], "allow_left_over": True},
            "fresh values",
        ),
        ({"to": "t5x", "mapping": [("nothing", "else")]}, "matches none"),
        ({"to": "t5x", "mapping": [("(", "else")]}, "regular expression"),
        ({"to": "t5x", "mapping": [("encoder/(.*)", r"\2")]}, "is not understood .*group"),
        ({"to": "t5x", "model": dataclasses.replace(tiny, d_ff=11)}, "d_ff is 10 there, 11"),
    ):
        with pytest.raises(UserError, match=message):
            convert(ours, tmp_path / "checkpoint_0", **arguments)
        assert not (tmp_path / "checkpoint_0").exists()
    with pytest.raises(UserError, match="has no tokenizer.json, spiece.model"):
        convert(ours, tmp_path / "hf", "huggingface", tokenizer=ours)
    with pytest.raises(UserError, match="too long for a path"):
        convert(ours, tmp_path / ("x" * 300), "instruct")
    with pytest.raises(UserError, match="exists already"):
        convert(ours, ours, "t5x")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_the_longest_name_that_a_folder_may_have(tiny, tmp_path):
    arrays = random_arrays(tiny)
    native.write_checkpoint(tmp_path / ("x" * 255), arrays, tiny, info={})
    assert_identical(values(tmp_path / ("x" * 255)), {n: a.read() for n, a in arrays.items()})


def test_imported_parameters_compute_what_they_did(tiny, tmp_path):
    """One forward pass of the same weights through three formats."""
    arrays = random_arrays(tiny)
    native.write_checkpoint(tmp_path / "ours", arrays, tiny, info={})
    batch = {
        "encoder_input_tokens": np.array([[5, 6, 1, 0]], np.int32),
        "decoder_input_tokens": np.array([[0, 7, 8]], np.int32),
    }
    expected = EncoderDecoder(tiny).apply(tree_of(arrays), batch)
    stacked = EncoderDecoder(dataclasses.replace(tiny, scan_layers=True))
    convert(tmp_path / "ours", tmp_path / "checkpoint_0", "t5x")
    convert(tmp_path / "checkpoint_0", tmp_path / "hf", "huggingface")
    convert(tmp_path / "hf", tmp_path / "back", "instruct")
    params = load_params(tmp_path / "back", stacked.abstract_params())
    found = jax.jit(stacked.apply)(params, batch)
    assert_same_float32(found, expected)
