"""Tokenizers of Hugging Face folders, with the ids of transformers' fast tokenizers.

Encoding and decoding are the library `tokenizers`'. Two kinds of folders:

T5's: `spiece.model` (or `tokenizer.json`, which has priority), of class T5Tokenizer. Finetuners add
tokens (`{`, `<sep>`) in several files; `read_tokenizer` merges them as transformers 5 does. A token
that is `normalized` matches normalized text, so "\\n" is a blank there, and matches every blank.

All others (byte-level BPE of Llama 3 and Qwen, BPE with byte fallback of Gemma and Llama 2, ...):
`tokenizer.json` as it is: normalizer, pre-tokenizer, model, decoder. Its post-processor says what
starts a sequence.

    tokenizer_config.json      eos_token and the other named tokens, added_tokens_decoder,
                               extra_special_tokens, chat_template, extra_ids (T5), ...
    special_tokens_map.json    \\ read if there is no added_tokens_decoder
    added_tokens.json          /
    generation_config.json     eos_token_id: one or several ids that end an answer
    chat_template.jinja        instead of tokenizer_config.json's
"""

import base64
import binascii
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from instruct.errors import UserError
from instruct.packed_files import refuse_pointer
from instruct.prompts.chat_template import ChatTemplate

PIECES, SETTINGS, FAST = "spiece.model", "tokenizer_config.json", "tokenizer.json"
MODEL = "tokenizer.model"  # SentencePiece pieces of Llama 2 and Gemma
_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
_CHAT, _GENERATION = "chat_template.jinja", "generation_config.json"
TOKENIZER_FILES = (PIECES, MODEL, SETTINGS, _MAP, _ADDED, FAST, _CHAT)
DEFAULT_EXTRA_IDS = 100
_BYT5_EXTRA_IDS = 125
_UNK_ID = 2
# In the order in which transformers gives new ones their ids.
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# Stand for vectors of another encoder: text never has them, nor Gemma 3 1B's embedding a row.
_NOT_TEXT = ("image_token", "audio_token", "video_token")
_DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
# Lists and tables of tokens in the files -> their types.
_LISTS = {
    **{"added_tokens_decoder": dict, "added_tokens": list, "additional_special_tokens": list},
    "extra_special_tokens": (list, dict),
}
# Of an added token: skipped in decoding; matches normalized text; matches include blanks before and
# after; it does not match next to a letter, digit or underscore.
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
_SENTINEL = re.compile(r"<extra_id_([0-9]+)>")
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
_CONTROL, _USER_DEFINED = 3, 4
# Generated code, whose names no type checker sees.
_ModelProto = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"))
_CLEAN_UP += ((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class T5Tokenizer:
    """The contents of a T5 folder's files: pieces with scores, and added tokens by id."""

    pieces: Sequence[tuple[str, float]]
    charsmap: bytes  # SentencePiece's normalization rules; b"" for none
    added: Mapping[int, AddedToken]
    eos_id: int
    pad_id: int
    clean_up: bool  # decoding removes the blanks before punctuation

    def fingerprint(self) -> str:
        """Hash of everything that changes an id or a decoded text."""
        added = [(number, _facts(token)) for number, token in sorted(self.added.items())]
        facts = [list(map(list, self.pieces)), self.charsmap.hex(), added]
        text = json.dumps([*facts, self.eos_id, self.clean_up])
        return hashlib.sha256(text.encode()).hexdigest()

    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer that transformers' T5Tokenizer makes: Unigram over words."""
        pieces = [(piece, score) for piece, score in self.pieces]
        backend = tokenizers.Tokenizer(models.Unigram(pieces, _UNK_ID, False))
        if self.charsmap:
            backend.normalizer = normalizers.Precompiled(self.charsmap)
        steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
        backend.decoder = decoders.Metaspace()
        backend.add_tokens([token for _, token in sorted(self.added.items())])
        return backend


def folder_vocabulary(folder: Path) -> str | None:
    """Specification (see `vocab.py`) of a Hugging Face folder's vocabulary, None if unsupported.

    The folder itself if it has added tokens or no `spiece.model`, else this file; `tokenizer.model`
    if that alone is there. The
    number of sentinels is `extra_ids` of tokenizer_config.json, else that of its `<extra_id_n>`,
    else T5's 100.

    Raises:
        UserError: a file is damaged, or tokens were added in an unsupported way.
    """
    settings = _read_object(folder / SETTINGS)
    if "ByT5" in str(settings.get("tokenizer_class", "")):
        sentinels = _extra_ids(settings, _BYT5_EXTRA_IDS)
        if added := _mentioned(folder, sentinels):
            raise UserError(
                f"{folder} adds {listed_tokens(added)} to ByT5's bytes, which is not supported. "
                "Use a folder without them, or another vocabulary (VOCABULARY)."
            )
        return f"bytes#extra_ids={sentinels}"
    sentinels = _extra_ids(settings, DEFAULT_EXTRA_IDS)
    if (folder / PIECES).exists():
        if _mentioned(folder, sentinels) and _is_extended(read_tokenizer(folder)):
            return str(folder)
        return f"{folder / PIECES}#extra_ids={sentinels}"
    if (folder / FAST).exists():
        refuse_pointer(folder / FAST)
        return str(folder)
    return str(folder / MODEL) if (folder / MODEL).exists() else None


def tokens_beside_pieces(folder: Path) -> list[str]:
    """Added tokens of a folder that its SentencePiece model does not have."""
    mentioned = _mentioned(folder, _extra_ids(_read_object(folder / SETTINGS), DEFAULT_EXTRA_IDS))
    try:
        return mentioned if mentioned and _is_extended(read_tokenizer(folder)) else []
    except UserError:
        return mentioned


def listed_tokens(texts: Sequence[str]) -> str:
    """'the tokens '{', '}' and 5 more'."""
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f"the tokens {', '.join(map(repr, texts[:8]))}{more}"


def _is_t5(folder: Path) -> bool:
    """Whether a folder's tokenizer is of class T5Tokenizer, whose steps tokenizer.json lacks."""
    name = str(_read_object(folder / SETTINGS).get("tokenizer_class", "T5Tokenizer"))
    if name.removesuffix("Fast") not in ("T5Tokenizer", "MT5Tokenizer"):
        return False
    model = _read_object(folder / FAST).get("model", {"type": "Unigram"})
    return isinstance(model, dict) and model.get("type") == "Unigram"


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} if the file does not exist."""
    refuse_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    if path.name != _ADDED:  # whose names are texts of tokens
        _check_lists(path, value)
    return value


def _check_lists(path: Path, settings: Mapping[str, Any]) -> None:
    """Raises UserError if a list or table of tokens is something else."""
    for name, kinds in _LISTS.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, kinds):
            raise UserError(f"{path}: {name} is {str(value)[:80]!r}, no tokens. Copy it again.")
    entries = settings.get("added_tokens") or []
    if not all(isinstance(entry, dict) and type(entry.get("id")) is int for entry in entries):
        raise UserError(f"{path}: an entry of added_tokens is no token with an id. Copy it again.")


def _extra_ids(settings: Mapping[str, Any], default: int) -> int:
    explicit = settings.get("extra_ids")
    if type(explicit) is int and 0 <= explicit <= 100_000:
        return explicit
    listed = settings.get("additional_special_tokens")
    if isinstance(listed, list) and listed:
        return sum("extra_id_" in json.dumps(token) for token in listed)
    return default


def _mentioned(folder: Path, sentinels: int) -> list[str]:
    """Added tokens in any of the files, except T5's own three and its sentinels."""
    settings = _read_object(folder / SETTINGS)
    texts: list[str] = list(_read_object(folder / _ADDED))
    for source in (settings, _read_object(folder / _MAP)):
        values = [value for name, value in source.items() if name.endswith("_token")]
        for name in ("additional_special_tokens", "extra_special_tokens"):
            listed = source.get(name) or []
            values += listed.values() if isinstance(listed, dict) else listed
        values += (source.get("added_tokens_decoder") or {}).values()
        texts += [_content(value) for value in values if isinstance(value, str | dict)]
    if (folder / PIECES).exists():
        texts += map(_content, _read_object(folder / FAST).get("added_tokens") or [])
    own = {*_DEFAULTS.values(), *(f"<extra_id_{number}>" for number in range(sentinels))}
    return [text for text in dict.fromkeys(texts) if text not in own]


def _content(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _is_extended(tokenizer: T5Tokenizer) -> bool:
    """Whether there are added tokens that the SentencePiece model does not have."""
    own = {name for name, score in tokenizer.pieces if score == 0 or _SENTINEL.fullmatch(name)}
    size = len(tokenizer.pieces)
    return any(number >= size or t.content not in own for number, t in tokenizer.added.items())


def _token(value: Any, place: Path, **changes: Any) -> AddedToken:
    """An added token from JSON: its text (a special token), or an object with its flags."""
    if isinstance(value, str):
        value = {"content": value, "special": True, "normalized": False}
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise UserError(f"{place}: {str(value)[:80]!r} is not an added token. Copy the file again.")
    flags = {name: value[name] for name in _FLAGS if name in value} | changes
    if not all(type(flag) is bool for flag in flags.values()):
        raise UserError(f"{place}: a flag of {value['content']!r} is not true or false.")
    flags.setdefault("normalized", not flags.get("special", False))
    return AddedToken(value["content"], **flags)


def _facts(token: AddedToken) -> list[Any]:
    """All that decides what a token does."""
    return [token.content, *(getattr(token, name) for name in _FLAGS)]


def read_tokenizer(folder: Path) -> T5Tokenizer:
    """Reads a folder's tokenizer like transformers 5.

    Raises:
        UserError: a file is damaged or has an unsupported setting.
    """
    place = folder / SETTINGS
    settings = _read_object(place)
    if settings.get("split_special_tokens"):
        raise UserError(f"{place}: split_special_tokens is not supported; remove it.")
    if "additional_special_tokens" in settings and not settings.get("extra_special_tokens"):
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    declared = _declared_tokens(folder, settings)
    pieces, charsmap, own = _read_pieces(folder, settings)
    named, extra = _DEFAULTS | _named_tokens(settings), settings.get("extra_special_tokens", own)
    listed = [] if isinstance(extra, dict) else extra or []
    order = [*(name for name in _NAMED if name in named), *(n for n in named if n not in _NAMED)]
    specials = {name: _token(named[name], place, special=True) for name in order}
    tokens = {token.content: token for _, token in sorted(declared.items())}
    for token in [*specials.values(), *(_token(value, place) for value in listed)]:
        tokens.setdefault(token.content, token)
    for token in specials.values():
        tokens[token.content].special = True
    numbers = {piece: number for number, (piece, _) in enumerate(pieces)}
    for text in tokens:
        if text:
            numbers.setdefault(text, len(numbers))
    for name in ("eos_token", "pad_token"):
        if specials[name].content not in numbers:
            raise UserError(f"{place}: {name} is empty; name the token, or leave it out.")
    ids = [(token.content, number) for number, token in declared.items()]
    moved = [(text, number) for text, number in ids if numbers.get(text) != number]
    if moved:
        text, number = moved[0]
        raise UserError(
            f"{folder} declares {listed_tokens([text for text, _ in moved])} with ids that do not "
            f"follow its {len(pieces):,} pieces: {text!r} is {number}, and transformers 5 reads it "
            f"as {numbers.get(text)}. The weights may use either; save the tokenizer again with "
            "the version of transformers that the model was trained with."
        )
    return T5Tokenizer(
        pieces=pieces,
        charsmap=charsmap,
        added={numbers[text]: token for text, token in tokens.items() if text},
        eos_id=numbers[specials["eos_token"].content],
        pad_id=numbers[specials["pad_token"].content],
        clean_up=settings.get("clean_up_tokenization_spaces") is True,
    )


def _declared_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Added tokens by the ids in the files; merges older files into `settings`."""
    place = folder / SETTINGS
    if "added_tokens_decoder" in settings:
        entries = settings["added_tokens_decoder"]
        if entries is None or not all(str(n).isdecimal() for n in entries):
            raise UserError(
                f"{place}: added_tokens_decoder does not map ids to tokens. Copy it again."
            )
        return {int(number): _token(value, place) for number, value in entries.items()}
    for name, value in _read_object(folder / _MAP).items():
        if isinstance(value, dict) and name != "extra_special_tokens":
            value = value | {"special": True}
        elif name == "extra_special_tokens" and isinstance(value, list):
            value = [*(settings.get(name) or []), *value]
        settings[name] = value
    specials = {_content(settings[name]) for name in _NAMED if settings.get(name)}
    specials |= {_content(value) for value in settings.get("extra_special_tokens") or []}
    declared = {}
    for text, number in _read_object(folder / _ADDED).items():
        if type(number) is not int or number < 0:
            raise UserError(f"{folder / _ADDED}: {text!r} has the id {number!r}. Copy it again.")
        special = text in specials
        declared[number] = AddedToken(text, special=special, normalized=not special)
    for entry in _read_object(folder / FAST).get("added_tokens") or []:
        declared[entry["id"]] = _token(entry, folder / FAST)
    return declared


def _read_pieces(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[list[tuple[str, float]], bytes, list[Any]]:
    """(pieces with scores, normalization rules, added tokens of the model itself)."""
    sentinels = settings.get("extra_ids", DEFAULT_EXTRA_IDS)
    if type(sentinels) is not int or not 0 <= sentinels <= 100_000:
        raise UserError(
            f"{folder / SETTINGS}: extra_ids is {sentinels!r}; use a number up to 100,000."
        )
    names = [f"<extra_id_{number}>" for number in range(sentinels)]
    if (folder / FAST).exists():
        pieces, charsmap = _pieces_of_json(folder / FAST)
        own = settings.get("additional_special_tokens")
    else:
        model = read_model(str(folder), folder / PIECES)
        pieces = [(piece.piece, piece.score) for piece in model.pieces]
        pieces += [(name, 0.0) for name in reversed(names)]
        charsmap = model.normalizer_spec.precompiled_charsmap
        own = [
            {"content": piece.piece, "special": piece.type == _CONTROL, "normalized": False}
            for piece in model.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ]
    if len(pieces) <= _UNK_ID or len(dict(pieces)) != len(pieces):
        raise UserError(f"{folder} has too few pieces, or a piece twice. Copy it again.")
    own = list(own or [])
    listed = sum("<extra_id_" in _content(value) for value in own)
    if listed and sentinels and listed != sentinels:
        raise UserError(
            f"{folder} lists {listed} sentinels (additional_special_tokens), but extra_ids is "
            f"{sentinels}. transformers refuses this too; correct one of them."
        )
    return pieces, charsmap, own if listed else own + names


def _pieces_of_json(path: Path) -> tuple[list[tuple[str, float]], bytes]:
    content = _read_object(path)
    try:
        vocabulary = content["model"]["vocab"]
        pieces = [(str(piece), float(score)) for piece, score in vocabulary]
        steps = content.get("normalizer") or {}
        steps = steps["normalizers"] if steps.get("type") == "Sequence" else [steps]
        maps = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
        return pieces, base64.b64decode(maps[0]) if maps and maps[0] else b""
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise UserError(
            f"{path} does not hold a Unigram tokenizer like T5's ({str(error)[:80]}). Copy "
            f"{PIECES} to its folder, or set another vocabulary (VOCABULARY)."
        ) from error


def read_model(spec: str, path: Path) -> Any:
    """The protocol buffer of a SentencePiece model.

    Raises:
        UserError: the file does not exist, or is not such a model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = " After '#' only 'extra_ids=N' is an option." if "#" in path.name else ""
        raise UserError(
            f"cannot read vocabulary {spec!r}: {path}: {error.strerror}. "
            "Allowed: 'bytes', 'gym', the path of a SentencePiece model, or a Hugging Face folder."
            + hint
        ) from error
    refuse_pointer(path, data)
    model = _ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise UserError(f"vocabulary {spec!r}: {path} is not a SentencePiece model") from error
    if not model.pieces:
        raise UserError(f"vocabulary {spec!r}: {path} is not a SentencePiece model (no pieces)")
    return model


class HuggingFaceVocabulary:
    """A `Vocabulary` (see `vocab.py`) of a Hugging Face folder, named by it."""

    eos_id: int
    pad_id: int | None
    unk_id: int | None
    start_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    fingerprint: str
    chat_template: ChatTemplate | None

    def __init__(self, spec: str) -> None:
        folder = Path(spec).expanduser()
        self.spec = spec
        if _is_t5(folder):
            self._open_t5(folder)
        else:
            self._open_json(folder)
        self.vocab_size = max(self._backend.get_vocab().values()) + 1

    def _open_t5(self, folder: Path) -> None:
        tokenizer = read_tokenizer(folder)
        if tokenizer.pad_id != 0:
            raise UserError(
                f"{folder}: pad_token has the id {tokenizer.pad_id}; this program pads with 0."
            )
        self._backend = tokenizer.backend()
        self.pad_id, self.unk_id, self.start_ids = 0, _UNK_ID, (0,)
        self.eos_id, self.stop_ids = tokenizer.eos_id, (tokenizer.eos_id,)
        self.chat_template = _chat_template(folder, _read_object(folder / SETTINGS))
        self.fingerprint = tokenizer.fingerprint()
        self._clean_up = tokenizer.clean_up

    def _open_json(self, folder: Path) -> None:
        settings, content = _read_object(folder / SETTINGS), _read_object(folder / FAST)
        declared = _declared_tokens(folder, settings)
        named = _named_tokens(settings)
        not_text = {_content(named.pop(name)) for name in _NOT_TEXT if name in named}
        entries = content.get("added_tokens") or []
        content["added_tokens"] = [entry for entry in entries if _content(entry) not in not_text]
        text = json.dumps(content)
        self._backend = backend = _open_backend(folder / FAST, text)
        known = {token.content for token in backend.get_added_tokens_decoder().values()} | not_text
        tokens = [token for _, token in sorted(declared.items())]
        for value in [*named.values(), *_listed_tokens(settings)]:
            tokens.append(_token(value, folder / SETTINGS, special=True))
        added = [token for token in tokens if token.content not in known]
        backend.add_tokens(added)
        for number, token in declared.items():
            if token.content in not_text:
                continue
            if (actual := backend.token_to_id(token.content)) != number:
                raise UserError(
                    f"{folder} declares {token.content!r} as {number}, and {FAST} gives it the id "
                    f"{actual}. The weights may use either; save the tokenizer again."
                )
        if "eos_token" not in named:
            raise UserError(
                f"{folder / SETTINGS} names no eos_token, which training needs. Add it, for "
                'example "eos_token": "</s>".'
            )
        numbers = backend.get_vocab()
        self.eos_id = numbers[_content(named["eos_token"])]
        self.pad_id = numbers[_content(named["pad_token"])] if "pad_token" in named else None
        ends = _read_object(folder / _GENERATION).get("eos_token_id")
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if not all(type(number) is int for number in ends):
            raise UserError(f"{folder / _GENERATION}: eos_token_id is {ends}, not token ids.")
        self.start_ids = _start_ids(backend, settings, folder)
        start = "".join(str(backend.id_to_token(number)) for number in self.start_ids)
        self.chat_template = _chat_template(folder, settings, start)
        end = self.encode(_end_of_turn(self.chat_template))
        ends += end if len(end) == 1 else []
        self.stop_ids = tuple(dict.fromkeys([self.eos_id, *ends]))
        model = content["model"]
        unknown = model.get("unk_token")
        self.unk_id = model.get("unk_id") if unknown is None else backend.token_to_id(unknown)
        facts = [list(map(_facts, added)), self.stop_ids, self.start_ids]
        self.fingerprint = hashlib.sha256((text + json.dumps(facts)).encode()).hexdigest()
        self._clean_up = settings.get("clean_up_tokenization_spaces") is True
        self._clean_up &= not isinstance(backend.model, models.BPE)  # as transformers 5

    def __reduce__(self):
        return open_vocabulary, (self.spec,)

    def encode(self, text: str, /) -> list[int]:
        """Token ids without EOS and what starts a sequence; special tokens in the text are read."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_array(self, text: str, /) -> "array[int]":
        """`encode` as array("i")."""
        return array("i", self.encode(text))

    def decode(self, ids: Iterable[int], /) -> str:
        """Text up to the first of `stop_ids`, without padding, special tokens and unknown ids."""
        until_stop = itertools.takewhile(lambda token: token not in self.stop_ids, map(int, ids))
        kept = [i for i in until_stop if 0 <= i < self.vocab_size and i != self.pad_id]
        text = self._backend.decode(kept, skip_special_tokens=True)
        for before, after in _CLEAN_UP if self._clean_up else ():
            text = text.replace(before, after)
        return text

    def settled(self, ids: Sequence[int], /) -> int:
        """How many ids from the first on have a text that no later id can change.

        Llama 2's and Gemma's tokenizers write rare characters as tokens of single bytes, and decode
        a run of these to signs of replacement, whole characters too, as long as its end is half a
        character. What decoding leaves out does not end a run.
        """
        count = len(ids)
        while count and int(ids[count - 1]) in self._run_ids:
            count -= 1
        return count

    @functools.cached_property
    def _run_ids(self) -> frozenset[int]:
        """Ids of byte tokens and special tokens; none without byte tokens."""
        vocabulary = self._backend.get_vocab()
        of_bytes = {i for token, i in vocabulary.items() if _BYTE_TOKEN.fullmatch(token)}
        added = self._backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        return frozenset(of_bytes | special if of_bytes else ())


def _named_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    """bos_token, eos_token, ... -> text or object of tokenizer_config.json."""
    named = {name: value for name, value in settings.items() if name.endswith("_token")}
    extra = settings.get("extra_special_tokens")
    named |= extra if isinstance(extra, dict) else {}
    return {name: value for name, value in named.items() if isinstance(value, str | dict)}


def _listed_tokens(settings: Mapping[str, Any]) -> list[Any]:
    """Special tokens that tokenizer_config.json lists without a name."""
    listed = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    return listed if isinstance(listed, list) else []


def _open_backend(path: Path, content: str) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises no narrower class
        raise UserError(
            f"{path} is not a tokenizer that the library `tokenizers` {tokenizers.__version__} "
            f"reads ({str(error)[:120]}). Copy it again, or set another vocabulary (VOCABULARY)."
        ) from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _start_ids(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], folder: Path
) -> tuple[int, ...]:
    """Ids that the post-processor puts before a text."""
    encoding = backend.encode("a")
    pairs = itertools.takewhile(
        lambda pair: pair[1] is None, zip(encoding.ids, encoding.sequence_ids)
    )
    start_ids = tuple(token for token, _ in pairs)
    setting = settings.get("add_bos_token")
    if isinstance(setting, bool) and setting != bool(start_ids):
        _log.warning(
            "%s: add_bos_token is %s, but %s starts a text with %s, which counts (as in "
            "transformers 5)",
            *(folder / SETTINGS, setting, FAST, list(start_ids) or "no token"),
        )
    return start_ids


def _end_of_turn(template: ChatTemplate | None) -> str:
    try:
        return template.end_of_turn if template else ""
    except UserError:  # a template that is not used may be damaged
        return ""


def _chat_template(
    folder: Path, settings: Mapping[str, Any], start: str = ""
) -> ChatTemplate | None:
    """The chat template of a folder: chat_template.jinja, else tokenizer_config.json's."""
    try:
        source = (folder / _CHAT).read_text(encoding="utf-8")
    except FileNotFoundError:
        source = settings.get("chat_template")
    if isinstance(source, list):  # several by name
        named = {e.get("name"): e.get("template") for e in source if isinstance(e, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    named = {name: _content(value) for name, value in _named_tokens(settings).items()}
    return ChatTemplate(source, tuple(sorted(named.items())), start, str(folder))


@functools.lru_cache(maxsize=4)
def open_vocabulary(spec: str) -> HuggingFaceVocabulary:
    """The vocabulary of a folder for which `folder_vocabulary` returns the folder itself."""
    return HuggingFaceVocabulary(spec)
