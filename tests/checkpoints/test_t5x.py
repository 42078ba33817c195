"""T5X's own checkpoint, layouts built to its description, and damaged ones."""

import dataclasses
import io
import json
import pathlib
import tarfile

import jax
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from instruct.checkpoints import t5x, t5x_writing
from instruct.checkpoints.arrays import BFLOAT16, held
from instruct.checkpoints.stores import Store
from instruct.checkpoints.weights import fit, model_shapes
from instruct.errors import UserError
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers
from tests.checkpoints.conftest import random_arrays, tree_of
from tests.float32 import assert_same_float32
from tests.train.t5x_run import T5X_FOLDER

pytestmark = pytest.mark.slow(secs=0.2)  # seconds together


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> pathlib.Path:
    """The folder that T5X wrote."""
    folder = tmp_path_factory.mktemp("t5x")
    with tarfile.open(T5X_FOLDER / "checkpoint_5.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "checkpoint_5"


def test_t5x_logits(real):
    opened = t5x.open_checkpoint(str(real))
    assert opened.step == 5 and not opened.unknown and opened.model is not None
    expected = np.load(T5X_FOLDER / "expected.npz")
    batch = {n.split("/")[1]: expected[n] for n in expected if n.startswith("batch0/")}
    params = tree_of(opened.arrays)
    visible = batch["decoder_segment_ids"] > 0
    stacked = dataclasses.replace(opened.model, scan_layers=True)
    for model, tree in ((opened.model, params), (stacked, stack_layers(params))):
        found = np.asarray(jax.jit(EncoderDecoder(model).apply)(tree, batch))
        assert_same_float32(found[visible], expected["logits"][visible])


def test_what_is_written_is_what_t5x_wrote(real, tmp_path):
    opened = t5x.open_checkpoint(str(real), slots=True)
    out = tmp_path / "checkpoint_5"
    float32 = np.dtype(np.float32)
    t5x_writing.write_checkpoint(out, opened.arrays, float32, slots=opened.slots, step=opened.step)
    names = {path.relative_to(real) for path in real.rglob("*") if path.is_file()}
    assert names == {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert len(names) == 231
    for name in names:
        assert (out / name).read_bytes() == (real / name).read_bytes(), name


def test_the_model_is_told_by_shapes(real):
    opened = t5x.open_checkpoint(str(real))
    _, report = fit(opened, model_shapes(opened.model), "itself")
    report.check()
    assert len(report.of("used")) == 66
    assert "target.encoder.encoder_norm.scale" in "\n".join(report.table())
    assert (opened.model.num_heads, opened.model.head_dim) == (3, 16)


def write_legacy(folder, arrays, compressor=None, inline=lambda name: False, top="optimizer"):
    """A legacy checkpoint with other choices than this program makes when it writes."""
    tree: dict = {}
    folder.mkdir()
    for path, array in arrays.items():
        name, values = f"target.{path.replace('/', '.')}", array.read()
        leaf: object = {"driver": "zarr", "metadata": {}, "path": "/elsewhere/" + name}
        if inline(path):
            content = msgpack.packb((values.shape, values.dtype.name, values.tobytes()))
            leaf = msgpack.ExtType(1, content)
        else:
            kvstore = {"driver": "file", "path": f"{folder}/{name}/"}
            metadata = {"compressor": compressor, "chunks": [3] * values.ndim}
            spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
            metadata["chunks"] = [min(3, size) for size in values.shape]
            written = ts.open(
                spec, create=True, dtype=ts.dtype(values.dtype), shape=values.shape
            ).result()
            written.write(values).result()
        node = tree.setdefault("target", {})
        *parents, last = path.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    tree["state"] = {"step": 12}
    (folder / "checkpoint").write_bytes(msgpack.packb({"version": 3, top: tree}))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16])
@pytest.mark.parametrize("codec", [{"id": "zstd", "level": 3}, {"id": "gzip", "level": 5}, None])
def test_codecs_and_small_chunks(tiny, tmp_path, dtype, codec):
    arrays = {p: held(a.read().astype(dtype), p) for p, a in random_arrays(tiny).items()}
    folder = tmp_path / "checkpoint_12"
    write_legacy(folder, arrays, codec, inline=lambda name: "norm" in name)
    opened = t5x.open_checkpoint(str(folder))
    assert opened.step == 12 and opened.arrays.keys() == arrays.keys()
    for path, array in arrays.items():
        found = opened.arrays[path]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.read(), array.read())
    kernel = opened.arrays["decoder/logits_dense/kernel"]
    whole = arrays["decoder/logits_dense/kernel"].read()
    np.testing.assert_array_equal(kernel.read([slice(2, 5), slice(1, None)]), whole[2:5, 1:])


def scanned(arrays, tiny, module, bias) -> dict[str, np.ndarray]:
    """scalable_t5's arrays: layers along axis 1, heads apart, a table of positions per layer."""
    found = {}
    depths = {"encoder": tiny.num_encoder_layers, "decoder": tiny.num_decoder_layers}
    heads, width = tiny.num_heads, tiny.head_dim
    for path, array in arrays.items():
        stack = path.partition("/")[0]
        if path.endswith("rel_embedding"):
            values = np.stack([array.read()] * depths[stack], axis=1)
            found[f"{stack}/{module or stack}/{bias}/rel_embedding"] = values
        elif "layers_0" in path:
            layers = [
                arrays[path.replace("layers_0", f"layers_{i}")].read() for i in range(depths[stack])
            ]
            if path.endswith(("query/kernel", "key/kernel", "value/kernel")):
                layers = [layer.reshape(-1, heads, width) for layer in layers]
            if path.endswith("out/kernel"):
                layers = [layer.reshape(heads, width, -1) for layer in layers]
            name = path.replace("layers_0", module or stack)
            found[name] = np.stack(layers, axis=1)
        elif "layers_" not in path:
            found[path] = array.read()
    return found


@pytest.mark.parametrize(("module", "bias"), [("", "relpos_bias"), ("layers", "relative_posemb")])
def test_scanned_layers_are_taken_apart(tiny, tmp_path, module, bias):
    arrays = random_arrays(tiny)
    theirs = {path: held(a, path) for path, a in scanned(arrays, tiny, module, bias).items()}
    write_legacy(tmp_path / "checkpoint_0", theirs)
    opened = t5x.open_checkpoint(str(tmp_path / "checkpoint_0"))
    assert opened.model == tiny and not opened.unknown
    assert opened.arrays.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(opened.arrays[path].read(), array.read(), err_msg=path)
        half = [slice(1, size) for size in array.shape]
        np.testing.assert_array_equal(opened.arrays[path].read(half), array.read(half))
    name = next(path for path in theirs if path.endswith("rel_embedding"))
    theirs[name].read()[0, 1] += 1  # layer 1 has a table of its own
    write_legacy(tmp_path / "checkpoint_1", theirs)
    with pytest.raises(UserError, match="relative positions of their own"):
        t5x.open_checkpoint(str(tmp_path / "checkpoint_1"))


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("inner", ["state", ""])
def test_orbax_layout(tiny, tmp_path, ocdbt, inner):
    arrays = random_arrays(tiny)
    state = {"target": tree_of(arrays), "state": {"step": np.int32(9), "param_states": {}}}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    with ocp.Checkpointer(handler) as writer:
        writer.save(tmp_path / "checkpoint_9" / inner, state)
    opened = t5x.open_checkpoint(str(tmp_path / "checkpoint_9"))
    assert opened.step == 9 and opened.model == tiny
    for path, array in arrays.items():
        np.testing.assert_array_equal(opened.arrays[path].read(), array.read())


@pytest.mark.parametrize("layout", ["legacy", "orbax"])
def test_what_is_no_folder_is_read_by_the_same_code(tiny, tmp_path, layout):
    """TensorStore's store in memory stands for a bucket; gs:// itself needs the network."""
    arrays, folder = random_arrays(tiny), tmp_path / "checkpoint_0"
    if layout == "legacy":
        write_legacy(folder, arrays)
    else:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as writer:
            writer.save(folder / "state", {"target": tree_of(arrays)})
    context, spec = ts.Context(), {"driver": "memory", "path": "a/checkpoint_0/"}
    memory = ts.KvStore.open(spec, context=context).result()
    for path in folder.rglob("*"):
        if path.is_file():
            memory[str(path.relative_to(folder))] = path.read_bytes()
    opened = t5x.open_checkpoint(Store("memory://a/checkpoint_0", spec, context))
    assert opened.model == tiny and opened.place == "memory://a/checkpoint_0"
    for path, array in arrays.items():
        np.testing.assert_array_equal(opened.arrays[path].read(), array.read())


def test_addresses_of_buckets():
    assert Store("gs://bucket/some/where/").inside("target.x") == {
        "driver": "gcs",
        "bucket": "bucket",
        "path": "some/where/target.x/",
    }
    with pytest.raises(UserError, match="no bucket"):
        Store("gs://")


def test_claims_beyond_any_model_cost_nothing(tiny, tmp_path):
    theirs = {
        p: held(a, p) for p, a in scanned(random_arrays(tiny), tiny, "", "relpos_bias").items()
    }
    write_legacy(tmp_path / "checkpoint_0", theirs)
    for name in ("wi_0", "wo"):
        path = tmp_path / "checkpoint_0" / f"target.encoder.encoder.mlp.{name}.kernel" / ".zarray"
        zarray = json.loads(path.read_text())
        zarray["shape"][1] = 1 << 40
        path.write_text(json.dumps(zarray))
    with pytest.raises(UserError, match="claims 1,099,511,627,776 layers"):
        t5x.open_checkpoint(str(tmp_path / "checkpoint_0"))
    write_legacy(tmp_path / "checkpoint_1", random_arrays(tiny))
    index = tmp_path / "checkpoint_1" / "checkpoint"
    tree = msgpack.unpackb(index.read_bytes(), strict_map_key=False)
    decoder = tree["optimizer"]["target"]["decoder"]
    decoder["layers_999999999"] = {"x": msgpack.ExtType(1, msgpack.packb(([], "int8", b"1")))}
    index.write_bytes(msgpack.packb(tree))
    opened = t5x.open_checkpoint(str(tmp_path / "checkpoint_1"))
    assert list(opened.unknown) == ["decoder/layers_999999999/x"] and opened.model == tiny


def index_of(**changes) -> bytes:
    return msgpack.packb({"version": 3, "optimizer": {"target": {}, "state": {}}} | changes)


def spoil(folder: pathlib.Path, how: str) -> None:
    index, array = folder / "checkpoint", folder / "target.decoder.decoder_norm.scale"
    zarray = json.loads((array / ".zarray").read_text())
    if how == "no index":
        index.unlink()
    elif how == "cut index":
        index.write_bytes(index.read_bytes()[:-20])
    elif how == "index of a TensorFlow checkpoint":
        index.write_text('model_checkpoint_path: "model.ckpt-1"')
    elif how == "old version":
        index.write_bytes(index_of(version=2))
    elif how == "no parameters":
        index.write_bytes(index_of())
    elif how == "index announces 4 billion entries":
        index.write_bytes(b"\xdf\xff\xff\xff\xff")
    elif how == "object in the index":
        content = msgpack.packb(([1], "object", b"12345678"))
        tree = {"target": {"x": msgpack.ExtType(1, content)}}
        index.write_bytes(index_of(optimizer=tree))
    elif how == "lost chunk":  # zarr reads a lost chunk as zeros unless it is told not to
        (array / "0").unlink()
    elif how == "cut chunk":
        (array / "0").write_bytes((array / "0").read_bytes()[:9])
    elif how == "lost array":
        (array / ".zarray").unlink()
    elif how == "huge chunk":
        (array / ".zarray").write_text(json.dumps(zarray | {"chunks": [1 << 40]}))
    elif how == "link":
        target = folder.parent / "elsewhere"
        (array / "0").rename(target)
        (array / "0").symlink_to(target)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no index", "no 'checkpoint' file"),
        ("cut index", "no msgpack index"),
        ("index of a TensorFlow checkpoint", "TensorFlow checkpoint"),
        ("old version", "version 2"),
        ("no parameters", "no parameters"),
        ("index announces 4 billion entries", "no msgpack index"),
        ("object in the index", "no msgpack index"),
        ("lost chunk", "decoder_norm.scale is damaged: .*missing"),
        ("cut chunk", "decoder_norm.scale is damaged"),
        ("lost array", "decoder_norm.scale is damaged: .*missing"),
        ("huge chunk", "chunks of .* larger"),
        ("link", "symbolic link .* outside"),
    ],
)
def test_damaged_ones_end_in_one_message(tiny, tmp_path, how, message):
    folder = tmp_path / "checkpoint_0"
    write_legacy(folder, random_arrays(tiny), {"id": "gzip", "level": 1})
    spoil(folder, how)
    with pytest.raises(UserError, match=message) as caught:
        for array in t5x.open_checkpoint(str(folder)).arrays.values():
            array.read()
    assert "\n" not in str(caught.value)


def test_flax_cuts_large_arrays_into_parts():
    values = np.arange(6, dtype=np.float32)
    part = [
        msgpack.ExtType(1, msgpack.packb(([3], "float32", values[i : i + 3].tobytes())))
        for i in (0, 3)
    ]
    node = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 3},
        "chunks": {"0": part[0], "1": part[1]},
    }
    file = io.BytesIO(msgpack.packb({"a": node}))
    found = t5x.read_index(file.read(), "x")["a"]
    np.testing.assert_array_equal(found, values.reshape(2, 3))


@pytest.mark.parametrize("step", [-3, 2.5, float("nan")])
def test_the_step_is_a_whole_number(tiny, tmp_path, step):
    folder = tmp_path / "checkpoint_12"
    write_legacy(folder, random_arrays(tiny))
    index = msgpack.unpackb((folder / "checkpoint").read_bytes(), strict_map_key=False)
    index["optimizer"]["state"]["step"] = step
    (folder / "checkpoint").write_bytes(msgpack.packb(index))
    with pytest.raises(UserError, match="the step is .*, not a whole number"):
        t5x.open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["[x]*?", "a b#1", "%20", "{}", "~$X", "caf\u0065\u0301", "@4=,:"])
def test_a_folder_may_have_any_name(tiny, tmp_path, name):
    arrays = random_arrays(tiny)
    folder = tmp_path / name / "checkpoint_3"
    folder.mkdir(parents=True)
    t5x_writing.write_checkpoint(folder, arrays, np.dtype(np.float32), step=3)
    found = t5x.open_checkpoint(str(folder)).arrays
    for path, array in arrays.items():
        np.testing.assert_array_equal(found[path].read(), array.read())


def test_a_backslash_is_refused(tiny, tmp_path):
    folder = tmp_path / "back\\slash"
    folder.mkdir()
    with pytest.raises(UserError, match="has a backslash"):
        t5x_writing.write_checkpoint(folder, random_arrays(tiny), np.dtype(np.float32), step=3)
    assert [path.name for path in tmp_path.iterdir()] == ["back\\slash"]


@pytest.mark.parametrize(
    ("bias", "with_embedding", "words"),
    [
        (None, False, "it has no token_embedder/embedding"),
        ((4,), True, r"its shape \[4\] is not \[heads, layers, buckets\]"),
        ((4, 0, 32), True, r"its shape \[4, 0, 32\] is not"),
    ],
)
def test_damaged_scanned_layers_are_named(bias, with_embedding, words, tmp_path):
    arrays = {"encoder/encoder/pre_mlp_layer_norm/scale": (8, 2)}
    if with_embedding:
        arrays["token_embedder/embedding"] = (16, 8)
    if bias:
        arrays["encoder/encoder/relpos_bias/rel_embedding"] = bias
    arrays = {name: held(np.ones(shape, np.float32), name) for name, shape in arrays.items()}
    t5x_writing.write_checkpoint(tmp_path / "checkpoint_1", arrays, np.dtype(np.float32))
    with pytest.raises(UserError, match=words):
        t5x.open_checkpoint(str(tmp_path / "checkpoint_1"))
