"""Numbers in words and digits, and their limits."""

import decimal
import re

import pytest

from instruct.report.faithfulness.numbers import as_digits, key_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("two hundred and fifty people", "250"),
        ("1,200.50", "1200.50"),
        ("ninety-one", "91"),
        ("twenty one", "21"),
        ("a thousand", "1000"),
        ("two thousand and five", "2005"),
        ("nineteen eighty-four", "1984"),
        ("twenty sixteen", "2016"),
        ("half a dozen", "6"),
        ("two and a half million", "2500000"),
        ("12k", "12000"),
        ("6.5m people", "6500000"),
        ("3rd", "3"),
        ("twenty-third", "23"),
        ("fortieth", "40"),
        ("3, 000", "3000"),
        ("12, 5", "12"),
        ("one", "1"),
    ],
)
def test_values(text, value):
    assert re.findall(r"[\d.]*\d", as_digits(text)[0])[0] == value


@pytest.mark.parametrize("text", ["a man", "LX", "half past", "hundreds of", "k"])
def test_no_numbers(text):
    assert as_digits(text)[0] == text


def test_digits_know_where_they_stood():
    text = "She paid two hundred and fifty dollars."
    digits, spans = as_digits(text)
    begin = digits.index("250")
    assert text[spans[begin][0] : spans[begin + 2][1]] == "two hundred and fifty"
    assert digits == "She paid 250 dollars."
    assert key_of(decimal.Decimal("20.0")) == "20"
