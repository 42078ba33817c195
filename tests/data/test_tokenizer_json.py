"""Folders with a tokenizer.json: ids and texts of transformers' PreTrainedTokenizerFast."""

import itertools
import json
import os
import pathlib
import pickle
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from instruct.data.seqio.bridge import from_seqio, seqio_vocabulary
from instruct.data.vocab import chat_template, load_vocabulary
from instruct.errors import UserError
from instruct.prompts.frame import Frame
from tests.data.tokenizer_folders import KINDS, LINES, write_folder
from tests.prompts.test_chat_template import FORMS, TALK


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, pathlib.Path]:
    base = tmp_path_factory.mktemp("tokenizers")
    return {kind: write_folder(kind, base / kind) for kind in KINDS}


def check_equal(folder: pathlib.Path, lines) -> int:
    """Compares ids and decoded texts; returns how many lines decode to themselves."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ours = load_vocabulary(str(folder))
    assert ours.vocab_size == len(theirs) and ours.eos_id == theirs.eos_token_id
    assert ours.pad_id == theirs.pad_token_id
    assert [*ours.start_ids, *ours.encode(lines[0])] == theirs(lines[0]).input_ids
    same = 0
    for line, ids in zip(lines, theirs(lines, add_special_tokens=False).input_ids):
        assert ours.encode(line) == ids, line
        text = ours.decode([*ids, ours.eos_id, *ids])
        answer = list(itertools.takewhile(lambda number: number not in ours.stop_ids, ids))
        assert text == theirs.decode(answer, skip_special_tokens=True), line
        same += text == line
    return same


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(folders, kind):
    added = "<s><|im_end|><bos>"
    check_equal(folders[kind], [*LINES, "", " ", added, f"a {added} b"])


def real_lines(shared_data: pathlib.Path) -> list[str]:
    """2,000 lines of English, Spanish, German, Japanese and code-like text."""
    lines = [
        line
        for language in ("en", "es", "de", "ja")
        for line in (shared_data / "mgsm" / f"mgsm_{language}.tsv").read_text("utf-8").split("\n")
    ]
    for path in sorted((shared_data / "bbh" / "cot-prompts").glob("*.txt")):
        lines += path.read_text("utf-8").splitlines(keepends=True)[:60]
    for path in sorted((shared_data / "cot").rglob("*.tsv")):
        lines += path.read_text("utf-8").split("\n")[:200]
    for language in ("en", "es"):
        data = json.loads((shared_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
        lines += [p["context"] for entry in data["data"] for p in entry["paragraphs"]]
    lines = list(dict.fromkeys(line[:400] for line in lines if line.strip()))
    return [lines[number * len(lines) // 2000] for number in range(2000)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_text_in_all_languages(shared_data, tmp_path, kind):
    lines = real_lines(shared_data)
    assert len(set(lines)) == 2000 and all(any(c in line for line in lines) for c in "のñß")
    folder = write_folder(kind, tmp_path / kind, lines[::8], 1500)
    same = check_equal(folder, lines)
    # NFC (Qwen) and NFKC with unknown characters (Unigram) change some lines.
    assert same == len(lines) if kind in ("llama3", "gemma", "llama2") else same > 0
    assert kind != "qwen" or same > 0.99 * len(lines)


def test_what_starts_a_sequence_and_ends_an_answer(folders):
    words = {kind: load_vocabulary(str(folder)) for kind, folder in folders.items()}
    starts = {
        kind: [ours._backend.id_to_token(i) for i in ours.start_ids] for kind, ours in words.items()
    }
    assert starts["llama3"] == ["<|begin_of_text|>"] and starts["gemma"] == ["<bos>"]
    assert starts["llama2"] == ["<s>"] and starts["qwen"] == starts["unigram"] == []
    llama, qwen, gemma = words["llama3"], words["qwen"], words["gemma"]
    assert [llama._backend.id_to_token(i) for i in llama.stop_ids] == [
        "<|eot_id|>",
        "<|end_of_text|>",
    ]
    assert len(qwen.stop_ids) == 2 and qwen.stop_ids[1] == qwen.pad_id
    ids = llama.encode("one")
    for stop in llama.stop_ids:
        assert llama.decode([*ids, stop, *ids]) == "one"
    # Id 0 is text in byte-level vocabularies, and padding in Gemma's.
    assert llama.pad_id is None and llama.decode([0, *ids]) == llama.decode([0]) + "one" != "one"
    assert gemma.pad_id == 0 and gemma.decode([0, *gemma.encode("one"), 0]) == "one"
    assert llama.unk_id is qwen.unk_id is None and gemma.unk_id == 3


def test_worked_example(folders):
    qwen = load_vocabulary(str(folders["qwen"] / "tokenizer.json"))
    assert qwen is load_vocabulary(str(folders["qwen"]))
    end = qwen.encode("<|im_end|>")
    assert end == [qwen.eos_id]
    assert qwen.encode("a<|im_end|>b") == [*qwen.encode("a"), *end, *qwen.encode("b")]
    assert [qwen.decode([number]) for number in qwen.encode("12")] == ["1", "2"]
    llama = load_vocabulary(str(folders["llama3"]))
    assert pickle.loads(pickle.dumps(llama)).encode("12") == llama.encode("12")
    assert llama.decode([9999, *llama.encode("x"), -1]) == "x"


def test_tokens_of_tokenizer_config_are_added_and_counted(folders, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((folders["llama3"] / "tokenizer.json").read_bytes())
    settings = json.loads((folders["llama3"] / "tokenizer_config.json").read_text())
    plain = load_vocabulary(str(folders["llama3"]))
    settings |= {"extra_special_tokens": ["<sep>"], "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = load_vocabulary(str(folder))
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    text = "a<sep>b<|pad|>"
    assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert ours.vocab_size == len(theirs) == plain.vocab_size + 2
    assert ours.fingerprint != plain.fingerprint and ours.stop_ids == (ours.eos_id,)


def test_tokens_that_stand_for_images_are_not_text(folders, tmp_path):
    """Gemma 3's <image_soft_token> has the id after the last row of the 1B model's embedding."""
    folder = shutil.copytree(folders["gemma"], tmp_path / "gemma3")
    plain = load_vocabulary(str(folders["gemma"]))
    content = json.loads((folder / "tokenizer.json").read_text())
    entry = content["added_tokens"][0] | {"id": plain.vocab_size, "content": "<image_soft_token>"}
    content["added_tokens"].append(entry)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert load_vocabulary(str(folder)).vocab_size == plain.vocab_size + 1
    settings["extra_special_tokens"] = {"image_token": "<image_soft_token>"}
    fields = ("content", "special", "normalized", "lstrip", "rstrip", "single_word")
    settings["added_tokens_decoder"] = {
        str(token["id"]): {name: token[name] for name in fields}
        for token in content["added_tokens"]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    words = load_vocabulary(str(shutil.copytree(folder, tmp_path / "named")))
    assert words.vocab_size == plain.vocab_size
    assert words.decode(words.encode("a<image_soft_token>")) == "a<image_soft_token>"


def test_seqio_gets_the_same_ids(folders):
    ours, theirs = load_vocabulary(str(folders["gemma"])), seqio_vocabulary(str(folders["gemma"]))
    assert from_seqio(theirs) == ours.spec and theirs.vocab_size == ours.vocab_size
    for text in LINES:
        assert theirs.encode_tf(text).numpy().tolist() == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": None}, "names no eos_token"),
        ({"added_tokens_decoder": {"3": {"content": "<new>"}}}, "declares '<new>' as 3"),
        ({"eos_token": 7}, "names no eos_token"),
    ],
)
def test_wrong_settings_are_refused_by_name(folders, tmp_path, changes, message):
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((folders["qwen"] / "tokenizer.json").read_bytes())
    settings = json.loads((folders["qwen"] / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(UserError, match=message):
        load_vocabulary(str(folder))


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Nothing"}}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(UserError, match="is not a tokenizer that the library"):
        load_vocabulary(str(tmp_path))


def test_a_setting_that_tokenizer_json_overrules_is_warned_of(folders, tmp_path, caplog):
    folder = tmp_path / "bos"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((folders["qwen"] / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "add_bos_token": True})
    )
    assert load_vocabulary(str(folder)).start_ids == ()
    assert "add_bos_token is True, but tokenizer.json starts a text with no token" in caplog.text


@pytest.mark.parametrize("place", ["chat_template.jinja", "settings", "named"])
@pytest.mark.parametrize(("kind", "form"), [("llama3", "llama3"), ("qwen", "chatml")])
def test_chat_template_of_a_folder(folders, tmp_path, kind, form, place):
    transformers = pytest.importorskip("transformers")
    folder = shutil.copytree(folders[kind], tmp_path / "folder")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    if place == "chat_template.jinja":
        (folder / place).write_text(FORMS[form])
        settings["chat_template"] = "not this one"
    else:
        named = [{"name": "tool_use", "template": ""}, {"name": "default", "template": FORMS[form]}]
        settings["chat_template"] = named if place == "named" else FORMS[form]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = load_vocabulary(str(folder))
    chat = chat_template(ours)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    assert chat.render(TALK) == theirs.apply_chat_template(list(TALK), tokenize=False)
    # What starts a sequence is in their text, and in ours the layout's.
    ids = theirs.apply_chat_template(list(TALK), return_dict=False)
    assert [*ours.start_ids, *ours.encode(chat.dialog(TALK)[0])] == ids
    prompt, answer = chat.prompt("Hi"), chat.answer("Hello.")
    assert ours.encode(answer)[-1] == ours.eos_id and ours.decode(ours.encode(answer)) == "Hello."
    assert not set(ours.start_ids) & set(ours.encode(prompt))


def test_the_end_of_a_turn_ends_an_answer(folders, tmp_path):
    """Base models of Qwen have the chat template and another end of sequence."""
    folder = shutil.copytree(folders["qwen"], tmp_path / "base")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"eos_token": "<|endoftext|>"})
    )
    (folder / "generation_config.json").write_text("{}")
    plain = load_vocabulary(str(folder))
    assert plain.stop_ids == (plain.eos_id,)
    (folder / "chat_template.jinja").write_text(FORMS["chatml"])
    chat = load_vocabulary(str(shutil.copytree(folder, tmp_path / "chat")))
    assert chat.stop_ids == (plain.eos_id, *chat.encode("<|im_end|>"))
    frame = Frame(chat, chat.start_ids, chat=chat_template(chat))
    assert frame.answer("yes") == chat.encode("yes<|im_end|>")
    # An end of turn that is no token, and a template that cannot be read.
    (folder / "chat_template.jinja").write_text(FORMS["llama3"])
    other = load_vocabulary(str(shutil.copytree(folder, tmp_path / "other")))
    assert other.stop_ids == plain.stop_ids
    frame = Frame(other, chat=chat_template(other))
    assert frame.answer("yes") == [*other.encode("yes<|eot_id|>"), other.eos_id]
    (folder / "chat_template.jinja").write_text("{% for")
    broken = load_vocabulary(str(shutil.copytree(folder, tmp_path / "broken")))
    assert broken.stop_ids == plain.stop_ids
    with pytest.raises(UserError, match="is not valid Jinja"):
        chat_template(broken).prompt("Hi")
