import collections

import pytest

from instruct.prompts.dialog import (
    KINDS,
    SPEAKERS,
    STYLES,
    DialogStyle,
    dialog_text,
    draw_dialog_style,
    show_dialog,
)
from instruct.prompts.draws import Draws

EVERY = [style for styles in STYLES.values() for style in styles]
TURNS = ("Where is the loom?", "In the attic.", "Thanks. And the yarn?")


def test_no_two_styles_read_the_same():
    assert len(set(EVERY)) == len(EVERY) > 1000
    shown = collections.defaultdict(list)
    for style in EVERY:
        shown[style.render(TURNS)].append(style)
    assert [styles for styles in shown.values() if len(styles) > 1] == []
    assert len(set(SPEAKERS)) == len(SPEAKERS)


def test_every_style_shows_the_turns_in_order_and_no_blank_ends():
    for style in EVERY:
        text = style.render(TURNS)
        places = [text.index(turn) for turn in TURNS]
        assert places == sorted(places)
        assert text == text.strip()
        assert text.endswith(style.marker(3)) if style.cue else TURNS[2] in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (DialogStyle(), "Hi!\nHello."),
        (DialogStyle("bullets", ("- ",), joint="\n\n"), "- Hi!\n\n- Hello."),
        (DialogStyle("quotes", ("\u00ab", "\u00bb")), "\u00abHi!\u00bb\n\u00abHello.\u00bb"),
        (
            DialogStyle("numbers", ("Turn {}:",), " ", cue=True),
            "Turn 1: Hi!\nTurn 2: Hello.\nTurn 3:",
        ),
        (DialogStyle("speakers", ("<X>", "<Y>"), "\n", "\n\n"), "<X>\nHi!\n\n<Y>\nHello."),
        (DialogStyle("speakers", ("A:", "B:"), " ", " ", True), "A: Hi! B: Hello. A:"),
    ],
)
def test_render(style, expected):
    assert style.render(["Hi!", "Hello."]) == expected


def test_all_kinds_are_drawn():
    drawn = collections.Counter(draw_dialog_style(Draws(key)).kind for key in range(4000))
    assert set(drawn) == set(KINDS)
    assert 0.66 < drawn["speakers"] / 4000 < 0.74
    assert drawn["plain"] > 120


def test_a_field_holds_one_turn_a_line():
    assert dialog_text(["Hi!\n  How are  you?", "Fine.\r\n"]) == "Hi! How are you?\nFine."


def test_show_dialog_is_fixed_by_its_draws_and_may_leave_out_the_cue():
    text = dialog_text(TURNS)
    shown = {show_dialog(text, Draws(key)) for key in range(300)}
    assert len(shown) > 150
    assert show_dialog(text, Draws(5)) == show_dialog(f"\n{text}\n\n", Draws(5))
    for key in range(300):
        closed = show_dialog(text, Draws(key), allow_cue=False)
        assert TURNS[2] in closed.splitlines()[-1]
        assert show_dialog(text, Draws(key)).startswith(closed)


def test_a_marker_never_stands_inside_a_turn():
    for key in range(300):
        lines = show_dialog("A: is a letter\nSo is B:", Draws(key)).splitlines()
        assert not any(line.startswith(("A: A:", "B: So")) for line in lines)
    everything = " ".join(f"{mark}" for style in EVERY for mark in map(style.marker, range(3)))
    assert show_dialog(f"{everything}\nYes.", Draws(1)) in {
        style.render([everything.strip(), "Yes."]) for style in EVERY if not style.marker(0)
    }
