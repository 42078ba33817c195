"""Views of lazy arrays against numpy's own, whole and by slices; weights' rules and reports."""

import errno
import itertools
import resource
import signal
import sys

import numpy as np
import pytest

from instruct.checkpoints import arrays
from instruct.checkpoints.stores import ArrayWriter, chunk_shape
from instruct.checkpoints.weights import Checkpoint, Rule, fit, translate
from instruct.errors import UserError

FOUR = np.arange(5 * 3 * 4 * 2, dtype=np.float32).reshape(5, 3, 4, 2)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (lambda a: a, FOUR),
        (arrays.transposed, FOUR.transpose(3, 2, 1, 0)),
        (lambda a: arrays.layer_of(a, 1, 2), FOUR[:, 2]),
        (lambda a: arrays.joined(a, 0), FOUR.reshape(15, 4, 2)),
        (lambda a: arrays.joined(a, 2), FOUR.reshape(5, 3, 8)),
        (lambda a: arrays.joined(arrays.layer_of(a, 1, 0), 1), FOUR[:, 0].reshape(5, 8)),
        (lambda a: arrays.with_rows(a, 0, 3), FOUR[:3]),
        (lambda a: arrays.with_rows(a, 2, 6), np.pad(FOUR, ((0, 0), (0, 0), (0, 2), (0, 0)))),
    ],
)
def test_views_are_numpys(view, expected):
    found = view(arrays.held(FOUR, "x"))
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.read(), expected)
    cuts = [[slice(0, 1), slice(1, size), slice(size // 2, size)] for size in expected.shape]
    for index in itertools.product(*cuts):
        np.testing.assert_array_equal(found.read(index), expected[index])


def test_numbers_only():
    whole = arrays.held(np.arange(3), "quantised.weight")
    with pytest.raises(UserError, match="quantised.weight holds int64"):
        whole.read_as(np.dtype(np.float32))
    with pytest.raises(UserError, match="dtype 'float8'"):
        arrays.dtype_named("float8")


def test_same_values():
    first = arrays.held(FOUR, "x")
    assert arrays.same_values(first, arrays.held(FOUR.copy(), "y"))
    other = FOUR.copy()
    other[-1, -1, -1, -1] += 1
    assert not arrays.same_values(first, arrays.held(other, "y"))
    assert not arrays.same_values(first, arrays.held(FOUR[:4], "y"))
    assert arrays.fingerprint({"x": first}) != arrays.fingerprint({"y": first})


@pytest.mark.parametrize(
    ("shape", "target", "expected"),
    [
        ((), 1, []),
        ((8, 6), 64, [4, 3]),
        ((7, 5), 4, [1, 1]),
        ((32128, 4096), 64 << 20, [4016, 4096]),
        ((10240, 4096), 64 << 20, [2560, 4096]),
    ],
)
def test_chunks_divide_their_axes(shape, target, expected):
    assert chunk_shape(shape, 4, target) == expected


def test_a_report_has_every_key():
    rules = [Rule("encoder/layers_{i}/x", "block.{i}.x", "transposed"), Rule("e", "emb")]
    theirs = {f"block.{i}.x": arrays.held(np.zeros((2, 3)), f"b{i}") for i in range(2)}
    theirs |= {"emb": arrays.held(np.zeros(4), "emb"), "strange": arrays.held(np.zeros(9), "s")}
    ours, names, unknown = translate(theirs, rules)
    opened = Checkpoint("t5x", "here", ours, names, unknown=unknown, ignored={"old": "not used"})
    shapes = {f"encoder/layers_{i}/x": (3, 2) for i in range(3)} | {"e": (5,)}
    found, report = fit(opened, shapes, "the model")
    assert sorted(found) == ["encoder/layers_0/x", "encoder/layers_1/x"]
    table = "\n".join(report.table())
    for line in (
        "2 used, 1 ignored, 1 left over, 1 missing, 1 shape differs",
        "encoder/layers_*/x <- block.*.x [3, 2] x 2",
        "strange [9]  (unknown name)",
        "e <- emb model [5], checkpoint [4]",
        "old []  (not used)",
    ):
        assert line in table, table
    with pytest.raises(UserError, match="1 missing, 1 left over, 1 shape differs") as caught:
        report.check()
    assert "encoder/layers_2/x is missing" in str(caught.value)
    _, mapped = fit(
        opened,
        {"encoder/layers_0/x": (3, 2), "f": (4,), "g": (1,)},
        "the model",
        [("f", "e"), ("g", None)],
    )
    assert [row.ours for row in mapped.of("fresh")] == ["g"]
    mapped.check(allow_left_over=True)
    with pytest.raises(UserError, match="left over"):
        mapped.check()


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on a file's size is set as Linux does")
def test_what_the_system_refuses_keeps_its_number(tmp_path):
    values = np.random.default_rng(0).standard_normal((300, 300))
    metadata = {"shape": [300, 300], "chunks": [300, 300], "compressor": None}
    kvstore = {"driver": "file", "path": f"{tmp_path}/a/"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught, ArrayWriter() as writer:
            writer.add({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
