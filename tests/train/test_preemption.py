"""The first signal asks, the second kills, and the handlers before are given back."""

import gc
import os
import signal

import pytest

from instruct.train.preemption import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_remembered(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.at(1)
        os.kill(os.getpid(), number)
        assert stop.at(2) and stop.signal_name == signal.Signals(number).name
    assert signal.getsignal(number) is before


@pytest.fixture
def interruptible():
    """SIGINT raises, also below a shell that started this in the background and ignores it.

    Python drops an exception that is raised within a callback of the garbage collector.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def test_second_interrupt_is_the_usual_one(interruptible):
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.at(1)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)


def test_several_processes_ask_jax(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("instruct.train.preemption.watch_preemption", lambda: None)
    asked = []
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.reached_preemption_sync_point",
        lambda step: asked.append(step) or step == 5,
    )
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) is before
        assert [stop.at(4), stop.at(5)] == [False, True] and asked == [4, 5]
        assert stop.signal_name == "SIGTERM"  # whichever process it was sent to
