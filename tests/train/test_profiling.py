"""A trace of the asked steps is where TensorBoard looks for it."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from instruct.errors import UserError
from instruct.train import loop
from instruct.train.profiling import StepProfiler, check_profile_steps


def traces(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files that TensorBoard's profile plugin lists."""
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def compute(profiler, steps):
    """`steps` as the training loop takes them."""
    program = jax.jit(lambda x: x @ x)
    results = jnp.ones((8, 8))
    for step in steps:
        profiler.begin(step)
        results = program(results)
        profiler.end(step, results)


def step_numbers(file: pathlib.Path) -> set[int]:
    """Those of the annotations in a trace."""
    data = jax.profiler.ProfileData.from_file(str(file))
    events = (e for plane in data.planes for line in plane.lines for e in line.events)
    return {int(dict(e.stats)["step_num"]) for e in events if e.name.split("#")[0] == "train"}


def test_the_asked_steps_are_traced(tmp_path):
    said = []
    with StepProfiler(tmp_path / "profile", (3, 2), 1, 9, said.append) as profiler:
        compute(profiler, (2, 3))
        assert not traces(tmp_path / "profile")
        compute(profiler, (4, 5))
        (file,) = traces(tmp_path / "profile")
    assert traces(tmp_path / "profile") == [file] and step_numbers(file) == {3, 4}
    assert len(said) == 1 and "from step 3 on" in said[0] and "xprof --logdir=" in said[0]


def test_an_interrupted_trace_is_written(tmp_path):
    with (
        pytest.raises(KeyError),
        StepProfiler(tmp_path, (1, 9), 0, 9, lambda line: None) as profiler,
    ):
        compute(profiler, (1, 2))
        raise KeyError
    assert len(traces(tmp_path)) == 1


@pytest.mark.parametrize("start", [5, 0])
def test_steps_that_are_not_computed_are_said(tmp_path, start):
    said = []
    with StepProfiler(tmp_path, (5, 2), start, 4 + start, said.append) as profiler:
        compute(profiler, (start + 1,))
    assert not list(tmp_path.iterdir())
    assert said == [
        f"PROFILE_STEPS=(5, 2): no trace, since step 5 is not among steps {start + 1} to "
        f"{4 + start} of this start."
    ]


@pytest.mark.parametrize("wrong", [5, "20", (1,), (0, 2), (1, 0), (1, 2.0), (1, 2, 3), (1, True)])
def test_wrong_values_are_named(wrong):
    with pytest.raises(UserError, match=r"PROFILE_STEPS.*such as \(20, 5\)"):
        check_profile_steps(wrong)


def test_right_values():
    for right in (None, (20, 5), [1, 1]):
        check_profile_steps(right)
    assert loop.PROFILE_FOLDER == "profile"
