"""Numbers as languages write them, worked out by hand."""

from decimal import Decimal

import pytest

from instruct.prompts.numbers import ENGLISH, NumberForm, numbers_in

COMMA = NumberForm(",", (("tausend", 3), ("millionen", 6)))
JAPANESE = NumberForm(".", (("百", 2), ("千", 3), ("万", 4), ("億", 8)))
SWAHILI = NumberForm(".", (("elfu", 3),), scale_first=True)
THAI = NumberForm(".", (("พัน", 3), ("หมื่น", 4)))


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        # (text, its numbers where the dot is the decimal sign, where the comma is)
        ("1.000", "1", "1000"),
        ("1,000", "1000", "1"),
        ("70.000.", "70", "70000"),
        ("70,000.", "70000", "70"),
        ("1.234,56", "1234.56", "1234.56"),
        ("1,234.56", "1234.56", "1234.56"),
        ("1.000.000", "1000000", "1000000"),
        ("1,000,000", "1000000", "1000000"),
        ("1,00,000 1,20,000.50", "100000 120000.5", "100000 120000.5"),
        ("12.50", "12.5", "12.5"),
        ("3.5 Euro", "3.5", "3.5"),
        ("0.125", "0.125", "0.125"),
        ("12,50", "12 50", "12.5"),
        ("1, 2, 3", "1 2 3", "1 2 3"),
        ("1,2,3", "1 2 3", "1 2 3"),
        ("70 000 7\u00a0000 7\u202f000 7\u2009000", "70000 7000 7000 7000", "70000 7000 7000 7000"),
        ("70'000 70\u2019000 7'000'000", "70000 70000 7000000", "70000 70000 7000000"),
        ("70'000.50", "70000.5", "70000.5"),
        ("70 000,50", "70000.5", "70000.5"),
        ("1 2345, 2020 100", "1 2345 2020 100", "1 2345 2020 100"),
        ("3 100-dollar notes", "3 100", "3 100"),
        ("10:30, 1.5.2020, 5/6/2020", "10 30 1 5 2020 5 6 2020", "10 30 1 5 2020 5 6 2020"),
        ("\u22123 \u20133 -3 \uff0d3 3\u20135 +4", "-3 -3 -3 -3 3 5 4", "-3 -3 -3 -3 3 5 4"),
        ("-$5 $-5 US$5 -€ 5 5€ 5%", "-5 -5 5 -5 5 5", "-5 -5 5 -5 5 5"),
        ("Rs.5 EUR5 ৳5 TSh5/= 5,-", "5 5 5 5 5", "5 5 5 5 5"),
        ("1/2 3½ ½ 2 1/4 7/0", "0.5 3.5 0.5 2.25 7 0", "0.5 3.5 0.5 2.25 7 0"),
        ("x7 v1.5 No.5 ...5 .5", "5 5 0.5", "5 5 0.5"),
        ("১২ ౧౨ ๑๒ १२ ４２", "12 12 12 12 42", "12 12 12 12 42"),
        (r"\boxed{70{,}000} **7** 7\,000 \$7", "70000 7 7000 7", "70 7 7000 7"),
        (r"1{.}500 1.\!500", "1.5 1.5", "1500 1500"),
        ("١٬٠٠٠٫٥", "1000.5", "1000.5"),
        ("no number", "", ""),
    ],
)
def test_dots_and_commas(text, point, comma):
    for form, numbers in ((ENGLISH, point), (COMMA, comma)):
        assert numbers_in(text, form) == [Decimal(number) for number in numbers.split()], form


@pytest.mark.parametrize(
    ("form", "text", "numbers"),
    [
        (ENGLISH, "70 thousand, 2 Million, 3 thousandths, 5 cats", [70_000, 2_000_000, 3, 5]),
        (COMMA, "1,5 Millionen, 70 Tausend, 70.000 Tausender", [1_500_000, 70_000, 70_000]),
        (JAPANESE, "7万ドル、7万5千円、7万5000、1億2,000万", [70_000, 75_000, 75_000, 120_000_000]),
        (JAPANESE, "-7万5千、5百万、７０，０００", [-75_000, 5_000_000, 70_000]),
        (JAPANESE, "3千 5万", [3_000, 50_000]),
        (SWAHILI, "elfu 70, 70 elfu, 70,000", [70_000, 70_000, 70_000]),
        (THAI, "7 หมื่น บาท และ 3 พันธุ์", [70_000, 3]),
    ],
)
def test_words_of_scale(form, text, numbers):
    assert numbers_in(text, form) == numbers


def test_long_numbers_stay_exact_and_quick():
    assert numbers_in("-" + "9" * 300) == [Decimal("-" + "9" * 300)]
    for text in ("1." * 5_000, "1," * 5_000, "1 " * 5_000, "100," * 5_000, "1/" * 5_000):
        assert numbers_in(text, COMMA)
