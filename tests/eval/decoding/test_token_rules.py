"""Rules on tokens give the scores of transformers' logits processors, and refuse bad values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.token_rules import constrain_fn

SIZE, STEPS, EOS = 13, 9, 1
# Rule -> (our value, transformers' class, its arguments).
RULES = {
    "repetition_penalty": (1.7, "RepetitionPenaltyLogitsProcessor", (1.7,)),
    "no_repeat_ngram_size": (2, "NoRepeatNGramLogitsProcessor", (2,)),
    "no_repeat_ngram_size=1": (1, "NoRepeatNGramLogitsProcessor", (1,)),
    "no_repeat_ngram_size=20": (20, "NoRepeatNGramLogitsProcessor", (20,)),
    "bad_words_ids": (
        [[4], [EOS], [2, 3], [3, 2], [0, 5], [6, 2, 3], [2, 2, 2, 2]],
        "NoBadWordsLogitsProcessor",
        ([[4], [EOS], [2, 3], [3, 2], [0, 5], [6, 2, 3], [2, 2, 2, 2]], EOS),
    ),
    "min_decode_steps": (4, "MinNewTokensLengthLogitsProcessor", (1, 4, EOS)),
    "forced_bos_token_id": (7, "ForcedBOSTokenLogitsProcessor", (7,)),
    "forced_eos_token_id": (EOS, "ForcedEOSTokenLogitsProcessor", (STEPS + 1, EOS)),
    "exponential_decay_length_penalty": (
        (2, 1.5),
        "ExponentialDecayLengthPenalty",
        ((2, 1.5), EOS, 1),
    ),
    "suppress_tokens": ([3, 8], "SuppressTokensLogitsProcessor", ([3, 8],)),
    "begin_suppress_tokens": ([EOS, 5], "SuppressTokensAtBeginLogitsProcessor", ([EOS, 5], 1)),
}


@pytest.mark.parametrize("name", list(RULES))
def test_scores_are_those_of_transformers(name):
    """At every position of sequences that repeat themselves; rows stand at different positions."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    value, theirs, arguments = RULES[name]
    draw = np.random.default_rng(0)
    positions = np.repeat(np.arange(STEPS), 8)
    tokens = draw.integers(2, 7, (len(positions), STEPS)).astype(np.int32)
    tokens[np.arange(STEPS) >= positions[:, None]] = 0
    scores = draw.normal(size=(len(positions), SIZE)).astype(np.float32)
    config = DecodeConfig(max_decode_steps=STEPS, **{name.partition("=")[0]: value})
    found = np.asarray(jax.jit(constrain_fn(config, (EOS,), STEPS))(scores, tokens, positions))
    assert not np.array_equal(found, scores) or name.endswith("=20")
    for position in range(STEPS):
        rows = positions == position
        history = np.pad(tokens[rows, :position], ((0, 0), (1, 0)))
        process = getattr(processors, theirs)(*arguments)
        expected = process(torch.tensor(history).long(), torch.tensor(scores[rows]))
        np.testing.assert_allclose(found[rows], expected.numpy(), rtol=1e-6)


def test_begin_comes_after_a_forced_first_token():
    config = DecodeConfig(forced_bos_token_id=4, begin_suppress_tokens=(5,))
    constrain = constrain_fn(config, (EOS,), STEPS)
    scores = constrain(jnp.zeros((3, SIZE)), jnp.zeros((3, STEPS), jnp.int32), jnp.arange(3))
    banned = np.isneginf(scores)
    assert banned[0].sum() == SIZE - 1 and not banned[0, 4]
    assert banned[1].nonzero()[0].tolist() == [5] and not banned[2].any()


def test_nothing_set_is_nothing_computed():
    assert constrain_fn(DecodeConfig(), (EOS,), STEPS) is None
    assert DecodeConfig().describe() == "greedy steps=128"
    assert "repetition_penalty" not in DecodeConfig().settings()


def test_rules_are_shown_and_kept_as_json():
    config = DecodeConfig(bad_words_ids=[[3, 4]], min_decode_steps=2)
    assert hash(config) == hash(DecodeConfig(bad_words_ids=((3, 4),), min_decode_steps=2))
    assert config.describe() == "greedy steps=128 bad_words_ids=[[3,4]] min_decode_steps=2"
    assert config.settings()["bad_words_ids"] == [[3, 4]]
    many = DecodeConfig(suppress_tokens=list(range(100))).describe()
    assert len(many) < 60 and many != DecodeConfig(suppress_tokens=list(range(99))).describe()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; use a number above 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1; use a whole number"),
        ({"min_decode_steps": 2.5}, "min_decode_steps is 2.5"),
        ({"min_decode_steps": 9, "max_decode_steps": 8}, "is 9, more tokens than .* 8 .* to 9 or"),
        ({"forced_bos_token_id": "a"}, "forced_bos_token_id is 'a'; use .* a token id"),
        ({"forced_eos_token_id": True}, "forced_eos_token_id is True"),
        ({"suppress_tokens": 5}, "suppress_tokens is 5; use a list of token ids"),
        ({"begin_suppress_tokens": [-1]}, "begin_suppress_tokens is .-1."),
        ({"bad_words_ids": [3]}, "bad_words_ids is .3.; use a list of lists"),
        ({"bad_words_ids": [[]]}, "bad_words_ids"),
        ({"exponential_decay_length_penalty": (1,)}, "exponential_decay_length_penalty"),
        ({"length_penalty": float("nan"), "strategy": "beam"}, "length_penalty is nan"),
    ],
)
def test_bad_values_are_named(rule, message):
    with pytest.raises(UserError, match=message):
        DecodeConfig(**rule)


def test_ids_that_the_model_lacks_are_refused():
    constrain = constrain_fn(DecodeConfig(suppress_tokens=(SIZE,)), (EOS,), STEPS)
    with pytest.raises(UserError, match="suppress_tokens has the id 13.* below that"):
        constrain(jnp.zeros((1, SIZE)), jnp.zeros((1, STEPS), jnp.int32), jnp.zeros(1, jnp.int32))
