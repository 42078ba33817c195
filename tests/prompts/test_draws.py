import collections

from instruct.prompts.draws import Draws, mix


def test_numbers_never_change():
    draws = Draws(12345, purpose=3)
    assert [draws.uint64() for _ in range(3)] == [
        11667411694254520549,
        10588112557696305675,
        13713173062242316208,
    ]
    assert mix(0) == 0 and mix(1) == 0x5692161D100B05E5


def test_purposes_and_keys_give_other_streams():
    first = {Draws(key, purpose).uint64() for key in range(100) for purpose in range(20)}
    assert len(first) == 2000


def test_below_is_uniform():
    counts = collections.Counter(Draws(key).below(10) for key in range(20_000))
    assert sorted(counts) == list(range(10))
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_weighted_follows_the_weights():
    counts = collections.Counter(Draws(key).weighted((1.0, 1.5, 4.0)) for key in range(8000))
    assert abs(counts[0] - 2000) < 200 and abs(counts[1] - 1000) < 150
    assert Draws(0).weighted((0.25,)) == 0


def test_permutations_are_permutations_and_all_occur():
    seen = collections.Counter(tuple(Draws(key).permutation(3)) for key in range(3000))
    assert len(seen) == 6 and min(seen.values()) > 400
    assert sorted(Draws(5).permutation(50)) == list(range(50))
    assert Draws(5).permutation(0) == []


def test_subsets_are_uniform():
    seen = collections.Counter(tuple(Draws(key).subset(5, 2)) for key in range(3000))
    assert len(seen) == 10 and min(seen.values()) > 220
    assert Draws(1).subset(4, 4) == [0, 1, 2, 3] and Draws(1).subset(4, 0) == []
