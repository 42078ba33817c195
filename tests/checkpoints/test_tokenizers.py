"""A folder's tokenizer goes along with its weights, added tokens included."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from instruct.checkpoints import huggingface
from instruct.checkpoints.convert import convert, describe
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.loading import trained_run
from instruct.checkpoints.tokenizers import TOKENIZER_FILES, tokenizer_files, vocabulary_of
from instruct.data.vocab import GYM_MODEL, load_vocabulary
from tests.checkpoints.conftest import random_arrays
from tests.data.tokenizer_folders import write_bos_model, write_folder

TEXT = "if ⟦a < b⟧ swap <sep> them"


@pytest.mark.slow
def test_added_tokens_go_there_and_back(tiny, tmp_path):
    plain = load_vocabulary(f"{GYM_MODEL}#extra_ids=100").vocab_size
    model = dataclasses.replace(tiny, vocab_size=plain + 4)
    folder = tmp_path / "hf"
    huggingface.write_checkpoint(folder, random_arrays(model), model, np.dtype(np.float32))
    shutil.copy(GYM_MODEL, folder / "spiece.model")
    added = {"⟦": plain, "⟧": plain + 1, "<sep>": plain + 2}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    words = load_vocabulary(str(folder))
    assert words.vocab_size == plain + 3 and set(added.values()) <= set(words.encode(TEXT))

    opened = open_checkpoint(folder)
    assert opened.vocabulary == str(folder)
    assert any(f"rows from {plain + 3:,} on are padding" in note for note in opened.notes)
    assert describe(folder).vocabulary == str(folder)
    assert trained_run(folder, folder, "infer.infer").setting("vocabulary") == str(folder)

    convert(folder, tmp_path / "ours", "instruct")
    moved = trained_run(tmp_path / "ours", tmp_path / "ours", "infer.infer").setting("vocabulary")
    assert load_vocabulary(moved).fingerprint == words.fingerprint
    assert load_vocabulary(moved).encode(TEXT) == words.encode(TEXT)
    convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    for name in TOKENIZER_FILES:
        there = (folder / name).exists()
        assert (tmp_path / "back" / name).exists() == there
        assert not there or (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    # A run that was trained with the folder as its vocabulary, and carries no files.
    assert tokenizer_files(str(folder)).keys() == {"spiece.model", "added_tokens.json"}


def test_a_plain_folder_as_a_vocabulary_is_its_pieces(tmp_path):
    shutil.copy(GYM_MODEL, tmp_path / "spiece.model")
    found = tokenizer_files(str(tmp_path))
    assert found["spiece.model"] == GYM_MODEL.read_bytes()
    assert json.loads(found["tokenizer_config.json"])["extra_ids"] == 100


@pytest.mark.parametrize("kind", ["llama3", "gemma"])
def test_a_folder_with_tokenizer_json_goes_along_whole(tmp_path, kind):
    folder = write_folder(kind, tmp_path / "folder")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    files = tokenizer_files(str(folder / "tokenizer.json"))
    assert files.keys() == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert vocabulary_of(folder) == str(folder)


def test_a_sentencepiece_model_with_bos_gets_the_settings_of_llama_2(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = load_vocabulary(write_bos_model(tmp_path))
    for name, content in tokenizer_files(words.spec).items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.LlamaTokenizer.from_pretrained(tmp_path)
    for text in ("sentence 5 has words.", "words {naïve} 日本"):
        assert theirs(text, add_special_tokens=False).input_ids == words.encode(text)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (words.bos_id, words.eos_id)
