"""Duplicates among tasks: exact ones counted exactly, near ones in a sample."""

from instruct.data.overlap import duplicates as module
from instruct.data.overlap.duplicates import duplicates
from tests.data.overlap.test_contamination import stored, text

N = 3


def test_exact_and_near(tmp_path):
    long = [text(*range(k, k + 40)) for k in range(0, 3000, 50)]  # 60 texts
    changed = [t.replace(f"w{50 * k + 20} ", "other ") for k, t in enumerate(long)]
    a = stored(tmp_path, "a", long + ["once", "twice", "twice"], "same")
    b = stored(tmp_path, "b", [t.upper() + "!" for t in long[:20]] + ["twice"], "same")
    c = stored(tmp_path, "c", changed)
    d = stored(tmp_path, "d", [text(*range(k, k + 40)) for k in range(9000, 9500, 50)])
    report = duplicates([a, b, c, d], n=N)
    found = {(pair.task_a, pair.task_b): pair for pair in report.pairs}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    first = found["a", "b"]
    assert first.same_group and not found["a", "c"].same_group
    # both records "twice" of a are in b, one record of b is in a
    assert (first.exact_a, first.exact_b) == (22, 21)
    assert (first.sampled_a, first.sampled_b, first.near_a, first.near_b) == (63, 21, 22, 21)
    assert report.within == {"a": 1} and report.crowded == 0
    assert [pair.share for pair in first.examples] == [1.0] * 3
    near = found["a", "c"]
    # One word of 41 touches 3 of 39 n-grams: nearly every sketch keeps more than 70 %.
    assert (near.exact_a, near.exact_b) == (0, 0)
    assert near.near_a >= 57 and near.near_b >= 57
    for pair in near.examples:
        assert pair.first_id.removeprefix("a/") == pair.second_id.removeprefix("c/")


def test_near_duplicates_that_only_one_sample_holds(tmp_path):
    """Of 1,000 records every fifth is in the sample; the copies are of others."""
    long = [text(*range(k, k + 40)) for k in range(0, 50_000, 50)]
    copies = [long[k].replace("w", "W").replace(f"W{50 * k + 20} ", "x ") for k in (1, 2, 3, 6, 7)]
    [pair] = duplicates([stored(tmp_path, "a", long), stored(tmp_path, "b", copies)], n=N).pairs
    assert (pair.near_a, pair.exact_a) == (0, 0) and pair.near_b >= 4
    assert pair.examples[0].first_id.startswith("a/")
    assert pair.examples[0].second_id.startswith("b/")


def test_half_a_text_is_no_duplicate(tmp_path):
    long = [text(*range(k, k + 60)) for k in range(0, 6000, 100)]
    half = [text(*range(k, k + 20), *range(k + 9000, k + 9040)) for k in range(0, 6000, 100)]
    report = duplicates([stored(tmp_path, "a", long), stored(tmp_path, "b", half)], n=N)
    # A third is shared; of 120 sketches hardly one reaches 70 %.
    assert sum(pair.near_a + pair.near_b for pair in report.pairs) <= 4


def test_a_text_in_very_many_tasks_is_counted_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_TASKS", 3)
    everywhere = [stored(tmp_path, f"t{k}", ["everywhere", text(k)]) for k in range(3)]
    some = duplicates(everywhere, n=N)
    assert {(p.task_a, p.task_b, p.exact_a) for p in some.pairs} == {
        ("t0", "t1", 1),
        ("t0", "t2", 1),
        ("t1", "t2", 1),
    }
    many = duplicates([*everywhere, stored(tmp_path, "t3", ["everywhere"])], n=N)
    assert many.crowded == 1 and not any(pair.exact_a for pair in many.pairs)
    assert duplicates([]).pairs == ()


def test_brackets_operators_and_emoji_tell_records_with_equal_words_apart(tmp_path):
    texts = ["close [ ( {", "close ( [ {", "not ( a and b )", "( not a ) and b", "5 - 3", "5 + 3"]
    texts += ["so 😀", "so 😡", "😀", "😡"]
    a, b = stored(tmp_path, "a", texts), stored(tmp_path, "b", ["Close [({", "5 + 3.", "😡"])
    report = duplicates([a, b], n=N)
    (pair,) = report.pairs
    assert (pair.exact_a, pair.exact_b, report.within) == (3, 3, {})
    # Markers of options are no text, and a hyphen is no operator.
    c = stored(tmp_path, "c", ["Which? (A) this (B) that", "a well-known man", "he said (so)"])
    d = stored(tmp_path, "d", ["which this that", "A well known man", "he said so"])
    (pair,) = duplicates([c, d], n=N).pairs
    assert (pair.exact_a, pair.exact_b) == (2, 2)
