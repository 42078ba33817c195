import collections

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.denoising import Denoiser, DenoiserSet, choose_text
from instruct.prompts.frame import Frame
from instruct.prompts.modes import OBJECTIVES
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render

T5 = Denoiser("t5", 0.15, 3.0)
SENTINELS = range(9999, 9000, -1)
MANY = 10**6
TEXT = "The quick brown fox jumps over the lazy dog. " * 40


def shown(
    objective,
    key=0,
    text=TEXT,
    vocabulary="bytes#extra_ids=100",
    inputs=512,
    targets=512,
    frame=None,
):
    return render(
        Record("a", {}, text),
        DenoiserSet(),
        objective,
        key,
        frame=frame or Frame(load_vocabulary(vocabulary)),
        max_inputs_tokens=inputs,
        max_targets_tokens=targets,
    )


def restored(inputs, targets, sentinels):
    """The text, from what stands between the sentinels of both sides."""
    spans, current = {}, []
    for token in targets:
        if token in sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in inputs for t in (spans[token] if token in sentinels else [token])]


def test_the_worked_arrays_of_the_docstring():
    ids, sentinels = list(range(10, 20)), range(99, 0, -1)
    spans = Denoiser("spans", 0.3, 1.5)
    assert spans.divide(ids, 0, sentinels, 99) == (
        [10, 11, 99, 14, 15, 16, 17, 18, 98],
        [99, 12, 13, 98, 19],
    )
    assert Denoiser("prefix", 0.5).divide(ids, 5, (), 99) == (ids[:6], ids[6:])
    assert Denoiser("causal", 1.0).divide(ids, 0, (), 99) == ([], ids)


@pytest.mark.parametrize("inputs", [32, 57, 128, 256, 512, 1024])
@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 64.0)])
def test_lengths_are_those_of_t5s_helper(inputs, density, mean):
    """The helper's rule: the longest text whose inputs, sentinels and EOS fit `inputs`.

    At a density of 0.5 it takes one token less where the targets would be longer than the inputs.
    """

    def sides(length):
        noise = round(length * density)
        spans = round(noise / mean)
        return length - noise + spans + 1, noise + spans + 1

    longest = max(length for length in range(2, 4 * inputs) if sides(length)[0] <= inputs)
    if density == 0.5 and sides(longest)[1] > sides(longest)[0]:
        longest -= 1
    _, targets = sides(longest)
    denoiser = Denoiser("a", density, mean)
    room = denoiser.longest_text(inputs - 1, max(targets, inputs) - 1, MANY)
    if round(round(longest * density) / mean):  # else the helper counts no span, the mask one
        assert room == longest
    noisy, noise = denoiser.divide(list(range(room)), 7, range(-1, -MANY, -1), MANY)
    assert len(noisy) < inputs and len(noise) < max(targets, inputs)


def test_t5s_pretraining_lengths():
    assert T5.longest_text(511, 113, 100) == 568
    inputs, targets = T5.divide(list(range(568)), 3, SENTINELS, 113)
    assert (len(inputs) + 1, len(targets) + 1) == (512, 114)


@pytest.mark.parametrize("length", [2, 3, 7, 20, 568])
@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.5, 64.0), (0.9, 1.0)])
def test_spans_are_those_of_t5s_noise_mask(length, density, mean):
    """Noise and spans as counted, text first, noise last, nothing lost or repeated."""
    denoiser, text = Denoiser("a", density, mean), list(range(length))
    for key in range(20):
        inputs, targets = denoiser.divide(text, key, SENTINELS, MANY)
        noise, spans = denoiser.spans(length)
        assert len(targets) == noise + spans and len(inputs) == length - noise + spans
        marks = [token for token in inputs if token in SENTINELS]
        assert marks == [token for token in targets if token in SENTINELS] == [*SENTINELS[:spans]]
        assert inputs[0] == 0 and inputs[-1] == marks[-1] and targets[0] == marks[0]
        assert restored(inputs, targets, SENTINELS) == text


def test_all_divisions_into_spans_are_equally_likely():
    denoiser = Denoiser("a", 0.5, 2.0)  # of 8 tokens: 4 of noise in 2 spans, 3 x 3 divisions
    draws = collections.Counter(
        str(denoiser.divide(list(range(8)), key, SENTINELS, MANY)) for key in range(4500)
    )
    assert len(draws) == 9 and min(draws.values()) > 400 and max(draws.values()) < 600


@pytest.mark.parametrize(("density", "longest"), [(0.5, 19), (0.25, 9)])
def test_the_suffix_of_a_prefix_lm_is_uniform(density, longest):
    denoiser, text = Denoiser("a", density), list(range(20))
    counts = collections.Counter()
    for key in range(4000):
        inputs, targets = denoiser.divide(text, key, (), MANY)
        assert inputs + targets == text
        counts[len(targets)] += 1
    assert sorted(counts) == list(range(1, longest + 1))
    assert min(counts.values()) > 0.7 * 4000 / longest
    assert all(len(denoiser.divide(text, key, (), 5)[1]) <= 5 for key in range(50))


def test_a_text_is_cut_to_what_its_spans_have_sentinels_for():
    half = Denoiser("a", 0.5, 3.0)
    assert half.longest_text(1023, 1023, MANY) == 1534
    room = half.longest_text(1023, 1023, 100)
    assert half.spans(room)[1] == 100 and half.spans(room + 2)[1] > 100


def test_the_text_chosen_depends_on_the_key_and_covers_all():
    starts = {choose_text(range(30), 20, key)[0] for key in range(300)}
    assert starts == set(range(11))
    assert choose_text(range(5), 20, 1) == range(5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_fit_depend_on_the_key_only_and_keep_the_text(objective):
    for key in range(30):
        example = shown(objective, key)
        assert isinstance(example, Rendered) and example == shown(objective, key)
        assert len(example.input_ids) <= 512 and len(example.target_ids) <= 512
        assert example.input_ids[-1] == example.target_ids[-1] == 1
        assert example.truncated  # 1,800 bytes
    short = shown(objective, 4, "A short text of bytes.")
    assert isinstance(short, Rendered) and not short.truncated
    assert objective == "causal_lm" or shown(objective, 5) != shown(objective, 6)


def test_causal_lm_has_an_empty_prompt():
    example = shown("causal_lm", text="abc")
    assert example.input_ids == [1] and example.targets == "abc" and example.inputs == ""


def test_a_decoder_reads_its_start_and_nothing_between_prompt_and_answer():
    starting = Frame(load_vocabulary("bytes#extra_ids=100"), start_ids=(2,), one_sequence=True)
    without = Frame(load_vocabulary("bytes#extra_ids=100"), one_sequence=True)
    causal = shown("causal_lm", text="abc", frame=starting)
    assert causal.input_ids == [2] and causal.target_ids == [100, 101, 102, 1]
    assert shown("causal_lm", text="abc", frame=without).input_ids == [1]
    prefix = shown("prefix_lm", text="abcdef", frame=starting)
    assert prefix.input_ids + prefix.target_ids == [2, *range(100, 106), 1]
    for objective in OBJECTIVES:
        example = shown(objective, 3, frame=starting, inputs=64, targets=64)
        assert len(example.input_ids) <= 64 and len(example.target_ids) <= 64


def test_ul2_draws_its_seven_denoisers_equally_and_marks_their_modes():
    modes = {"r": "[NLU]", "s": "[S2S]", "x": "[NLG]"}
    drawn = collections.Counter()
    for key in range(1400):
        example = shown("ul2", key)
        assert example.inputs.startswith(modes[example.template_id[0]])
        drawn[example.template_id] += 1
    assert len(drawn) == 7 and min(drawn.values()) > 140
    sequential = next(e for e in (shown("ul2", key) for key in range(99)) if "s_" in e.template_id)
    assert sequential.input_ids[-2] == 358 and 358 not in sequential.target_ids


def test_u_palm_is_half_prefix_lm():
    drawn = collections.Counter(shown("u_palm", key).template_id for key in range(800))
    assert set(drawn) == {"s_50", "r_3_15", "x_32_15", "x_3_50"}
    assert abs(drawn["s_50"] - 400) < 60 and abs(drawn["r_3_15"] - 200) < 50


def test_a_vocabulary_without_sentinels_is_refused_where_they_are_needed():
    with pytest.raises(UserError, match=r"'bytes' has no sentinels.*span_corruption.*#extra_ids"):
        shown("span_corruption", vocabulary="bytes")
    assert isinstance(shown("prefix_lm", vocabulary="bytes"), Rendered)


def test_sentinels_by_name():
    class Named:
        """Gemma's and Llama 3's unused tokens."""

        spec, unk_id, extra_ids = "named", 3, 0

        def __init__(self, form):
            self._form = form

        def encode(self, text):
            names = [self._form.format(number) for number in range(5)]
            return [7 + names.index(text)] if text in names else [50, 51]

    for form in ("<unused{}>", "<|reserved_special_token_{}|>"):
        assert DenoiserSet().sentinels("ul2", Named(form)) == (7, 8, 9, 10, 11)
    gym = load_vocabulary("gym")
    assert gym.encode("<extra_id_0>") == [DenoiserSet().sentinels("ul2", gym)[0]]


def test_texts_that_cannot_be_divided_are_dropped():
    assert shown("span_corruption", text="a") == Dropped("text too short")
    assert shown("span_corruption", inputs=2) == Dropped("inputs too long")
    assert shown("zs_noopt") == Dropped("no zs_noopt templates")
