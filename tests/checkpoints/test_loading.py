"""Checkpoints of all kinds onto devices: any mesh, either layout, in part, or not at all."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, loading, native, t5x_writing
from instruct.errors import UserError
from instruct.mesh import MeshConfig, make_mesh, param_shardings, tree_paths, with_shardings
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import unstack_layers
from tests.checkpoints.conftest import random_arrays
from tests.float32 import assert_same_float32

KINDS = ("instruct", "t5x", "huggingface")
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(scope="module")
def wide(tiny):
    """Divides over eight devices."""
    return dataclasses.replace(tiny, num_heads=4, head_dim=4, d_ff=12, d_model=16)


@pytest.fixture(scope="module")
def written(wide, tmp_path_factory):
    """The same parameters in three formats; (their values, path by kind)."""
    folder, arrays = tmp_path_factory.mktemp("kinds"), random_arrays(wide)
    paths = {kind: folder / kind for kind in KINDS}
    native.write_checkpoint(paths["instruct"], arrays, wide, info={"vocabulary": "bytes"})
    paths["t5x"] = folder / "t5x" / "checkpoint_30"
    t5x_writing.write_checkpoint(paths["t5x"], arrays, FLOAT32, step=30)
    huggingface.write_checkpoint(paths["huggingface"], arrays, wide, FLOAT32)
    return {path: array.read() for path, array in arrays.items()}, paths


def abstract_of(config, mesh=None):
    found = EncoderDecoder(config).abstract_params()
    return found if mesh is None else with_shardings(found, param_shardings(mesh, found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    "mesh", [None, MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(fsdp=8)]
)
def test_every_mesh_and_layout_loads_the_same(wide, written, kind, scan, mesh):
    values, paths = written
    config = dataclasses.replace(wide, scan_layers=scan)
    abstract = abstract_of(config, mesh and make_mesh(mesh))
    said = []
    found = loading.load_initial(str(paths[kind]), abstract, config, say=said.append)
    for (path, leaf), (_, wanted) in zip(tree_paths(found), tree_paths(abstract)):
        assert leaf.sharding == wanted.sharding or mesh is None, path
    flat = dict(tree_paths(unstack_layers(jax.device_get(found))))
    assert flat.keys() == values.keys()
    for path, expected in values.items():
        np.testing.assert_array_equal(flat[path], expected, err_msg=path)
    words = {"instruct": "this program", "t5x": "T5X", "huggingface": "Hugging Face"}
    assert words[kind] in said[0]
    again = loading.load_params(loading.find_checkpoint(paths[kind]), abstract)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scan", [False, True])
def test_in_part_by_an_explicit_mapping(wide, written, kind, scan):
    """A decoder one layer deeper, with another vocabulary: what is new is fresh, and listed."""
    values, paths = written
    deeper = dataclasses.replace(
        wide, num_decoder_layers=4, vocab_size=30, scan_layers=scan, activations="gated-gelu"
    )
    if kind != "instruct":  # these say what they are, and are compared
        with pytest.raises(UserError, match="num_decoder_layers is 3 there, 4"):
            loading.load_initial(str(paths[kind]), abstract_of(deeper), deeper)
    else:
        with pytest.raises(UserError, match="belongs to another model"):
            loading.load_initial(str(paths[kind]), abstract_of(deeper), deeper)
    mapping = [
        (r"decoder/layers_3/(.*)", r"decoder/layers_2/\1"),
        (r"decoder/layers_1/mlp/.*", None),
        (r"token_embedder/.*|decoder/logits_dense/.*", None),
    ]
    init, said = jax.jit(EncoderDecoder(deeper).init), []
    fresh = init(jax.random.key(5))
    found = loading.load_initial(
        str(paths[kind]),
        abstract_of(deeper, make_mesh(MeshConfig(data=4, tensor=2))),
        deeper,
        mapping=mapping,
        init_fn=lambda: init(jax.random.key(5)),
        say=said.append,
    )
    flat = dict(tree_paths(unstack_layers(jax.device_get(found))))
    drawn = dict(tree_paths(unstack_layers(jax.device_get(fresh))))
    for path, leaf in flat.items():
        if "layers_3" in path:
            expected = values[path.replace("layers_3", "layers_2")]
        elif ("layers_1/mlp" in path and path.startswith("decoder")) or path.startswith(
            ("token_embedder", "decoder/logits")
        ):
            expected = drawn[path]
        else:
            expected = values[path]
        assert_same_float32({path: leaf}, {path: expected}, roundings=8)
    text = "\n".join(said)
    assert "5 fresh" in text and "token_embedder/embedding" in text and "left over" in text


@pytest.mark.slow
def test_another_computation_with_the_same_shapes_is_said(wide, written):
    _, paths = written
    other, said = dataclasses.replace(wide, norm_epsilon=0.5, dropout_rate=0.3), []
    given = {"vocabulary": "gym", "say": said.append}
    loading.load_initial(str(paths["instruct"]), abstract_of(other), other, **given)
    assert said[1] == f"note: norm_epsilon is {wide.norm_epsilon} there, 0.5 in this run"
    assert "the vocabulary 'bytes', this run reads 'gym'" in said[2] and len(said) == 3
    del said[:]
    given["vocabulary"] = "bytes"
    loading.load_initial(str(paths["instruct"]), abstract_of(wide), wide, **given)
    assert len(said) == 1


def test_what_does_not_fit_is_named_with_both_shapes(wide, written):
    _, paths = written
    wider = dataclasses.replace(wide, vocab_size=32)
    for kind in ("t5x", "huggingface"):
        with pytest.raises(UserError, match="vocab_size is 24 there, 32 in ModelConfig"):
            loading.load_initial(str(paths[kind]), abstract_of(wider), wider)
        with pytest.raises(
            UserError, match=r"\[32, 16\] in the model.*\[24, 16\].*set vocab_size = 24"
        ):
            loading.load_params(paths[kind], abstract_of(wider))


def test_fingerprints_tell_weights_apart(wide, written, tmp_path):
    _, paths = written
    other = random_arrays(wide, seed=1)
    for kind in KINDS:
        first = loading.params_fingerprint(paths[kind])
        assert first == loading.params_fingerprint(paths[kind])
        if kind == "huggingface":
            huggingface.write_checkpoint(tmp_path / kind, other, wide, FLOAT32)
            assert loading.params_fingerprint(tmp_path / kind) != first
    assert loading.step_of(paths["t5x"]) == 30
    assert loading.checkpoint_steps(paths["t5x"].parent) == [30]


def test_what_a_checkpoint_says_of_itself(wide, written, tmp_path):
    _, paths = written
    for kind in ("t5x", "huggingface"):
        run = loading.trained_run(tmp_path, paths[kind], "infer.infer")
        found = dataclasses.replace(run.model(), dropout_rate=0.0)
        assert found == wide
        with pytest.raises(UserError, match="vocabulary"):
            run.setting("vocabulary")
    assert loading.trained_run(paths["instruct"], paths["instruct"], "x").model() == wide
    (tmp_path / "run.json").write_text(json.dumps({"vocabulary": "gym"}))
    run = loading.trained_run(tmp_path, paths["huggingface"], "infer.infer")
    assert run.setting("vocabulary") == "gym" and run.model().d_model == 16
