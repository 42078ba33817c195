"""Formulas against known values."""

import doctest

import pytest

from instruct.report.statistics import formulas
from instruct.report.statistics.formulas import wilson


def test_doctests():
    assert doctest.testmod(formulas).failed == 0


def test_wilson_agrees_with_published_values():
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson(15, 148) == pytest.approx((6.24, 16.05), abs=0.01)
    assert wilson(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson(0, 0) == (0.0, 100.0)


def test_holm_keeps_the_order_and_never_passes_one():
    assert formulas.holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert formulas.holm([]) == []
