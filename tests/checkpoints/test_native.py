"""This program's checkpoints, written array by array and read by training's own functions."""

import dataclasses

import jax
import numpy as np
import pytest

from instruct.checkpoints import native
from instruct.checkpoints.checkpoint import CheckpointStore
from instruct.checkpoints.loading import load_params
from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import unstack_layers
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import init_state
from tests.checkpoints.conftest import random_arrays


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_what_is_written_is_what_training_reads(tiny, tmp_path, scan):
    arrays = random_arrays(tiny)
    native.write_checkpoint(tmp_path / "new", arrays, tiny, info={"vocabulary": "bytes"})
    model = EncoderDecoder(dataclasses.replace(tiny, scan_layers=scan))
    found = load_params(tmp_path / "new", model.abstract_params())
    for path, leaf in tree_paths(unstack_layers(found)):
        np.testing.assert_array_equal(leaf, arrays[path].read())
    opened = native.open_checkpoint(tmp_path / "new")
    assert opened.model == tiny and opened.vocabulary == "bytes" and opened.kind == "instruct"


@pytest.mark.slow
def test_what_training_writes_is_read_with_its_slots(tiny, tmp_path):
    params = jax.jit(EncoderDecoder(tiny).init)(jax.random.key(0))
    state = init_state(params, make_optimizer(OptimizerConfig()))
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(3, state._replace(step=np.int32(3)), {})
    store.close()
    opened = native.open_checkpoint(tmp_path / "checkpoints" / "3", slots=True)
    assert opened.step == 3 and opened.model is None
    for path, leaf in tree_paths(params):
        np.testing.assert_array_equal(opened.arrays[path].read(), leaf)
    assert set(opened.slots) == {path for path, _ in tree_paths(state.opt_state.slots)}


def test_a_lost_file_is_named(tiny, tmp_path):
    native.write_checkpoint(tmp_path / "new", random_arrays(tiny), tiny, info={})
    (tmp_path / "new" / "params" / "_METADATA").unlink()
    with pytest.raises(UserError, match="_METADATA"):
        native.open_checkpoint(tmp_path / "new")
    with pytest.raises(UserError, match="exists already"):
        native.write_checkpoint(tmp_path / "new", random_arrays(tiny), tiny, info={})
