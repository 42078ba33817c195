"""The harness's requests against the scorer and the decoder themselves, without the harness."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.lm_eval.adapter import (
    AdapterConfig,
    ContinuationScorer,
    RequestAnswerer,
    cut_at,
    decode_settings,
    rolling_windows,
)
from instruct.eval.lm_eval.model import _batching
from instruct.eval.scoring.score import Scorer
from instruct.mesh import MeshConfig, make_mesh
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.prompts.frame import Frame
from tests.float32 import assert_same_float32

NETWORK = EncoderDecoder(
    ModelConfig(
        vocab_size=264,
        d_model=16,
        num_heads=2,
        head_dim=8,
        d_ff=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)
WORDS = load_vocabulary("bytes")
EOS = WORDS.eos_id
CONTEXTS = [
    "Is it red?",
    "",
    "A much longer context, of two lines.\nAnswer:",
    "Why",
    "so?",
    "Red? ",
]
PAIRS = [(context, answer) for context in CONTEXTS for answer in (" yes", " no", "\u00e9t\u00e9")]
GREEDY = {"until": ["\n"], "max_gen_toks": 6}


@pytest.fixture(scope="module")
def params():
    """Random, and larger than fresh ones: other contexts get other answers."""
    fresh = jax.jit(NETWORK.init)(jax.random.key(3))
    return jax.tree.map(lambda leaf: leaf * 3.0, fresh)


def answerer(params, rows=4, mesh=None, **settings) -> RequestAnswerer:
    batching = BatchConfig(rows, 2)
    return RequestAnswerer(
        ContinuationScorer(NETWORK.target_logits, batching, mesh),
        lambda strategy: Decoder(NETWORK, strategy, batching, mesh),
        params,
        Frame(WORDS),
        (EOS,),
        AdapterConfig(**settings),
    )


def scored(params, inputs, targets) -> np.ndarray:
    return Scorer(NETWORK.target_logits, BatchConfig(8, 1)).score(params, inputs, targets)


def with_eos(text: str) -> list[int]:
    return [*WORDS.encode(text), EOS]


@pytest.mark.slow
@pytest.mark.parametrize("score_eos", [True, False])
def test_loglikelihood_is_the_scorers(params, score_eos):
    """Continuations begin without the blank that separates them from the context."""
    found = answerer(params, score_eos=score_eos).loglikelihood(PAIRS)
    targets = [with_eos(answer.strip()) for _, answer in PAIRS]
    targets = targets if score_eos else [ids[:-1] for ids in targets]
    expected = scored(params, [with_eos(context) for context, _ in PAIRS], targets)
    assert_same_float32(np.array([score for score, _ in found]), expected)
    assert all(type(score) is float and type(greedy) is bool for score, greedy in found)
    assert len({round(score, 3) for score, _ in found}) > len(PAIRS) // 2


@pytest.mark.slow
def test_greedy_is_what_greedy_decoding_gives(params):
    inputs = [with_eos(context) for context in CONTEXTS]
    decoder = Decoder(NETWORK, DecodeConfig(max_decode_steps=5), BatchConfig(4, 1))
    greedy = [row[0][row[0] != 0].tolist() for row in decoder.generate(params, inputs).tokens]
    assert len({tuple(ids) for ids in greedy}) > 1
    others = [[*ids[:-1], ids[-1] ^ 1 or 2] for ids in greedy]
    scorer = ContinuationScorer(NETWORK.target_logits, BatchConfig(4, 1))
    scores, equal = scorer.score_all(params, inputs, greedy)
    assert equal.all()
    assert not scorer.score_all(params, inputs, others)[1].any()
    assert_same_float32(scores, scorer.score(params, inputs, greedy))
    # Shorter continuations are greedy's as well, whatever padding follows them.
    starts = [ids[: 1 + number % 5] for number, ids in enumerate(greedy)]
    assert scorer.score_all(params, inputs, starts)[1].all()


def test_scoring_refuses_what_the_scorer_refuses():
    scorer = ContinuationScorer(NETWORK.target_logits)
    with pytest.raises(ValueError, match="2 inputs but 1 targets"):
        scorer.score_all({}, [[1], [1]], [[1]])
    with pytest.raises(ValueError, match="sequence 0 is empty"):
        scorer.score_all({}, [[1]], [[]])


@pytest.mark.slow
def test_no_continuation_is_certain(params):
    seen = []
    found = answerer(params, score_eos=False).loglikelihood([("a", ""), ("a", "b")], seen.append)
    assert found[0] == (0.0, True)
    assert found[1][0] < 0 and sum(seen) == 2
    assert answerer(params).loglikelihood([("a", "")])[0][0] < 0  # EOS at once


@pytest.mark.slow
def test_long_contexts_lose_their_start(params, caplog):
    cut = answerer(params, max_length=12)
    (found,) = cut.loglikelihood([("exemplars, and the question?", "yes")])
    assert "1 of 1 contexts are longer than max_length=12" in caplog.text
    (expected,) = cut.loglikelihood([(" question?"[-11:], "yes")])
    (other,) = cut.loglikelihood([("exemplars, a", "yes")])
    assert found[0] != expected[0]  # 10 letters; 11 fit beside EOS
    (expected,) = cut.loglikelihood([("e question?", "yes")])
    assert found[0] == pytest.approx(expected[0], rel=1e-6) and found[0] != other[0]
    (text,) = cut.generate_until([("exemplars, and the question?", GREEDY)])
    assert text == cut.generate_until([("e question?", GREEDY)])[0]


@pytest.mark.slow
def test_long_contexts_keep_their_start_token(params):
    cut = dataclasses.replace(answerer(params, max_length=5), frame=Frame(WORDS, (7,)))
    (found,) = cut.loglikelihood([("exemplars", "yes")])
    expected = scored(params, [[7, *with_eos("ars")]], [with_eos("yes")])
    assert found[0] == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.slow
def test_rolling_sums_over_windows(params):
    """Worked by hand for windows of 8: 19 bytes and EOS are 8 + 8 + 4."""
    text = "nineteen bytes long"
    ids = with_eos(text)
    windows = [([EOS], ids[:8]), ([ids[7]], ids[8:16]), (ids[11:16], ids[16:])]
    assert rolling_windows(ids, EOS, 8) == windows
    expected = scored(params, [window[0] for window in windows], [window[1] for window in windows])
    model = answerer(params, max_length=8)
    found = model.loglikelihood_rolling([text, "", "short"])
    assert found[0] == pytest.approx(math.fsum(expected.tolist()), rel=1e-5)
    assert found[1] == pytest.approx(float(scored(params, [[EOS]], [[EOS]])[0]), rel=1e-5)
    assert found[2] == pytest.approx(model.loglikelihood([("", "short")])[0][0], rel=1e-5)
    assert answerer(params, score_eos=False).loglikelihood_rolling([""]) == [0.0]


@pytest.mark.parametrize("length", [2, 3, 4, 7, 50])
def test_windows_predict_each_token_once(length):
    tokens = list(range(10, 31))
    windows = rolling_windows(tokens, 1, length)
    assert [token for _, predicted in windows for token in predicted] == tokens
    assert windows[0][0] == [1]
    for context, predicted in windows:
        assert len(predicted) <= length and len(context) + len(predicted) <= length + 1
        if context != [1]:
            assert context[-1] + 1 == predicted[0]
            assert len(context) + len(predicted) == length + 1
    assert rolling_windows([], 1, length) == []


def on_all_devices(params):
    """(parameters, mesh)."""
    mesh = make_mesh(MeshConfig())
    return jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.P())), mesh


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_size(params):
    wanted = answerer(params, rows=1)
    scores, totals = wanted.loglikelihood(PAIRS), wanted.loglikelihood_rolling(CONTEXTS)
    spread, mesh = on_all_devices(params)
    for model in (answerer(params, rows=3), answerer(spread, rows=16, mesh=mesh)):
        found = model.loglikelihood(PAIRS)
        assert_same_float32(*(np.array([s for s, _ in pairs]) for pairs in (found, scores)))
        assert [greedy for _, greedy in found] == [greedy for _, greedy in scores]
        assert_same_float32(np.array(model.loglikelihood_rolling(CONTEXTS)), np.array(totals))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [{}, {"temperature": 0.9}])
def test_texts_do_not_depend_on_the_batch_size(params, strategy):
    requests = [(context, GREEDY | strategy) for context in CONTEXTS]
    texts = answerer(params, rows=1).generate_until(requests)
    spread, mesh = on_all_devices(params)
    assert answerer(params, rows=3).generate_until(requests) == texts
    assert answerer(spread, rows=16, mesh=mesh).generate_until(requests) == texts


@pytest.mark.slow
def test_requests_of_several_strategies_come_back_in_order(params):
    model = answerer(params)
    kinds = [GREEDY, {"max_gen_toks": 2}, GREEDY | {"num_beams": 2}]
    requests = [(context, kind) for context in CONTEXTS for kind in kinds]
    seen = []
    found = model.generate_until(requests, seen.append)
    each = [model.generate_until([(context, kind) for context in CONTEXTS]) for kind in kinds]
    assert found == [text for texts in zip(*each) for text in texts]
    assert sum(seen) == len(requests)


@pytest.mark.slow
def test_generation_is_the_decoders_up_to_the_stop_string(params):
    config = DecodeConfig(max_decode_steps=8)
    inputs = [with_eos(context) for context in CONTEXTS]
    tokens = Decoder(NETWORK, config).generate(params, inputs).tokens
    whole = [WORDS.decode(row[0].tolist()) for row in tokens]
    model = answerer(params, max_gen_toks=8)
    assert model.generate_until([(context, {}) for context in CONTEXTS]) == whole
    stop = max((text for text in whole), key=len)[1:3]
    cut = model.generate_until([(context, {"until": stop}) for context in CONTEXTS])
    assert cut == [text.partition(stop)[0] for text in whole] and cut != whole


@pytest.mark.slow
def test_samples_follow_from_the_requests_number(params):
    model = answerer(params, rows=2)
    requests = [("Is it red?", {"do_sample": True, "max_gen_toks": 8})] * 4
    found = model.generate_until(requests)
    assert len(set(found)) == 4
    assert model.generate_until(requests[2:], first_number=2) == found[2:]
    assert answerer(params, seed=1).generate_until(requests) != found


def test_cut_at_the_first_of_the_stop_strings():
    assert cut_at("one\ntwo. three", [". ", "\n"]) == "one"
    assert cut_at("one", ["", "two"]) == "one"
    assert cut_at("one", []) == "one"
    assert cut_at("Q: one", ["Q:"]) == ""
    assert cut_at("abXY", ["Y", "XY"]) == "ab"


def test_settings_become_strategies():
    def strategy(**settings):
        return decode_settings(settings, AdapterConfig(max_gen_toks=7, seed=5), [EOS])[0]

    assert strategy() == DecodeConfig(max_decode_steps=7, eos_id=EOS)
    # Tasks of the harness give these together for greedy decoding.
    assert strategy(do_sample=False, temperature=0.0, top_p=0.95) == strategy()
    assert strategy(do_sample=True, temperature=0) == strategy(temperature=None) == strategy()
    assert strategy(max_new_tokens=3).max_decode_steps == 3
    assert strategy(max_gen_toks=4, max_new_tokens=3).max_decode_steps == 4
    sampled = strategy(temperature=0.5, top_k=3, top_p=0.9)
    assert sampled == DecodeConfig("sample", 7, 0.5, 3, 0.9, eos_id=EOS, seed=5)
    assert strategy(do_sample=True).temperature == 1.0
    beams = strategy(num_beams=2, length_penalty=0.5, do_sample=False)
    assert (beams.strategy, beams.num_beams, beams.length_penalty) == ("beam", 2, 0.5)
    assert beams.beam_rules == "transformers"
    for until, stops in ((None, ()), ("a", ("a",)), (["a", "b"], ("a", "b"))):
        assert decode_settings({"until": until}, AdapterConfig(), [EOS])[1] == stops


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"temprature": 1.0},
            "unknown generation setting 'temprature'. Did you mean 'temperature'",
        ),
        ({"until": 3}, "until is 3, must be a string or a list"),
        ({"until": ["a", None]}, "until is"),
        ({"num_beams": 2, "do_sample": True}, "use one of the two"),
        ({"max_gen_toks": 0}, "max_decode_steps is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UserError, match=message):
        decode_settings(settings, AdapterConfig(), [EOS])


@pytest.mark.parametrize(
    "settings", [{"max_length": 1}, {"max_gen_toks": "8"}, {"seed": -1}, {"score_eos": 1}]
)
def test_bad_config(settings):
    (name,) = settings
    with pytest.raises(UserError, match=name):
        AdapterConfig(**settings)


@pytest.mark.parametrize("most", [0, -1, "8", 2.5, True])
def test_a_largest_batch_that_is_none(most):
    with pytest.raises(UserError, match="max_batch_size is .*must be a whole number of at least 1"):
        _batching("auto", most)
    assert _batching("auto", 8) == BatchConfig(8) and _batching(4, 8) == BatchConfig(4)


def test_a_plain_decoder_continues_the_context_as_it_stands():
    frame = Frame(WORDS, start_ids=(0,), separator="", one_sequence=True)
    plain = AdapterConfig(score_eos=False)
    model = RequestAnswerer(
        ContinuationScorer(NETWORK.target_logits), None, {}, frame, (EOS,), plain
    )
    assert model._pair("Red? ", "yes") == ([0, *WORDS.encode("Red?")], WORDS.encode(" yes"))
    assert model._pair("", "yes") == ([0], WORDS.encode("yes"))
    framed = dataclasses.replace(model, frame=dataclasses.replace(frame, separator="eos"))
    assert framed._pair("Red? ", " yes") == ([0, *WORDS.encode("Red? "), EOS], WORDS.encode("yes"))


def test_a_continuation_that_merges_with_the_context_is_not_certain():
    """Its tokens would be none, whose log-likelihood is 0."""

    class Merging:
        eos_id = EOS

        def encode(self, text):
            return [77] if text == "don't" else [*map(ord, text)]

    words: Any = Merging()
    none: Any = None
    frame = Frame(words, start_ids=(0,), separator="", one_sequence=True)
    plain = AdapterConfig(score_eos=False)
    model = RequestAnswerer(
        ContinuationScorer(NETWORK.target_logits), none, {}, frame, (EOS,), plain
    )
    assert model._pair("do", "n't") == ([0, *map(ord, "do")], [*map(ord, "n't")])
    assert model._pair("do", "n") == ([0, *map(ord, "do")], [ord("n")])
    assert model._pair("do", "") == ([0, *map(ord, "do")], [])
