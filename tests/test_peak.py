"""The measured peak is plausible, covers all devices, and is measured once."""

import jax
import pytest

from instruct import peak


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(peak, "_SIZES", (64, 128))
    peak.forget()
    yield
    peak.forget()


def test_peak_is_positive_and_cached():
    found = peak.matmul_peak("float32")
    assert 1e6 < found < 1e15
    assert peak.matmul_peak("float32") == found
    assert peak._measure.cache_info().hits == 1


def test_other_devices_and_types_are_measured_apart():
    peak.matmul_peak("bfloat16", jax.devices()[:1])
    peak.matmul_peak("float32", jax.devices()[:1])
    assert peak._measure.cache_info().currsize == 2
