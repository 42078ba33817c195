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
    assert MeshConfig().sizes(8) == (1, 8, 1, 1, 1)
    assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(8) == (1, 2, 2, 2, 1)
    assert MeshConfig(slice=2, data=1, sequence=-1).sizes(8) == (2, 1, 1, 1, 4)
    assert MeshConfig(data=4, tensor=64).sizes() == (1, 4, 1, 64, 1)


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
    assert meshes.parse_mesh("slice=2,fsdp=4,sequence=2") == MeshConfig(
        slice=2, data=1, fsdp=4, sequence=2
    )
    for text in ("4", "4x", "tensr=4", ""):
        with pytest.raises(UserError, match="4x64"):
            meshes.parse_mesh(text)


def test_every_device_is_in_the_mesh_and_axes_are_auto():
    mesh = meshes.make_mesh(MeshConfig(tensor=2))
    assert dict(mesh.shape) == {"slice": 1, "data": 4, "fsdp": 1, "tensor": 2, "sequence": 1}
    assert list(mesh.devices.flat) == jax.devices()
    assert mesh.size == 8
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """What `make_mesh` asks of a device."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "fake"
    slice_index: int = 0


def test_slices_are_whole_processes_wherever_their_devices_are_listed():
    devices = [FakeDevice(id=i, process_index=i % 4) for i in range(8)]
    mesh = meshes.make_mesh(MeshConfig(slice=2, fsdp=-1, data=1), devices)
    of_slice = [{device.process_index for device in block.flat} for block in mesh.devices]
    assert of_slice == [{0, 1}, {2, 3}]
    with pytest.raises(UserError, match="slice = 3 does not fit 4 processes"):
        meshes.make_mesh(MeshConfig(slice=3, data=1, fsdp=2), devices[:6])
    # One process may hold several slices.
    blocks = meshes.make_mesh(MeshConfig(slice=4)).devices.reshape(4, 2)
    assert blocks.tolist() == [jax.devices()[i : i + 2] for i in range(0, 8, 2)]


def test_the_slice_axis_lies_between_tpu_slices():
    devices = [FakeDevice(id=i, process_index=i, slice_index=i % 2) for i in range(4)]
    mesh = meshes.make_mesh(MeshConfig(slice=2, data=1, fsdp=2), devices)
    assert [{device.slice_index for device in block.flat} for block in mesh.devices] == [{0}, {1}]
    tpus = [dataclasses.replace(device, platform="tpu") for device in devices]
    with pytest.raises(UserError, match=r"slice = 1, but the devices form 2 TPU slice"):
        meshes.make_mesh(MeshConfig(), tpus)


def test_an_unknown_parameter_needs_a_rule():
    with pytest.raises(ValueError, match="PARAMETER_AXES"):
        meshes.parameter_axes("encoder/layers_0/new/bias")


def test_parameters_are_split_over_sequence_too_as_far_as_they_divide():
    path, shape = "decoder/layers_0/mlp/wi_0/kernel", (12, 32)
    mesh = meshes.abstract_mesh(MeshConfig(data=2, fsdp=3, sequence=2))
    assert meshes.partition_spec(mesh, path, shape) == PartitionSpec(("fsdp", "sequence"), None)
    mesh = meshes.abstract_mesh(MeshConfig(data=2, fsdp=4, sequence=2))
    assert meshes.partition_spec(mesh, path, shape) == PartitionSpec("fsdp", None)
    params = {"wi_0": {"kernel": jax.ShapeDtypeStruct(shape, "float32")}}
    (row,) = meshes.sharding_report(mesh, params)
    assert row.copies == 4
    assert row.note == "embed = 12 does not divide by fsdp = 4 x sequence = 2: split over fsdp only"


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
    meshes.check_batch_size(mesh, 16, 2, (6, 4))
    with pytest.raises(UserError, match="multiple of 8, for example 16"):
        meshes.check_batch_size(mesh, 12)
    mesh = meshes.abstract_mesh(MeshConfig(slice=2, data=2, fsdp=2, sequence=4))
    with pytest.raises(UserError, match="6 tokens .* multiple, for example 8, or .* axis of 2"):
        meshes.check_batch_size(mesh, 8, 1, (8, 6))
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
