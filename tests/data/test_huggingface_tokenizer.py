"""Added tokens get the ids of transformers, in both directions."""

import json
import os
import pathlib
import pickle
import random
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import sentencepiece
import tensorflow as tf

from instruct.data.huggingface_tokenizer import folder_vocabulary
from instruct.data.seqio.bridge import from_seqio, seqio_vocabulary
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError

SIZE = 150
SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
CLASS = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}
LISTED = CLASS | {"extra_ids": 100, "additional_special_tokens": SENTINELS}
FIRST = SIZE + 100


def token(content: str, **flags: bool) -> dict:
    """An entry of added_tokens_decoder as transformers 4 writes it."""
    names = ("lstrip", "rstrip", "single_word", "special")
    plain = {"content": content, "normalized": True} | dict.fromkeys(names, False)
    return plain | flags


def stripping(number: int) -> dict:
    return token(f"<extra_id_{number}>", special=True, lstrip=True, rstrip=True, normalized=False)


CORE = {str(n): token(t, special=True) for n, t in enumerate(("<pad>", "</s>", "<unk>"))}
OWN = CORE | {str(FIRST - 1 - number): stripping(number) for number in range(100)}
FLAGGED = [
    token("ＡＢ"),
    token("<l>", lstrip=True),
    token("<r>", rstrip=True),
    token("ing", single_word=True),
    token("ab c", normalized=False),
    token("ab"),
    token("▁q"),
    token("Ｚ", normalized=False),
    token("<s2>", special=True),
    token("<<", special=True, normalized=False),
    token("<", special=True, normalized=False, lstrip=True, rstrip=True),
]
BRACES = ["{", "}", "<", "\n"]
# Name of a folder -> its JSON files.
FOLDERS: dict[str, dict[str, dict]] = {
    "slow tokenizer of version 4": {
        "tokenizer_config.json": LISTED
        | {"added_tokens_decoder": OWN | {str(FIRST + n): token(t) for n, t in enumerate(BRACES)}},
        "added_tokens.json": {text: FIRST + number for number, text in enumerate(BRACES)},
        "special_tokens_map.json": {"additional_special_tokens": SENTINELS, "eos_token": "</s>"},
    },
    "before added_tokens_decoder": {
        "tokenizer_config.json": LISTED,
        "added_tokens.json": {text: FIRST + number for number, text in enumerate(BRACES)},
        "special_tokens_map.json": {"additional_special_tokens": SENTINELS, "eos_token": "</s>"},
    },
    "added_tokens.json alone": {"added_tokens.json": {"{": FIRST, "}": FIRST + 1}},
    "special tokens alone": {
        "tokenizer_config.json": LISTED
        | {"additional_special_tokens": [*SENTINELS, "<sep>", "[CTX]"]},
    },
    "every flag": {
        "tokenizer_config.json": LISTED
        | {"added_tokens_decoder": OWN | {str(FIRST + n): t for n, t in enumerate(FLAGGED)}},
    },
    "no sentinels": {
        "tokenizer_config.json": CLASS | {"extra_ids": 0, "additional_special_tokens": ["<sep>"]},
    },
    "five sentinels": {
        "tokenizer_config.json": CLASS
        | {"extra_ids": 5, "additional_special_tokens": [*SENTINELS[:5], "<sep>"]},
        "added_tokens.json": {"<sep>": SIZE + 5, "{": SIZE + 6},
    },
    "names of their own": {
        "tokenizer_config.json": CLASS
        | {"extra_special_tokens": ["<sep>"], "bos_token": "<s>", "image_token": "<img>"},
    },
    "cleaned up": {
        "tokenizer_config.json": CLASS | {"clean_up_tokenization_spaces": True},
        "added_tokens.json": {"?": FIRST},
    },
}
# What texts are made of: added tokens, their neighbours, blanks, characters without a piece.
PARTS = [
    *(
        "a",
        "b",
        " ",
        "  ",
        "\n",
        "{",
        "}",
        "<",
        "<<",
        "hello",
        "world",
        "words",
        ".",
        ",",
        "?",
        "_",
    ),
    *("<extra_id_0>", "<extra_id_99>", "<extra_id_4>", "</s>", "<pad>", "<unk>", "<sep>", "[CTX]"),
    *(
        "ＡＢ",
        "AB",
        "<l>",
        "<r>",
        "ing",
        "sing",
        "ab c",
        "ab",
        "▁q",
        "q",
        "Ｚ",
        "Z",
        "<s2>",
        "<img>",
    ),
    *("<s>", "é", "日本", "\u3000", "\t", ""),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A SentencePiece model like T5's: no piece for braces, none for bytes."""
    path = tmp_path_factory.mktemp("pieces") / "small"
    words = [f"sentence {number} has some words, and number {number * 7}." for number in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*words, *["hello world to the be or not"] * 3]),
        model_prefix=str(path),
        vocab_size=SIZE,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return path.with_suffix(".model")


def folder_of(model: pathlib.Path, path: pathlib.Path, files: dict[str, dict]) -> pathlib.Path:
    path.mkdir()
    shutil.copy(model, path / "spiece.model")
    for name, content in files.items():
        (path / name).write_text(json.dumps(content), encoding="utf-8")
    return path


def check_equal(folder: pathlib.Path, theirs) -> None:
    """Random texts and random ids, compared with transformers' tokenizer of the same folder."""
    draw = random.Random(0)
    ours = load_vocabulary(str(folder))
    assert ours.vocab_size == len(theirs) and ours.eos_id == theirs.eos_token_id
    for _ in range(400):
        text = "".join(draw.choices(PARTS, k=draw.randrange(9)))
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text) == ids, text
        ids = [i for i in ids if i != ours.eos_id]
        ids += [draw.randrange(2, ours.vocab_size) for _ in range(3)]
        assert ours.decode([*ids, 1, 0]) == theirs.decode(ids, skip_special_tokens=True), ids


@pytest.mark.parametrize("layout", ["as written", "saved again"])
@pytest.mark.parametrize("name", list(FOLDERS))
def test_ids_are_those_of_transformers(model, tmp_path, name, layout):
    """`saved again`: as transformers 5 writes the same tokenizer, tokenizer.json alone."""
    transformers = pytest.importorskip("transformers")
    folder = folder_of(model, tmp_path / "folder", FOLDERS[name])
    theirs = transformers.T5Tokenizer.from_pretrained(folder)
    assert folder_vocabulary(folder) == str(folder)
    if layout == "saved again":
        folder = tmp_path / "again"
        theirs.save_pretrained(folder)
        assert not (folder / "spiece.model").exists()
        theirs = transformers.T5Tokenizer.from_pretrained(folder)
    check_equal(folder, theirs)


def test_worked_example(model, tmp_path):
    files = {"added_tokens.json": {"{": FIRST, "{{": FIRST + 1, "<end>": FIRST + 2}}
    files["tokenizer_config.json"] = CLASS | {"extra_special_tokens": [*SENTINELS, "<end>"]}
    words = load_vocabulary(str(folder_of(model, tmp_path / "folder", files)))
    hello, world = words.encode("hello"), words.encode("world")
    assert words.encode("hello {{{world<end>") == [*hello, 251, 250, *world, 252]
    assert words.decode([*hello, 251, 250, *world, 252, 0]) == "hello{{{ world"
    assert words.decode([251, 1, *hello]) == "{{" and words.decode([250, 9999]) == "{"
    assert words.vocab_size == FIRST + 3 and words.pad_id == 0 and words.unk_id == 2


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config.json": LISTED},
        {"tokenizer_config.json": LISTED | {"added_tokens_decoder": OWN}},
        {"special_tokens_map.json": {"eos_token": {"content": "</s>"}}},
        {"added_tokens.json": {text: FIRST - 1 - n for n, text in enumerate(SENTINELS)}},
    ],
)
def test_folders_without_added_tokens_keep_the_vocabulary_of_their_pieces(model, tmp_path, files):
    folder = folder_of(model, tmp_path / "folder", files)
    assert folder_vocabulary(folder) == f"{folder}/spiece.model#extra_ids=100"
    assert load_vocabulary(str(folder)).spec == f"{folder}/spiece.model#extra_ids=100"


def test_the_pieces_alone_of_a_folder_with_added_tokens_are_warned_of(model, tmp_path, caplog):
    folder = folder_of(model, tmp_path / "folder", FOLDERS["added_tokens.json alone"])
    assert load_vocabulary(f"{folder}/spiece.model").vocab_size == FIRST
    assert "adds the tokens '{', '}', which this file alone does not have" in caplog.text
    caplog.clear()
    plain = folder_of(model, tmp_path / "plain", {"tokenizer_config.json": LISTED})
    load_vocabulary(f"{plain}/spiece.model")
    assert not caplog.records


def test_the_fingerprint_follows_added_tokens_and_their_flags(model, tmp_path):
    found = set()
    for number, entry in enumerate((token("{"), token("{", lstrip=True), token("}"))):
        config = LISTED | {"added_tokens_decoder": OWN | {str(FIRST): entry}}
        files = {"tokenizer_config.json": config}
        found.add(load_vocabulary(str(folder_of(model, tmp_path / str(number), files))).fingerprint)
    found.add(load_vocabulary(str(model)).fingerprint)
    assert len(found) == 4
    words = load_vocabulary(str(tmp_path / "0"))
    assert pickle.loads(pickle.dumps(words)).encode("a{b") == words.encode("a{b")


def test_seqio_gets_the_same_ids(model, tmp_path):
    folder = folder_of(model, tmp_path / "folder", FOLDERS["every flag"])
    ours, theirs = load_vocabulary(str(folder)), seqio_vocabulary(str(folder))
    assert from_seqio(theirs) == str(folder) and theirs.vocab_size == ours.vocab_size
    for text in ("hello ing <l> world", "", "ab c ab"):
        ids = ours.encode(text)
        assert theirs.encode(text) == ids == theirs.encode_tf(text).numpy().tolist()
        (mapped,) = tf.data.Dataset.from_tensors(text).map(theirs.encode_tf)
        assert mapped.numpy().tolist() == ids
        if ids:
            assert theirs.decode(ids) == ours.decode(ids)
            assert (
                theirs.decode_tf(tf.constant([ids, ids])).numpy().tolist()
                == [ours.decode(ids).encode()] * 2
            )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # transformers 5 would give '{' another id than the file: 250, the next that is free.
        ({"added_tokens.json": {"{": FIRST + 50}}, r"the tokens '\{' .* transformers 5 .* 250"),
        (
            {"tokenizer_config.json": LISTED | {"added_tokens_decoder": {"250": token("b")}}},
            "the tokens 'b'",
        ),
        (
            {
                "tokenizer_config.json": CLASS
                | {"split_special_tokens": True, "extra_special_tokens": ["<a>"]}
            },
            "split_special_tokens is not supported",
        ),
        (
            {"tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer", "sep_token": "<sep>"}},
            "adds the tokens '<sep>' to ByT5's bytes",
        ),
        ({"added_tokens.json": {"{": "250"}}, "'{' has the id '250'"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"x": {}}}},
            "does not map ids to tokens",
        ),
        ({"tokenizer_config.json": {"added_tokens_decoder": ["<a>"]}}, "added_tokens_decoder is"),
        ({"special_tokens_map.json": {"additional_special_tokens": 5}}, "is '5', no tokens"),
        ({"tokenizer.json": {"added_tokens": ["<a>"]}}, "added_tokens is no token with an id"),
        ({"tokenizer_config.json": CLASS | {"eos_token": ""}}, "eos_token is empty"),
        (
            {
                "tokenizer_config.json": {
                    "added_tokens_decoder": {"250": {"content": "{", "lstrip": 1}}
                }
            },
            "is not true or false",
        ),
    ],
)
def test_what_is_not_followed_is_refused_by_name(model, tmp_path, files, message):
    folder = folder_of(model, tmp_path / "folder", files)
    with pytest.raises(UserError, match=message):
        load_vocabulary(str(folder))


def test_a_folder_without_a_tokenizer_and_a_damaged_one_are_named(tmp_path):
    assert folder_vocabulary(tmp_path) is None
    with pytest.raises(UserError, match="has no tokenizer.json, spiece.model, tokenizer.model"):
        load_vocabulary(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": [["a"]]}}')
    with pytest.raises(UserError, match="does not hold a Unigram tokenizer"):
        load_vocabulary(str(tmp_path))
