"""Our vocabularies give the ids of SeqIO's classes, and need no TensorFlow."""

import pickle
import shutil

import pytest
import sentencepiece
import seqio

from instruct.data import vocab
from instruct.errors import UserError
from tests.data.tokenizer_folders import write_bos_model, write_folder

TEXTS = (
    "",
    "Hello world.",
    "two  spaces\tand a tab\nnew line",
    "naïve 日本語 🙂",
    "What is 12 + 345?",
    "<extra_id_0> is a sentinel <extra_id_1>",
    "{braces} and \\ backslash",
)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocab")
    words = [f"sentence {i} has some words, and number {i * 7}." for i in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(folder / "small"),
        vocab_size=420,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=True,
        minloglevel=2,
    )
    return folder / "small.model"


@pytest.mark.parametrize("extra_ids", [0, 100])
def test_sentencepiece_ids_are_seqios(model_path, extra_ids):
    ours = vocab.load_vocabulary(f"{model_path}#extra_ids={extra_ids}")
    theirs = seqio.SentencePieceVocabulary(str(model_path), extra_ids)
    assert ours.vocab_size == theirs.vocab_size == 420 + extra_ids
    assert (ours.eos_id, ours.unk_id) == (theirs.eos_id, theirs.unk_id)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text))
        assert ids == theirs.encode_tf(text).numpy().tolist()
        assert ours.decode(ids) == theirs.decode(ids)


def test_arrays_hold_the_ids_of_lists(model_path, tmp_path):
    write_folder("llama3", tmp_path)
    for name in ("bytes", "gym", str(model_path), str(tmp_path)):
        ours = vocab.load_vocabulary(name)
        for text in (*TEXTS, " ", "\n\n", "\u2581x", "\x00"):
            ids = ours.encode_array(text)
            assert ids.typecode == "i" and ids.tolist() == ours.encode(text)
            ids.append(7)  # a copy of its own
            assert ours.encode_array(text) == ids[:-1]


def test_sentinels_count_down_from_the_last_id(model_path):
    ours = vocab.load_vocabulary(str(model_path))
    assert ours.vocab_size == 520
    assert ours.encode("<extra_id_0>")[-1] == 519
    assert ours.encode("<extra_id_99>")[-1] == 420


def test_byte_ids_are_seqios():
    ours, theirs = vocab.load_vocabulary("bytes"), seqio.ByteVocabulary()
    assert ours.vocab_size == theirs.vocab_size == 259
    for text in TEXTS:
        assert ours.encode(text) == list(theirs.encode(text))
        assert ours.decode(ours.encode(text)) == text
    assert vocab.load_vocabulary("bytes#extra_ids=125").vocab_size == 384


def test_decoding_stops_at_eos_and_skips_padding(model_path):
    for name in ("bytes", str(model_path)):
        ours = vocab.load_vocabulary(name)
        ids = ours.encode("some words")
        assert ours.decode([*ids, 0, 0]) == "some words"
        assert ours.decode([*ids, 1, *ids]) == "some words"
        assert ours.decode([ours.vocab_size + 7]) in ("", " ⁇ ")


def test_same_object_in_another_process(model_path):
    ours = vocab.load_vocabulary(str(model_path))
    again = pickle.loads(pickle.dumps(ours))
    assert again.fingerprint == ours.fingerprint
    assert vocab.load_vocabulary(f"{model_path}#extra_ids=1").fingerprint != ours.fingerprint


@pytest.mark.parametrize("name", ["run#3", "c#", "#", "a#extra_ids=7", "b#extra_ids=x", "x # y"])
def test_a_hash_in_a_path_is_part_of_the_path(model_path, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    file = folder / f"{name}.model"
    file.write_bytes(model_path.read_bytes())
    assert vocab.load_vocabulary(str(file)).vocab_size == 520
    assert vocab.load_vocabulary(f"{file}#extra_ids=3").vocab_size == 423
    shutil.move(file, folder / "spiece.model")
    assert vocab.load_vocabulary(str(folder)).spec == f"{folder}/spiece.model#extra_ids=100"
    with pytest.raises(UserError, match="After '#' only 'extra_ids=N' is an option"):
        vocab.load_vocabulary(f"{folder}/spiece.model#extra_id=3")


@pytest.mark.parametrize(
    "spec, part",
    [
        ("/no/such/file.model", "No such file"),
        ("~nobody_of_this_name/file.model", "there is no such user"),
        ("a" * 300, "too long for a path"),
        ("bytes#extra=3", "extra_ids=N"),
        ("bytes#extra_ids=many", "extra_ids=N"),
        ("gym#7", "extra_ids=N"),
        ("gym#extra_ids=100001", "N from 0 to 100000"),
    ],
)
def test_unreadable_is_one_clear_message(spec, part):
    with pytest.raises(UserError, match=part):
        vocab.load_vocabulary(spec)


def test_another_file_is_not_a_model(tmp_path):
    file = tmp_path / "not.model"
    for content in (b"", b"plain text, not a model"):
        file.write_bytes(content)
        vocab.load_vocabulary.cache_clear()
        with pytest.raises(UserError, match="not a SentencePiece model"):
            vocab.load_vocabulary(str(file))


def test_a_model_without_eos_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words here", "and some more there"]),
        model_prefix=str(tmp_path / "no_eos"),
        vocab_size=30,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(UserError, match="no end-of-sequence"):
        vocab.load_vocabulary(str(tmp_path / "no_eos.model"))


def test_start_stop_and_padding_of_t5s_vocabularies(model_path):
    for name in ("bytes", "gym", str(model_path)):
        ours = vocab.load_vocabulary(name)
        assert (ours.pad_id, ours.start_ids, ours.stop_ids) == (0, (0,), (1,))


def test_embedding_must_hold_every_id():
    ours = vocab.load_vocabulary("bytes")
    vocab.check_embedding_rows(ours, 259)
    with pytest.raises(UserError, match="384"):
        vocab.check_embedding_rows(ours, 258)


@pytest.mark.parametrize(
    ("ids", "starts", "padding"),
    [
        ({"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}, (1,), None),  # Llama 2
        ({"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}, (2,), 0),  # Gemma
        ({"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": 3}, (0,), 0),  # umT5
    ],
)
def test_sentencepiece_with_bos_and_byte_fallback(tmp_path, ids, starts, padding):
    spec = write_bos_model(tmp_path, **ids)
    ours = vocab.load_vocabulary(spec)
    assert vocab.load_vocabulary(str(tmp_path)) is ours and ours.vocab_size == 330
    assert (ours.start_ids, ours.pad_id, ours.stop_ids) == (starts, padding, (ids["eos_id"],))
    processor = sentencepiece.SentencePieceProcessor(model_file=spec)
    for text in TEXTS:
        assert ours.encode(text) == processor.EncodeAsIds(text)
        assert ours.unk_id not in ours.encode(text)
        assert ours.decode([*ours.encode(text), ours.eos_id, 7]) == text
    with pytest.raises(UserError, match="has no chat template.*CHAT_TEMPLATE"):
        vocab.chat_template(ours)
    # By another name it is read as T5's, as SeqIO does.
    other = vocab.load_vocabulary(str((tmp_path / "tokenizer.model").rename(tmp_path / "a.model")))
    assert (other.start_ids, other.pad_id, other.vocab_size) == ((0,), 0, 430)
