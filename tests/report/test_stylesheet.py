"""Light and dark define the same colours, and figures use only those."""

import re

from instruct.report import figures
from instruct.report.stylesheet import STYLE


def test_dark_redefines_every_colour():
    light, dark = re.findall(r":root\{([^}]*)\}", STYLE)
    colours = set(re.findall(r"(--[\w-]+):#", light))
    assert colours == set(re.findall(r"(--[\w-]+):#", dark))
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLE))
    assert used <= set(re.findall(r"(--[\w-]+):", light))


def test_the_palette_is_complete():
    for number in range(figures.PALETTE_SIZE):
        assert f".s{number}{{color:var(--c{number})}}" in STYLE.replace("\n", "")
