"""The settings of the feed check themselves."""

import dataclasses

import pytest

from instruct.data import config
from instruct.data.vocab import ByteVocabulary, load_vocabulary
from instruct.errors import UserError
from instruct.prompts.chat_template import ChatTemplate
from tests.data.toy import toy_config


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"feature_lengths": {"inputs": 8}}, "'targets'"),
        ({"feature_lengths": {"inputs": 8, "targets": 1}}, "at least 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"window_examples": 0}, "window_examples"),
        ({"workers": -1}, "workers is -1"),
        ({"packing": "best"}, "Did you mean 'best_fit'"),
        ({"feed": "tfds"}, "Allowed: records, seqio"),
        ({"plan": "random"}, "Allowed: iid, low_discrepancy"),
        ({"layout": "decoder"}, "Did you mean 'decoder_only'"),
        ({"loss_on": "inputs", "layout": "decoder_only"}, "Allowed: all, targets"),
        ({"loss_on": "all"}, "DataConfig.layout='decoder_only'"),
        ({"separator": "", "feed": "seqio"}, "need DataConfig.feed='records'"),
        ({"chat_template": True, "feed": "seqio"}, "need DataConfig.feed='records'"),
        ({"records_share": 0.0}, r"records_share is 0.0; use a number in \(0, 1\]"),
        ({"records_share": 0.5, "feed": "seqio"}, "needs DataConfig.feed='records'"),
        ({"chat_template": True, "separator": ""}, "set CHAT_TEMPLATE = False"),
    ],
)
def test_wrong_settings_are_one_clear_message(changes, part):
    with pytest.raises(UserError, match=part):
        toy_config("any", **changes)


def test_identity_holds_what_changes_batches():
    plain = toy_config("any")
    assert plain.identity() == toy_config("any", workers=3, prefetch_windows=9).identity()
    for change in (
        {"seed": 1},
        {"batch_size": 8},
        {"packing": "none"},
        {"plan": "iid"},
        {"records_share": 0.5},
    ):
        assert toy_config("any", **change).identity() != plain.identity()


def test_identity_of_an_encoder_decoder_is_that_of_earlier_versions():
    """Checkpoints hold its hash."""
    fingerprint = load_vocabulary("bytes").fingerprint
    plain = [(128, 16), 4, fingerprint, 0, "best_fit", 64, "records", "low_discrepancy", "train"]
    assert toy_config("any").identity() == plain
    decoder = toy_config("any", layout="decoder_only", separator="\n")
    assert decoder.identity() == [*plain, {"layout": "decoder_only", "separator": "\n"}]


def test_frame_and_lengths_by_layout():
    pair, decoder = toy_config("any"), toy_config("any", layout="decoder_only")
    assert pair.frame.prompt("a") == [100, 1] and pair.frame.answer("b") == [101, 1]
    assert decoder.frame.prompt("a") == [0, 100, 1] and decoder.frame.answer("b") == [101, 1]
    assert (pair.example_lengths, decoder.example_lengths) == ((128, 16), (129, 16))


@pytest.mark.parametrize(
    ("start_ids", "encoder", "decoder", "empty"),
    [((0,), [], [0], [0]), ((2,), [2], [2], [2]), ((), [], [], [1])],
)
def test_what_starts_a_sequence_is_the_vocabularys(monkeypatch, start_ids, encoder, decoder, empty):
    vocabulary = ByteVocabulary()
    vocabulary.start_ids = start_ids
    monkeypatch.setattr(config, "load_vocabulary", lambda spec: vocabulary)
    pair = toy_config("any", separator="\n")
    one = dataclasses.replace(pair, layout="decoder_only")
    assert pair.frame.prompt("a") == [*encoder, 100, 13]
    assert one.frame.prompt("a") == [*decoder, 100, 13]
    assert dataclasses.replace(one, separator="").frame.prompt("") == empty


def test_a_chat_template_is_part_of_the_identity(monkeypatch):
    template = toy_config("any", layout="decoder_only", chat_template=True)
    with pytest.raises(UserError, match="no chat template"):
        template.identity()
    vocabulary = ByteVocabulary()
    monkeypatch.setattr(config, "load_vocabulary", lambda spec: vocabulary)
    identities = []
    for source in ("{{ messages[0].content }}", "> {{ messages[0].content }}"):
        vocabulary.chat_template = ChatTemplate(source)
        identities.append(template.identity())
    assert identities[0] != identities[1] != dataclasses.replace(template, chat_template=False)
    assert template.frame.prompt("a") == [0, *vocabulary.encode("> a")]
