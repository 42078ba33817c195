"""Generation settings of a folder, old or new, become a strategy, or are refused by name."""

import json
import pathlib

import numpy as np
import pytest

from instruct.checkpoints import huggingface
from instruct.checkpoints.convert import convert, generation_settings
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.generation_settings import decode_config
from instruct.models.encoder_decoder import EncoderDecoder
from tests.checkpoints.conftest import padded_batches, random_model, tree_of


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, DecodeConfig(max_decode_steps=128)),
        (
            {"_from_model_config": True, "eos_token_id": 1, "max_length": 20, "num_beams": 1},
            DecodeConfig(max_decode_steps=19),
        ),
        (
            {"num_beams": 4, "max_new_tokens": 30, "eos_token_id": [2]},
            DecodeConfig(
                strategy="beam",
                num_beams=4,
                length_penalty=1.0,
                beam_rules="transformers",
                max_decode_steps=30,
                eos_id=2,
            ),
        ),
        (
            {"num_beams": 2, "length_penalty": 0.6, "early_stopping": True},
            DecodeConfig(
                strategy="beam", num_beams=2, length_penalty=0.6, beam_rules="transformers-early"
            ),
        ),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "num_return_sequences": 3},
            DecodeConfig(strategy="sample", temperature=0.7, top_p=0.9, top_k=50, num_samples=3),
        ),
        ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}, DecodeConfig()),
        ({"min_length": 5, "max_length": 9}, DecodeConfig(min_decode_steps=4, max_decode_steps=8)),
        ({"min_length": 0, "bad_words_ids": None}, DecodeConfig()),
        # min_new_tokens counts before min_length, as in transformers, also where it is 0.
        ({"min_length": 5, "min_new_tokens": 0}, DecodeConfig()),
        (
            {
                "min_new_tokens": 3,
                "no_repeat_ngram_size": 3,
                "repetition_penalty": 1.2,
                "forced_bos_token_id": 7,
                "forced_eos_token_id": [1],
                "bad_words_ids": [[3, 4]],
                "suppress_tokens": [5],
                "begin_suppress_tokens": [6],
                "exponential_decay_length_penalty": [4, 1.1],
            },
            DecodeConfig(
                min_decode_steps=3,
                no_repeat_ngram_size=3,
                repetition_penalty=1.2,
                forced_bos_token_id=7,
                forced_eos_token_id=1,
                bad_words_ids=((3, 4),),
                suppress_tokens=(5,),
                begin_suppress_tokens=(6,),
                exponential_decay_length_penalty=(4, 1.1),
            ),
        ),
    ],
)
def test_strategies(settings, expected):
    assert decode_config(settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_repetition_penalty": 1.2}, "encoder_repetition_penalty = 1.2"),
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size = 3"),
        ({"typical_p": 0.5}, "typical_p = 0.5"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id = 5"),
        ({"stop_strings": ["."]}, "stop_strings"),
        ({"repetition_penalty": -1}, "DecodeConfig.repetition_penalty is -1"),
        ({"forced_eos_token_id": [1, 2]}, "forced_eos_token_id"),
        ({"min_length": "5"}, "DecodeConfig.min_decode_steps is -1"),
        ({"min_new_tokens": 9, "max_length": 9}, r"more tokens than .* 8 .* \(MAX_DECODE_STEPS\)"),
        (
            {"num_beams": 2, "renormalize_logits": True, "min_new_tokens": 2},
            "renormalize_logits with beams and min_decode_steps",
        ),
        ({"num_beams": 4, "do_sample": True}, "Choose one"),
        ({"num_beams": 4, "early_stopping": "soon"}, "early_stopping 'soon'"),
        ({"num_beams": -1}, "DecodeConfig.num_beams is -1"),
        ({"max_length": "20"}, "max_decode_steps is 0"),
        ({"eos_token_id": "</s>"}, "eos_id"),
        ({"eos_token_id": [1, "</s>"]}, "stop_ids"),
    ],
)
def test_what_is_not_computed_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        decode_config(settings)


def until_eos(tokens) -> list[int]:
    """Ids up to the first EOS; transformers fills the rest with 0 or with EOS."""
    row = [int(token) for token in tokens]
    return row[: row.index(1) + 1] if 1 in row else row


STRATEGIES = {
    "greedy": {},
    "beam": {"num_beams": 4},
    "beam_plain": {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"},
    "beam_long": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"},
    "beam_early": {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True},
}


# Rules on tokens, over logits or, in beams, over log-probabilities.
RULED = {
    "greedy": {"min_new_tokens": 6, "no_repeat_ngram_size": 2, "repetition_penalty": 1.5},
    "greedy_forced": {
        "forced_bos_token_id": 7,
        "forced_eos_token_id": 1,
        "begin_suppress_tokens": [1, 3],
        "suppress_tokens": [11, 12, 13],
        "exponential_decay_length_penalty": (3, 1.3),
    },
    "beam_short": {"num_beams": 4, "length_penalty": -1.0},
    "beam_never_short": {"num_beams": 3, "length_penalty": -0.5, "early_stopping": "never"},
    "beam": {"num_beams": 4, "min_length": 5, "no_repeat_ngram_size": 2},
    "beam_early": {
        "num_beams": 3,
        "early_stopping": True,
        "repetition_penalty": 1.3,
        "bad_words_ids": [[number, other] for number in range(2, 40) for other in (1, 5, 9)],
        "forced_bos_token_id": 7,
    },
}


def with_likely_eos(name: str):
    """transformers' model whose sequences end at different lengths, and random prompts."""
    torch = pytest.importorskip("torch")
    model = random_model(name, seed=3)
    with torch.no_grad():  # makes EOS likely enough for beams to end
        model.get_output_embeddings().weight[1] *= 3
    sources = [source for source, _ in padded_batches(model.config.vocab_size, 6)]
    return model, np.concatenate(sources)


def generated(model, source: np.ndarray, **settings) -> list[list[int]]:
    """What transformers generates."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        rows = model.generate(
            torch.tensor(source).long(),
            attention_mask=torch.tensor(source != 0).long(),
            use_cache=False,  # its cache cannot have a decoder deeper than the encoder
            **settings,
        )
    return [until_eos(row) for row in rows.numpy()[:, 1:]]


def decoded(folder: pathlib.Path, source: np.ndarray, config: DecodeConfig) -> list[list[int]]:
    """What this program generates."""
    opened = huggingface.open_checkpoint(folder)
    decoder = Decoder(EncoderDecoder(opened.model), config, BatchConfig(), None)
    prompts = [[int(token) for token in row[row != 0]] for row in source]
    found = decoder.generate(tree_of(opened.arrays), prompts, range(len(prompts)))
    return [until_eos(tokens[0]) for tokens in found.tokens]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("name", ["t5_1_1", "t5_1_0", "odd"])
def test_generation_is_that_of_transformers(tmp_path, name, strategy):
    """Token for token, rows that end early among them."""
    theirs, source = with_likely_eos(name)
    theirs.save_pretrained(tmp_path)
    steps, settings = 10, STRATEGIES[strategy]
    expected = generated(theirs, source, max_new_tokens=steps, do_sample=False, **settings)
    found = decoded(tmp_path, source, decode_config(settings | {"max_new_tokens": steps}))
    assert found == expected
    # A penalty above 1 pays for length, so that all use what they are given.
    assert min(map(len, found)) < steps or settings["length_penalty"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(RULED))
def test_rules_on_tokens_are_those_of_transformers(tmp_path, strategy):
    theirs, source = with_likely_eos("t5_1_1")
    theirs.save_pretrained(tmp_path)
    steps, settings = 9, RULED[strategy]
    expected = generated(theirs, source, max_new_tokens=steps, do_sample=False, **settings)
    given = json.loads(json.dumps(settings))  # as a file holds them
    config = decode_config(given | {"max_new_tokens": steps})
    assert decoded(tmp_path, source, config) == expected
    plain = decode_config({"max_new_tokens": steps, "num_beams": settings.get("num_beams")})
    assert decoded(tmp_path, source, plain) != expected


@pytest.mark.slow
def test_settings_in_config_json_are_followed_and_kept(tmp_path):
    """As before transformers 4.26, without generation_config.json; there and back by `convert`."""
    transformers = pytest.importorskip("transformers")
    theirs, source = with_likely_eos("t5_1_1")
    old = tmp_path / "old"
    theirs.save_pretrained(old)
    (old / "generation_config.json").unlink()
    settings = {
        "num_beams": 3,
        "no_repeat_ngram_size": 2,
        "max_length": 9,
        "length_penalty": -0.5,
        "early_stopping": True,
        "decoder_start_token_id": 0,
    }
    unused = {"task_specific_params": {"summarization": {"num_beams": 7, "max_length": 4}}}
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(config | settings | unused))
    assert generation_settings(old) == settings
    expected = generated(transformers.T5ForConditionalGeneration.from_pretrained(old), source)
    assert max(map(len, expected)) == 8
    assert decoded(old, source, decode_config(generation_settings(old))) == expected
    convert(old, tmp_path / "ours", "instruct")
    assert generation_settings(tmp_path / "ours") == settings
    convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert generated(again, source) == expected
    # A file of its own overrules config.json, as in transformers.
    (old / "generation_config.json").write_text("{}")
    assert generation_settings(old) == {}


def test_rules_of_beams_are_named_and_shown():
    config = DecodeConfig(strategy="beam", beam_rules="transformers", length_penalty=1.0)
    assert config.describe() == "beam-4 alpha=1 rules=transformers steps=128"
    with pytest.raises(UserError, match="unknown DecodeConfig.beam_rules 'transformer'"):
        DecodeConfig(strategy="beam", beam_rules="transformer")
    with pytest.raises(UserError, match="beam_rules = 'transformers' has no effect"):
        DecodeConfig(beam_rules="transformers")
