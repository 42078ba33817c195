import dataclasses
import time

import jax
import pytest
from jax.sharding import PartitionSpec

from instruct import mesh as meshes
from instruct.errors import UserError
from instruct.mesh import MeshConfig
from instruct.models.encoder_decoder import EncoderDecoder
from tests.models.test_config import TINY
from tests.models.test_encoder_decoder import sized


def test_sizes_fill_what_is_left():
    assert MeshConfig().sizes(8) == (8, 1, 1)
    assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(8) == (2, 2, 2)
    assert MeshConfig(data=4, tensor=64).sizes() == (4, 1, 64)


@pytest.mark.parametrize("fields", [{"data": 3}, {"tensor": 3}, {"data": 16}])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(fields):
    with pytest.raises(UserError, match=r"product is 8"):
        MeshConfig(**fields).sizes(8)


@pytest.mark.parametrize("fields", [{"data": 0}, {"tensor": "4"}, {"fsdp": -2}, {"fsdp": True}])
def test_a_size_that_is_no_size_is_refused(fields):
    with pytest.raises(UserError, match="at least 1, or -1"):
        MeshConfig(**fields)
    with pytest.raises(UserError, match="only one axis"):
        MeshConfig(data=-1, tensor=-1)


def test_meshes_of_the_command_line():
    assert meshes.parse_mesh("4x64") == MeshConfig(data=4, tensor=64)
    assert meshes.parse_mesh("fsdp=4, tensor=8") == MeshConfig(data=1, fsdp=4, tensor=8)
    assert meshes.parse_mesh("data=-1,fsdp=4") == MeshConfig(data=-1, fsdp=4)
    for text in ("4", "4x", "tensr=4", ""):
        with pytest.raises(UserError, match="4x64"):
            meshes.parse_mesh(text)


def test_every_device_is_in_the_mesh_and_axes_are_auto():
    mesh = meshes.make_mesh(MeshConfig(tensor=2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert mesh.size == 8
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_an_unknown_parameter_needs_a_rule():
    with pytest.raises(ValueError, match="PARAMETER_AXES"):
        meshes.parameter_axes("encoder/layers_0/new/bias")


def test_slots_of_a_parameter_are_split_like_it():
    mesh = meshes.abstract_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    path = "decoder/layers/mlp/wo/kernel"
    assert meshes.partition_spec(mesh, path, (3, 64, 32)) == PartitionSpec(None, "tensor", "fsdp")
    assert meshes.partition_spec(mesh, path, (3, 64), 2) == PartitionSpec(None, "tensor")
    assert meshes.partition_spec(mesh, path, (3, 32), 1) == PartitionSpec(None, "fsdp")
    with pytest.raises(ValueError, match="do not fit"):
        meshes.partition_spec(mesh, path, (3, 64))


def test_heads_that_do_not_divide_are_refused_by_name():
    mesh = meshes.abstract_mesh(MeshConfig(data=2, tensor=4))
    with pytest.raises(UserError) as error:
        meshes.param_shardings(mesh, EncoderDecoder(sized("small")).abstract_params())
    for part in ("num_heads = 6", "tensor = 4", "1, 2, 3, 6", "MeshConfig.fsdp"):
        assert part in str(error.value)


def test_a_vocabulary_that_does_not_divide_is_held_whole_and_said_so():
    config = dataclasses.replace(TINY, vocab_size=383)
    mesh = meshes.abstract_mesh(MeshConfig(data=1, tensor=8))
    rows = {
        r.path: r for r in meshes.sharding_report(mesh, EncoderDecoder(config).abstract_params())
    }
    assert rows["token_embedder/embedding"].copies == 8
    assert "vocab = 383 does not divide" in rows["token_embedder/embedding"].note
    assert rows["decoder/layers_*/mlp/wo/kernel"].note == ""


@pytest.mark.parametrize(
    ("text", "billions"), [("4x64", 11.135 / 64), ("data=4,fsdp=64", 11.135 / 64)]
)
def test_the_largest_model_on_a_pod_without_a_device(text, billions):
    start = time.process_time()
    mesh = meshes.abstract_mesh(meshes.parse_mesh(text))
    abstract = EncoderDecoder(sized("xxl", scan_layers=True)).abstract_params()
    assert mesh.size == 256
    rows = meshes.sharding_report(mesh, abstract)
    held = sum(row.bytes_per_device for row in rows) / 4e9
    assert billions <= held < 1.01 * billions
    assert jax.tree.structure(meshes.param_shardings(mesh, abstract)) == jax.tree.structure(
        abstract
    )
    assert time.process_time() - start < 15


def test_equal_layers_are_one_row():
    mesh = meshes.abstract_mesh(MeshConfig(data=1, tensor=8))
    rows = meshes.sharding_report(mesh, EncoderDecoder(TINY).abstract_params())
    (query,) = (row for row in rows if row.path == "encoder/layers_*/attention/query/kernel")
    assert query.count == 2 and query.shape == (32, 64)
    assert query.axes == ("embed", "joined_heads") and query.spec == "-, tensor"
    assert query.bytes_per_device == 2 * 32 * 64 * 4 // 8 and query.copies == 1


def test_a_batch_must_divide_over_rows():
    mesh = meshes.abstract_mesh(MeshConfig(data=2, fsdp=4))
    meshes.check_batch_size(mesh, 16)
    with pytest.raises(UserError, match="multiple of 8, for example 16"):
        meshes.check_batch_size(mesh, 12)
    assert meshes.batch_sharding(mesh).shard_shape((16, 5)) == (2, 5)
    assert meshes.replicated_sharding(mesh).shard_shape((3,)) == (3,)


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'tpu': no libtpu.so"), AssertionError()]
)
def test_devices_that_are_not_there(error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(UserError, match="JAX_PLATFORMS is 'tpu', but JAX finds no such device"):
        meshes.make_mesh(MeshConfig())
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(type(error)):
        meshes.make_mesh(MeshConfig())
