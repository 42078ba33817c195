"""What is invented and missed, by hand and on the labelled set."""

import pytest

from instruct.errors import UserError
from instruct.report.faithfulness import mentions, quality
from instruct.report.faithfulness.check import check
from instruct.report.faithfulness.detector import load_detector
from tests.report import measure_detector

RULES = load_detector()


def invented(source, output):
    return [m.text for m in check(source, output, (), RULES).invented]


def missed(output, *references):
    return [m.text for m in check("", output, references, RULES).missed]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("come at five o'clock in the afternoon", "They meet at 5 pm."),
        ("The bus leaves at 14:25.", "The bus leaves at 2:25 p.m."),
        ("at a quarter to eight", "It starts at 7:45."),
        ("It's twenty bucks.", "It costs $20."),
        ("The total is $ 32. 42.", "#Person1# pays $32.42."),
        ("three dollars and twenty cents", "The change is $3.20."),
        ("We hope for 3, 000 yuan", "3,000 yuan are hoped for."),
        ("prices fell by twenty per cent", "Prices fell by 20%."),
        ("ninety minutes", "It takes an hour and a half."),
        ("half an hour", "It takes 30 minutes."),
        ("two weeks", "It takes 14 days."),
        ("on the third of June", "The flight is on June 3rd."),
        ("in the sixties", "It was in the 1960s."),
        ("half a dozen eggs", "They need six eggs."),
        ("five five five, zero one nine eight", "Her number is 555-0198."),
        ("Mr. Black is here", "Black has come."),
        ("Is Timothy in?", "Tim's mother asks."),
        ("Call Mike.", "Michael is called."),
        ("the World Health Organization", "The WHO pays."),
        ("She is a Spanish teacher.", "She comes from Spain."),
        ("We went to China.", "They had Chinese food."),
        ("She was in her twenties.", "A woman in her 20s spoke."),
        ("I live in the U. S.", "#Person1# lives in America."),
        ("#Person1#: Hi\n#Person2#: Hi", "#Person1# greets #Person2#."),
        ("the Hendersons", "Henderson has a dog."),
        ("the Lotus Centre", "They met at the Lotus Center."),
        ("He reads", "He reads. Poems are hard. Brownies contain nuts."),
        ("A quake shook Chile.", "Quake Of Great Strength Shakes Chile Again"),
    ],
)
def test_the_same_in_other_words_is_not_invented(source, output):
    source += "\n#Person1#: Hm."
    assert invented(source, output) == []


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("Meet me at 5 pm.", "They meet at 5 am.", ["5 am"]),
        ("It's £20.", "It costs $20.", ["$20"]),
        ("twenty percent", "It rose by 30%.", ["30%"]),
        ("two days ago", "It was two weeks ago.", ["two weeks"]),
        ("on Monday", "They meet on Tuesday.", ["Tuesday"]),
        ("next week", "They met last week.", ["last week"]),
        ("I met Anna.", "Anna Petrova was met in Paris.", ["Anna Petrova", "Paris"]),
        ("I will go.", "Will goes.", ["Will"]),
        ("#Person1#: Hi", "#Person3# says hi.", ["#Person3#"]),
        ("The doctor came.", "The doctor came. However, he left. Dorothea stayed.", ["Dorothea"]),
        ("We had tea.", "People had tea in Bombay. Nguyen paid.", ["Bombay", "Nguyen"]),
    ],
)
def test_what_the_input_does_not_say_is_invented(source, output, expected):
    assert invented(source, output) == expected


@pytest.mark.parametrize(
    "text",
    [
        "She hopes for the best. Unfortunately, it rains. Swimming is fun. Teachers agree.",
        "One of them said no. I'll wait a second. It's OK, said Mom. My TV is broken.",
        "May I help you? Let's march on. He may come. Everyone is there.",
        "#Person1# is late.",
        "#Person1# asks #Person2# and then #Person",
    ],
)
def test_what_is_no_item(text):
    found = [m.text for m in RULES.find(text) if m.counts and not m.text.startswith("#")]
    assert found == []


def test_a_repeated_invention_counts_once_and_is_marked_twice():
    checked = check("Hello.", "Anna calls. They meet Anna.", (), RULES)
    assert len(checked.invented) == 1
    assert [(start, end) for start, end, _ in checked.spans] == [(0, 4), (22, 26)]


def test_missed_is_what_half_of_the_references_say():
    references = ("Anna pays $5 on Friday.", "Anna pays five dollars.", "Somebody pays.")
    assert missed("A woman pays.", *references) == ["Anna", "$5"]
    assert missed("Anna pays 5 dollars.", *references) == []
    assert missed("Nobody.", "Anna pays.", "Bob pays.") == ["Anna", "Bob"]
    assert missed("Tom left.", "#Person1# left.") == []


@pytest.mark.parametrize("part", ["tuning", "held_out"])
def test_labels_stand_in_their_texts(part):
    items = measure_detector.items(part)
    assert len(items) >= 75
    for item in items:
        for what, text in (("invented", "output"), ("missed", "reference")):
            for kind, label in item[what]:
                assert label in item[text], (item["id"], label)
                assert kind in ("name", "place", "number", "date")


def test_the_quality_that_pages_state_is_the_measured_one():
    measured = measure_detector.measure(RULES, "held_out")
    assert measured == quality.DETECTOR_QUALITY["rules"]
    totals = {what: sum(counts.values(), quality.Counts()) for what, counts in measured.items()}
    assert min(c.precision for c in totals.values()) > 80
    assert min(c.recall for c in totals.values()) > 85
    said = quality.describe("rules")
    assert quality.sentence(totals["invented"]) in said
    assert all(f"{kind}s: precision" in said for kind in mentions.KINDS)
    assert "has not been measured" in quality.describe("spacy:other")


def test_spacy_finds_names_where_it_is_installed():
    pytest.importorskip("spacy", reason="the `ner` extra is not installed")
    try:
        detector = load_detector("spacy:en_core_web_sm")
    except UserError as error:
        pytest.skip(str(error))
    measured = measure_detector.measure(detector, "held_out")
    totals = [sum(counts.values(), quality.Counts()) for counts in measured.values()]
    assert min(c.precision for c in totals) > 80


def test_unknown_detectors_are_named():
    for name in ("bert", "spacy", "spacy:"):
        with pytest.raises(UserError, match="rules, or spacy:MODEL"):
            load_detector(name)
    with pytest.raises(UserError, match=r"not installed|no pipeline"):
        load_detector("spacy:nowhere_to_be_found")
