"""Tokenizer files of a Hugging Face folder: read as a vocabulary, or made from one."""

import pathlib

from instruct.checkpoints.folders import file_inside, json_bytes
from instruct.data.huggingface_tokenizer import (
    MODEL,
    PIECES,
    SETTINGS,
    TOKENIZER_FILES,
    folder_vocabulary,
)
from instruct.data.vocab import (
    SentencePieceVocabulary,
    load_vocabulary,
    model_path,
    parse_spec,
)


def vocabulary_of(folder: pathlib.Path) -> str | None:
    """`folder_vocabulary`; raises UserError also for a link that leads out of the folder."""
    for name in TOKENIZER_FILES:
        file_inside(folder, name)
    return folder_vocabulary(folder)


def tokenizer_files(vocabulary: str | None) -> dict[str, bytes]:
    """Name -> content of the tokenizer files for our specification; {} for None."""
    if vocabulary is None:
        return {}
    vocabulary = load_vocabulary(vocabulary).spec
    folder = pathlib.Path(vocabulary).expanduser()
    if folder.is_dir():
        paths = [folder / name for name in TOKENIZER_FILES]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}
    words = load_vocabulary(vocabulary)
    if isinstance(words, SentencePieceVocabulary) and words.bos_id is not None:
        return _bos_files(words)
    name, extra_ids = parse_spec(vocabulary)
    is_bytes = name == "bytes"
    files = {} if is_bytes else {PIECES: model_path(vocabulary).read_bytes()}
    tokenizer = "ByT5Tokenizer" if is_bytes else "T5Tokenizer"
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    sentinels = [f"<extra_id_{number}>" for number in range(extra_ids)]
    special_map = special | {"additional_special_tokens": sentinels}
    files["special_tokens_map.json"] = json_bytes(special_map)
    settings = special_map | {"extra_ids": extra_ids, "tokenizer_class": tokenizer}
    files[SETTINGS] = json_bytes(settings)
    return files


def _bos_files(words: SentencePieceVocabulary) -> dict[str, bytes]:
    """The files of a vocabulary like Llama 2's or, if it has a padding piece, Gemma's."""
    names = {"bos": words.bos_id, "eos": words.eos_id, "unk": words.unk_id, "pad": words.pad_id}
    settings = {
        f"{name}_token": words.piece(number) for name, number in names.items() if number is not None
    }
    tokenizer = "LlamaTokenizer" if words.pad_id is None else "GemmaTokenizer"
    settings |= {"add_bos_token": True, "add_eos_token": False, "tokenizer_class": tokenizer}
    return {MODEL: model_path(words.spec).read_bytes(), SETTINGS: json_bytes(settings)}
