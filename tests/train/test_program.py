"""The program that `check` compiles is the one that `train` runs."""

import pytest

from instruct.capacity.memory import memory_bytes
from instruct.mesh import MeshConfig, make_mesh
from instruct.train import loop
from instruct.train.program import lower_train_step, training_step
from tests.train.batches import tiny_config
from tests.train.stand_in import ONE_LAYER, arguments


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
