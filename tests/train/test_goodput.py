"""Every second of wall time is counted once, over several sessions; a fake clock."""

import json
import threading

import jax
import jax.numpy as jnp
import pytest

from instruct.train.goodput import KINDS, Goodput
from tests.waiting import LIMIT_SECS


class Clock:
    """`time.perf_counter` and `time.time`, which stand still between calls of `pass_`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pass_(self, secs: float) -> None:
        self.now += secs


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("instruct.train.goodput.time.perf_counter", lambda: clock.now)
    monkeypatch.setattr("instruct.train.goodput.time.time", lambda: clock.now)
    return clock


def shares(goodput):
    return {name.removeprefix("goodput/"): share for name, share in goodput.scalars().items()}


def test_a_second_is_counted_as_one_kind(clock):
    goodput = Goodput()
    clock.pass_(1)
    with goodput.spent("compilation"):
        clock.pass_(2)
    goodput.switch("steps")
    clock.pass_(12)
    with goodput.spent("evaluation"):
        clock.pass_(2)
        with goodput.spent("checkpoints"):
            clock.pass_(3)
    expected = dict.fromkeys(KINDS, 0.0)
    expected |= {"other": 0.05, "compilation": 0.1, "steps": 0.6, "evaluation": 0.1}
    assert shares(goodput) == pytest.approx(expected | {"checkpoints": 0.15})


def test_a_lap_has_steps_and_input_waits_only(clock):
    goodput = Goodput()
    clock.pass_(50)
    goodput.switch("steps")
    clock.pass_(2)
    with goodput.waiting_for_input(None):
        clock.pass_(1)
    with goodput.spent("checkpoints"):
        clock.pass_(50)
    assert goodput.lap() == 3.0
    goodput.switch("other")
    clock.pass_(99)
    assert goodput.lap() == 0.0
    assert shares(goodput)["input_wait"] == pytest.approx(1 / 202)


class Running:
    """A result that is computed when `ready` is set."""

    def __init__(self) -> None:
        self.ready = threading.Event()

    def block_until_ready(self):
        assert self.ready.wait(LIMIT_SECS)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "goodput"]


def test_input_is_waited_for_only_while_the_devices_have_nothing_to_do(clock):
    goodput = Goodput()
    goodput.switch("steps")
    busy = Running()
    with goodput.waiting_for_input(busy):
        clock.pass_(8)  # the devices compute all the time
    assert shares(goodput)["input_wait"] == 0
    busy.ready.set()
    idle = Running()
    with goodput.waiting_for_input(idle):
        clock.pass_(1)
        idle.ready.set()
        for watcher in threads():
            watcher.join(LIMIT_SECS)
        clock.pass_(1)
    assert shares(goodput)["input_wait"] == pytest.approx(0.1)
    assert shares(goodput)["steps"] == pytest.approx(0.9)


def test_compilations_are_counted_wherever_they_occur():
    with Goodput() as goodput:
        goodput.switch("evaluation")
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(3)).block_until_ready()
    counted = goodput.state(False)["secs"]
    assert counted["compilation"] > 0 <= counted["evaluation"]
    jax.jit(lambda x: x * 5 + 1)(jnp.ones(3)).block_until_ready()
    assert goodput.state(False)["secs"]["compilation"] == counted["compilation"]


def test_a_restart_lasts_from_the_checkpoint_to_the_next_first_step(clock):
    killed = Goodput()
    killed.switch("steps")
    clock.pass_(60)
    saved = json.loads(json.dumps(killed.state(finished=False)))
    clock.pass_(15)  # steps that are lost
    clock.pass_(5)  # nobody runs
    resumed = Goodput()
    clock.pass_(8)
    resumed.restore(saved)
    clock.pass_(1)
    with resumed.spent("compilation"):
        clock.pass_(4)
    clock.pass_(1)
    resumed.switch("steps")
    assert resumed.lap() == 0.0
    clock.pass_(6)
    assert resumed.lap() == 6.0
    expected = dict.fromkeys(KINDS, 0.0)
    expected |= {"steps": 0.66, "restarts": 0.30, "compilation": 0.04}
    assert shares(resumed) == pytest.approx(expected)


def test_time_until_more_steps_are_asked_for_is_no_restart(clock):
    finished = Goodput()
    finished.switch("steps")
    clock.pass_(90)
    saved = finished.state(finished=True)
    clock.pass_(10_000)
    longer = Goodput()
    clock.pass_(10)
    longer.restore(saved)
    assert shares(longer) == pytest.approx(dict.fromkeys(KINDS, 0.0) | {"steps": 0.9, "other": 0.1})


def test_a_checkpoint_without_a_count_starts_one(clock):
    goodput = Goodput()
    clock.pass_(1)
    goodput.restore({})
    assert shares(goodput)["other"] == 1.0


def test_a_clock_that_was_set_back_makes_no_negative_restart(clock):
    saved = {"secs": {"steps": 10.0}, "until": clock.now + 3600}
    goodput = Goodput()
    goodput.restore(saved)
    clock.pass_(10)
    assert shares(goodput)["restarts"] == pytest.approx(0.5)
