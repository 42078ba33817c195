"""Times, dates and amounts: what is found, and that equal values have equal keys."""

import pytest

from instruct.report.faithfulness.quantities import find_quantities


@pytest.mark.parametrize(
    ("text", "key", "shown"),
    [
        ("5 pm", "time 1020", "5 pm"),
        ("5 p.m. sharp", "time 1020", "5 p.m."),
        ("five in the afternoon", "time 1020", "five in the afternoon"),
        ("12 am", "time 0", "12 am"),
        ("noon", "time 720", "noon"),
        ("midnight", "time 0", "midnight"),
        ("14:25", "time 865", "14:25"),
        ("7:40", "time 460", "7:40"),
        ("half past twelve", "time 30", "half past twelve"),
        ("a quarter to eight", "time 465", "a quarter to eight"),
        ("ten minutes past six", "time 370", "ten minutes past six"),
        ("ten at night", "time 1320", "ten at night"),
    ],
)
def test_times(text, key, shown):
    (mention,) = find_quantities(text)
    assert key in mention.emits and mention.text == shown


def test_a_time_without_am_or_pm_may_be_either():
    (mention,) = find_quantities("7:40")
    assert {"time 460", "time 1180"} <= mention.emits
    assert not any(key.startswith("part ") for key in mention.emits)


@pytest.mark.parametrize("text", ["five people", "25:10", "7:75", "five to six shops", "3.5 km"])
def test_no_times(text):
    assert {m.kind for m in find_quantities(text)} == {"number"}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("June 3rd, 1998", {"month 6", "day 3", "n 1998"}),
        ("third of June", {"month 6", "day 3"}),
        ("Mondays", {"weekday mon"}),
        ("on Sat .", {"weekday sat"}),
        ("last night", {"rel last night"}),
        ("following week", {"rel next week"}),
        ("day before yesterday", {"rel day before yesterday"}),
        ("Merry Xmas", {"holiday christmas"}),
        ("the nineties", {"decade 90"}),
        ("on the 14th .", {"day 14"}),
        ("October and March .", {"month 3"}),
    ],
)
def test_dates(text, keys):
    assert any(m.kind == "date" and keys <= m.emits for m in find_quantities(text))


@pytest.mark.parametrize("text", ["may come", "I march on", "the 14th shop"])
def test_no_dates(text):
    assert "date" not in {m.kind for m in find_quantities(text)}


def test_equal_amounts_share_a_key():
    for one, other in (
        ("$1.5m", "1,500,000 dollars"),
        ("two", "2"),
        ("5 pm", "17:00"),
        ("1998-06-03", "June 3rd, 1998"),
    ):
        (first,), (second,) = find_quantities(one), find_quantities(other)
        assert first.emits & second.parts[0] and second.emits & first.parts[0]


@pytest.mark.parametrize(
    ("time", "part"),
    [("8 am", "morning"), ("noon", "afternoon"), ("18:00", "evening"), ("2 am", "night")],
)
def test_parts_of_the_day_follow_the_clock(time, part):
    (mention,) = find_quantities(time)
    assert f"part {part}" in mention.emits


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("room 1104", "number", "1104"),
        ("in 1998, when", "date", "1998"),
        ("1998 people", "number", "1998"),
        ("an 11-year-old", "number", "11-year"),
        ("until ten.", "date", "ten"),
        ("until ten people came", "number", "ten"),
        ("next Wednesday", "date", "Wednesday"),
        ("the day after tomorrow", "date", "day after tomorrow"),
        ("at midnight", "date", "midnight"),
        ("in the evening", "date", "evening"),
        ("on Christmas Eve", "date", "Christmas Eve"),
        ("tonight's concert", "date", "tonight"),
        ("6:15 a.m. sharp", "date", "6:15 a.m."),
        ("$8.50 each", "number", "$8.50"),
        ("twenty per cent of", "number", "twenty per cent"),
    ],
)
def test_kinds_and_spans(text, kind, shown):
    (mention,) = [m for m in find_quantities(text) if m.counts]
    assert (mention.kind, mention.text) == (kind, shown)
    assert text[mention.start : mention.end] == shown


def test_the_number_in_a_products_name_is_no_quantity():
    assert [m for m in find_quantities("the LX200 on the M4") if m.counts] == []
