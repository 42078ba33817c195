import collections

from instruct.prompts.exemplars import (
    STANDARD_FORMATS,
    FewShotFormat,
    draw_exemplars,
    usable_exemplars,
)
from instruct.prompts.record import Record


def test_the_query_is_never_drawn_and_nothing_twice():
    for key in range(2000):
        drawn = draw_exemplars(key, 7, query_index=key % 7)
        assert key % 7 not in drawn
        assert len(set(drawn)) == len(drawn) and all(0 <= i < 7 for i in drawn)
        assert 1 <= len(drawn) <= 5


def test_numbers_and_records_are_drawn_evenly():
    lengths = collections.Counter(len(draw_exemplars(key, 100, 0)) for key in range(5000))
    assert sorted(lengths) == [1, 2, 3, 4, 5] and min(lengths.values()) > 850
    records = collections.Counter(i for key in range(5000) for i in draw_exemplars(key, 10, 3))
    assert sorted(records) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert max(records.values()) < 1.15 * min(records.values())


def test_small_stores_give_what_they_have():
    assert draw_exemplars(1, 1, query_index=0) == []
    assert draw_exemplars(1, 0, query_index=None) == []
    drawn = {tuple(sorted(draw_exemplars(key, 2, query_index=None))) for key in range(50)}
    assert drawn == {(0,), (1,), (0, 1)}


def test_the_same_key_gives_the_same_exemplars():
    assert draw_exemplars(99, 50, 2) == draw_exemplars(99, 50, 2)


def test_exemplars_that_ask_the_same_are_left_out():
    query = Record("1", {"question": "2 + 2?"}, "4")
    twin = Record("2", {"question": "2 + 2?"}, "4")
    other = Record("3", {"question": "1 + 1?"}, "2")
    again = Record("4", {"question": "1 + 1?"}, "two")
    assert usable_exemplars(query, [query, twin, other, again, other]) == [other]


def test_a_published_prompt_keeps_its_repetitions():
    query = Record("1", {"question": "2 + 2?"}, "4")
    twin = Record("2", {"question": "2 + 2?"}, "4")
    again = Record("3", {"question": "2 + 2?"}, "4")
    kept = usable_exemplars(query, [query, twin, again], published=True)
    assert kept == [twin, again]


def test_layout_of_a_block():
    layout = FewShotFormat("f", "Q: ", "A: ", "\n")
    assert layout.block("why?", "so") == "Q: why?\nA: so"
    assert layout.block("why?", "") == "Q: why?\nA:"


def test_standard_formats_differ():
    assert len(STANDARD_FORMATS) >= 10
    assert len({layout.id for layout in STANDARD_FORMATS}) == len(STANDARD_FORMATS)
    shapes = {
        (f.input_prefix, f.target_prefix, f.separator, f.example_separator)
        for f in STANDARD_FORMATS
    }
    assert len(shapes) == len(STANDARD_FORMATS)
