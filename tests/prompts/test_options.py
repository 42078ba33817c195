import itertools

import pytest

from instruct.prompts.draws import Draws
from instruct.prompts.options import (
    LABELLED_SHARE,
    STYLES,
    OptionStyle,
    draw_style,
    match_option,
    show_options,
    symbol,
)

OPTIONS = ["stone", "paper", "scissors"]


def test_styles_are_many_and_no_two_look_alike():
    assert len(STYLES) > 3000
    assert len({style.render(["x", "y", "z"]) for style in STYLES}) == len(STYLES)


@pytest.mark.parametrize("count", [2, 5, 27, 60, 800])
def test_markers_are_unique_for_any_number_of_options(count):
    framed = {(style.alphabet, style.frame): style for style in STYLES if style.alphabet}
    for style in framed.values():
        markers = style.markers(count)
        assert len(set(markers)) == count
        assert all(marker.strip() == marker and marker for marker in markers)


def test_symbols():
    assert [symbol("upper", i) for i in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
    assert [symbol("roman", i) for i in (0, 3, 8, 48)] == ["i", "iv", "ix", "xlix"]


def test_rendering():
    lettered = OptionStyle("Choices:", alphabet="upper", frame="({})", ending=";")
    assert lettered.render(OPTIONS) == "Choices:\n(A) stone;\n(B) paper;\n(C) scissors;"
    assert lettered.markers(2) == ("(A)", "(B)")
    dotted = OptionStyle(alphabet="digit", frame="{}.", layout="inline")
    assert dotted.render(OPTIONS) == "1. stone 2. paper 3. scissors"
    assert dotted.markers(3) == ("1", "2", "3")
    plain = OptionStyle("Options:", layout="inline")
    assert plain.render(OPTIONS) == "Options: stone, paper, scissors"
    assert plain.markers(3) == ()
    full_stop = OptionStyle(bullet="- ", ending=".")
    assert full_stop.render(["I am.", "you"]) == "- I am.\n- you."


def test_shown_answer_is_the_marker_or_the_text():
    labelled = OptionStyle(alphabet="upper", frame="({})")
    shown = show_options(OPTIONS, 1, labelled, [2, 1, 0])
    assert shown.options == ("scissors", "paper", "stone")
    assert (shown.answer, shown.answer_index) == ("(B)", 1)
    shown = show_options(OPTIONS, 0, OptionStyle(bullet="- "), [2, 1, 0])
    assert (shown.answer, shown.answer_index) == ("stone", 2)


def test_drawn_styles_never_confuse_a_label_with_an_option():
    numbers = [str(n) for n in range(1, 6)]
    for key in range(300):
        style = draw_style([numbers], Draws(key))
        assert style.alphabet != "digit"
        # Nor may an exemplar's options: all of a prompt share one style.
        style = draw_style([OPTIONS, ["a", "x"]], Draws(key))
        assert style.alphabet not in ("upper", "lower")


def test_most_drawn_styles_have_labels():
    labelled = sum(draw_style([OPTIONS], Draws(key)).alphabet != "" for key in range(3000))
    assert abs(labelled / 3000 - LABELLED_SHARE) < 0.03


def test_options_with_commas_or_lines_are_not_put_on_one_line():
    for key in range(300):
        assert draw_style([["1,000", "2"]], Draws(key)).layout == "lines"
        assert draw_style([["a\nb", "c"]], Draws(key)).layout == "lines"


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("(B)", 1),
        ("B", 1),
        ("b.", 1),
        ("paper", 1),
        (" Paper. ", 1),
        ("(B) paper", 1),
        ("B. paper", 1),
        ("(b) because it wraps stone", 1),
        ("B. it wraps stone", None),
        ("A paper boat", None),
        ("(D)", None),
        ("", None),
        ("stone or paper", None),
    ],
)
def test_marker_and_text_are_both_accepted(prediction, expected):
    assert match_option(prediction, OPTIONS, ("(A)", "(B)", "(C)")) == expected


def test_matching_without_markers_takes_texts_only():
    assert match_option("paper", OPTIONS) == 1
    assert match_option("(B)", OPTIONS) is None


def test_a_marker_as_shown_goes_before_an_option_of_the_same_text():
    assert match_option("2", ["2", "1"], ("1", "2")) == 1
    assert match_option("(2)", ["2", "1"], ("(1)", "(2)")) == 1


def test_every_style_reads_back_its_own_answers():
    for style, index in itertools.product(STYLES[::7], range(3)):
        shown = show_options(OPTIONS, index, style, [1, 2, 0])
        assert match_option(shown.answer, shown.options, shown.markers) == shown.answer_index


@pytest.mark.parametrize(
    "options",
    [
        ("<", "<=", "=", ">=", ">"),
        ("He left.", "He left?", "he left."),
        ("Polish", "polish"),
        ("(5)", "5", "[5]"),
    ],
)
def test_options_that_differ_in_case_and_punctuation_only_are_told_apart(options):
    assert [match_option(f" {option}\n", options) for option in options] == [*range(len(options))]
    # Not as written: the first that is meant.
    assert match_option("HE LEFT", ["No.", "He left.", "He left?"]) == 1
    assert match_option("'>='.", ("<", "<=", "=", ">=")) == 3
