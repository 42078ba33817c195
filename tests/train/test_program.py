"""The program that `check` compiles is the one that `train` runs."""

import dataclasses

import pytest

from instruct.capacity.memory import memory_bytes
from instruct.errors import UserError
from instruct.mesh import MeshConfig, abstract_mesh, make_mesh
from instruct.train import loop
from instruct.train.program import (
    abstract_batch,
    check_layout,
    lower_train_step,
    training_step,
)
from tests.train.batches import tiny_config, tiny_decoder
from tests.train.stand_in import DATA, ONE_LAYER, arguments


@pytest.mark.slow
def test_memory_is_that_of_the_program_that_trains(tmp_path, monkeypatch):
    """Within 5 % of `memory_analysis` of the live run on eight fake devices."""
    live = []

    def recorded(*given):
        lowered = lower_train_step(*given)
        live.append(memory_bytes(lowered.compile()))
        return lowered

    monkeypatch.setattr(loop, "lower_train_step", recorded)
    monkeypatch.setattr(loop.peak, "matmul_peak", lambda *_: 1e11)
    config = MeshConfig(data=2, fsdp=4)
    settings = arguments(
        tmp_path / "run", 1, mesh=config, model=tiny_config(d_model=64, **ONE_LAYER)
    )
    loop.train(**settings)
    mesh = make_mesh(config)
    step = training_step(settings["model"], mesh, settings, (8, (12, 10)))
    lowered = lower_train_step(step.function, step.abstract, mesh, step.batch)
    checked = memory_bytes(lowered.compile())
    assert live[0]["total"] == pytest.approx(checked["total"], rel=0.05)
    assert live[0]["temporaries"] == pytest.approx(checked["temporaries"], rel=0.05)


def test_batches_of_another_layout_are_refused():
    with pytest.raises(UserError) as error:
        check_layout(tiny_decoder(), DATA)
    for part in ("'encoder_decoder'", "DecoderConfig", "DataConfig.layout = 'decoder_only'"):
        assert part in str(error.value)
    check_layout(tiny_decoder(), dataclasses.replace(DATA, layout="decoder_only"))


def test_a_prefix_lm_is_not_trained_on_its_prompts():
    data = dataclasses.replace(DATA, layout="decoder_only", loss_on="all")
    causal, prefix = (dataclasses.replace(tiny_decoder(), prefix_lm=on) for on in (False, True))
    check_layout(causal, data)
    with pytest.raises(UserError, match="DecoderConfig.prefix_lm = False"):
        check_layout(prefix, data)


def test_rows_of_a_decoder_hold_inputs_and_targets():
    mesh = abstract_mesh(MeshConfig(data=2, sequence=2))
    batch = abstract_batch(tiny_decoder(), mesh, 8, (13, 9))
    assert {leaf.shape for leaf in batch.values()} == {(8, 22)}
    with pytest.raises(UserError, match="13 tokens"):
        abstract_batch(tiny_config(), mesh, 8, (13, 9))
