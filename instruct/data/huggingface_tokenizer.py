"""Tokenizers of Hugging Face folders to which tokens were added, with the ids of transformers 5.

A finetuner adds tokens (`{`, `<sep>`) behind the pieces of a SentencePiece model. Which, and with
which flags, is spread over several files; `read_tokenizer` merges them as transformers' T5Tokenizer
does (its only one since version 5, built on the library `tokenizers`; version 4's slow one differed
in blanks around added tokens):

    spiece.model               the pieces; or tokenizer.json, which counts if it is there
    tokenizer_config.json      added_tokens_decoder, extra_special_tokens, eos_token, extra_ids, ...
    special_tokens_map.json    \\ read if there is no added_tokens_decoder
    added_tokens.json          /

Encoding cuts the text at added tokens (of several at one place the longest), first at those that
are matched in the text as it is, then, in what is left, normalised, at the others; every stretch in
between is encoded separately. So a normalised token "\\n" is a blank, and matches every blank.
"""

import base64
import binascii
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from instruct.errors import UserError
from instruct.packed_files import refuse_pointer

PIECES, SETTINGS, FAST = "spiece.model", "tokenizer_config.json", "tokenizer.json"
_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
TOKENIZER_FILES = (PIECES, SETTINGS, _MAP, _ADDED, FAST)
DEFAULT_EXTRA_IDS = 100
_BYT5_EXTRA_IDS = 125
_UNK_ID = 2
# In transformers' order, in which those that are new get their ids.
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_SENTINEL = re.compile(r"<extra_id_([0-9]+)>")
_CONTROL, _USER_DEFINED = 3, 4
# Generated code, whose names no type checker sees.
_ModelProto = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"))
_CLEAN_UP += ((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that text is cut at.

    Attributes:
        content: its text.
        special: left out in decoding.
        normalized: matched in normalised text.
        lstrip, rstrip: blanks before and after it are part of it.
        single_word: does not match beside a letter, digit or underscore.
    """

    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """What the files of a folder say: pieces with their scores, and added tokens by id."""

    pieces: Sequence[tuple[str, float]]
    charsmap: bytes  # SentencePiece's normalisation rules; b"": none
    added: Mapping[int, AddedToken]
    eos_id: int
    pad_id: int
    clean_up: bool  # decoding removes the blanks before punctuation

    def fingerprint(self) -> str:
        """Changes with every file content that changes an id or a decoded text."""
        added = {number: dataclasses.astuple(token) for number, token in self.added.items()}
        facts = [list(map(list, self.pieces)), self.charsmap.hex(), sorted(added.items())]
        text = json.dumps([*facts, self.eos_id, self.clean_up])
        return hashlib.sha256(text.encode()).hexdigest()


def folder_vocabulary(folder: Path) -> str | None:
    """Specification (see `vocab.py`) of a Hugging Face folder's vocabulary; None: none is read.

    The folder itself where tokens were added, or where tokenizer.json is all there is; else its
    `spiece.model` with as many sentinels as `extra_ids` of tokenizer_config.json says, without
    that as many `<extra_id_n>` as it lists, else T5's 100.

    Raises:
        UserError: a file is damaged, or tokens were added in a way that is not followed.
    """
    settings = _read_object(folder / SETTINGS)
    if "ByT5" in str(settings.get("tokenizer_class", "")):
        sentinels = _extra_ids(settings, _BYT5_EXTRA_IDS)
        if added := _mentioned(folder, sentinels):
            raise UserError(
                f"{folder} adds {listed_tokens(added)} to ByT5's bytes; tokens that were added to "
                "bytes are not read. Use a folder without them, or another vocabulary (VOCABULARY)."
            )
        return f"bytes#extra_ids={sentinels}"
    sentinels = _extra_ids(settings, DEFAULT_EXTRA_IDS)
    if (folder / PIECES).exists():
        if _mentioned(folder, sentinels) and _is_extended(read_tokenizer(folder)):
            return str(folder)
        return f"{folder / PIECES}#extra_ids={sentinels}"
    return str(folder) if (folder / FAST).exists() and unread_kind(folder) is None else None


def tokens_beside_pieces(folder: Path) -> list[str]:
    """Added tokens of a folder, which its SentencePiece model alone does not have."""
    mentioned = _mentioned(folder, _extra_ids(_read_object(folder / SETTINGS), DEFAULT_EXTRA_IDS))
    try:
        return mentioned if mentioned and _is_extended(read_tokenizer(folder)) else []
    except UserError:
        return mentioned


def listed_tokens(texts: Sequence[str]) -> str:
    """'the tokens '{', '}' and 5 more'."""
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return f"the tokens {', '.join(map(repr, texts[:8]))}{more}"


def unread_kind(folder: Path) -> str | None:
    """What kind of tokenizer a tokenizer.json describes, if it is none that is read here."""
    content = _read_object(folder / FAST)
    model = content.get("model")
    kind = model.get("type", "unknown") if isinstance(model, dict) else "unknown"
    # transformers builds T5Tokenizer's steps anew; other classes have those of the file.
    wanted = str(_read_object(folder / SETTINGS).get("tokenizer_class", "T5Tokenizer"))
    if kind == "Unigram" and wanted.removesuffix("Fast") in ("T5Tokenizer", "MT5Tokenizer"):
        return None
    return f"{kind} of class {wanted}"


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} if there is no such file."""
    refuse_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object but {type(value).__name__}.")
    return value


def _extra_ids(settings: Mapping[str, Any], default: int) -> int:
    explicit = settings.get("extra_ids")
    if type(explicit) is int and 0 <= explicit <= 100_000:
        return explicit
    listed = settings.get("additional_special_tokens")
    if isinstance(listed, list) and listed:
        return sum("extra_id_" in json.dumps(token) for token in listed)
    return default


def _mentioned(folder: Path, sentinels: int) -> list[str]:
    """Added tokens that any file names, but for T5's own three and its sentinels."""
    settings = _read_object(folder / SETTINGS)
    texts: list[str] = list(_read_object(folder / _ADDED))
    for source in (settings, _read_object(folder / _MAP)):
        values = [value for name, value in source.items() if name.endswith("_token")]
        for name in ("additional_special_tokens", "extra_special_tokens"):
            listed = source.get(name) or []
            values += listed.values() if isinstance(listed, dict) else listed
        values += (source.get("added_tokens_decoder") or {}).values()
        texts += [_content(value) for value in values if isinstance(value, str | dict)]
    if (folder / PIECES).exists():  # else all tokens of the file count anyhow
        texts += [_content(entry) for entry in _read_object(folder / FAST).get("added_tokens", [])]
    own = {*_DEFAULTS.values(), *(f"<extra_id_{number}>" for number in range(sentinels))}
    return [text for text in dict.fromkeys(texts) if text not in own]


def _content(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _is_extended(tokenizer: Tokenizer) -> bool:
    """Whether text meets an added token that the SentencePiece model itself does not have."""
    own = {name for name, score in tokenizer.pieces if score == 0 or _SENTINEL.fullmatch(name)}
    size = len(tokenizer.pieces)
    return any(number >= size or t.content not in own for number, t in tokenizer.added.items())


def _token(value: Any, place: Path, **changes: Any) -> AddedToken:
    """An added token as JSON holds it: its text (a special token), or an object with its flags."""
    if isinstance(value, str):
        value = {"content": value, "special": True, "normalized": False}
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise UserError(f"{place}: {str(value)[:80]!r} is no added token. Copy the file again.")
    flags = {name: value[name] for name in _FLAGS if name in value} | changes
    if not all(type(flag) is bool for flag in flags.values()):
        raise UserError(f"{place}: {value['content']!r} has flags that are not true or false.")
    flags.setdefault("normalized", not flags.get("special", False))
    return AddedToken(value["content"], **flags)


_FLAGS = tuple(field.name for field in dataclasses.fields(AddedToken) if field.name != "content")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that a folder's files describe, as transformers 5 reads them.

    Raises:
        UserError: a file is damaged, or the folder asks for what is not followed here.
    """
    place = folder / SETTINGS
    settings = _read_object(place)
    if settings.get("split_special_tokens"):
        raise UserError(f"{place}: split_special_tokens is not followed here; remove it.")
    if "additional_special_tokens" in settings and not settings.get("extra_special_tokens"):
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    declared = _declared_tokens(folder, settings)
    pieces, charsmap, own = _read_pieces(folder, settings)
    named = _DEFAULTS | {
        name: settings[name]
        for name in sorted(settings, key=lambda name: name not in _NAMED)
        if name.endswith("_token") and isinstance(settings[name], str | dict)
    }
    extra = settings.get("extra_special_tokens", own)
    if isinstance(extra, dict):
        named, extra = named | extra, []
    order = [*(name for name in _NAMED if name in named), *(n for n in named if n not in _NAMED)]
    specials = {name: _token(named[name], place, special=True) for name in order}
    tokens = {token.content: token for _, token in sorted(declared.items())}
    for token in [*specials.values(), *(_token(value, place) for value in extra or [])]:
        tokens.setdefault(token.content, token)
    for token in specials.values():
        tokens[token.content] = dataclasses.replace(tokens[token.content], special=True)
    numbers = {piece: number for number, (piece, _) in enumerate(pieces)}
    for text in tokens:
        if text:
            numbers.setdefault(text, len(numbers))
    moved = [token for number, token in declared.items() if numbers.get(token.content) != number]
    if moved:
        texts = [token.content for token in moved]
        number = next(n for n, token in declared.items() if token is moved[0])
        raise UserError(
            f"{folder} declares {listed_tokens(texts)} with ids that do not follow on its "
            f"{len(pieces):,} pieces: {texts[0]!r} is {number}, and transformers 5 reads it as "
            f"{numbers.get(texts[0])}. Which of them the weights know is not said; save the "
            "tokenizer again with the transformers that the model was trained with."
        )
    return Tokenizer(
        pieces=pieces,
        charsmap=charsmap,
        added={numbers[text]: token for text, token in tokens.items() if text},
        eos_id=numbers[specials["eos_token"].content],
        pad_id=numbers[specials["pad_token"].content],
        clean_up=settings.get("clean_up_tokenization_spaces") is True,
    )


def _declared_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Added tokens with the ids that a file gives them; merges older files into `settings`."""
    place = folder / SETTINGS
    if "added_tokens_decoder" in settings:
        entries = settings["added_tokens_decoder"]
        if not isinstance(entries, dict) or not all(str(n).isdecimal() for n in entries):
            raise UserError(f"{place}: added_tokens_decoder is no object of ids. Copy it again.")
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
    for entry in _read_object(folder / FAST).get("added_tokens", []):
        token = _token(entry, folder / FAST)
        declared[int(entry.get("id", -1))] = token
    return declared


def _read_pieces(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[list[tuple[str, float]], bytes, list[Any]]:
    """(pieces with scores, normalisation rules, tokens that the model itself cuts text at)."""
    sentinels = settings.get("extra_ids", DEFAULT_EXTRA_IDS)
    if type(sentinels) is not int or not 0 <= sentinels <= 100_000:
        raise UserError(f"{folder / SETTINGS}: extra_ids is {sentinels!r}; it must be a number.")
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
        raise UserError(f"{folder}: its pieces are too few, or one occurs twice. Copy it again.")
    own = list(own or [])
    listed = sum("<extra_id_" in _content(value) for value in own)
    if listed and sentinels and listed != sentinels:
        raise UserError(
            f"{folder} lists {listed} sentinels (additional_special_tokens) and says extra_ids "
            f"{sentinels}, which transformers refuses too; correct one of them."
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
            f"{path} describes no Unigram tokenizer as T5's is ({str(error)[:80]}). Copy "
            f"{PIECES} beside it, or name another vocabulary (VOCABULARY)."
        ) from error


def read_model(spec: str, path: Path) -> Any:
    """The protocol buffer of a SentencePiece model.

    Raises:
        UserError: no such file, or it is none.
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


def _unigram_model(tokenizer: Tokenizer) -> bytes:
    """The pieces as a SentencePiece model that splits at blanks, as T5Tokenizer does."""
    model = _ModelProto()
    for number, (piece, score) in enumerate(tokenizer.pieces):
        kind = _ModelProto.SentencePiece
        model.pieces.add(
            piece=piece, score=score, type=kind.UNKNOWN if number == _UNK_ID else kind.NORMAL
        )
    model.trainer_spec.unk_id = _UNK_ID
    model.trainer_spec.unk_piece = tokenizer.pieces[_UNK_ID][0]
    model.normalizer_spec.precompiled_charsmap = tokenizer.charsmap
    return model.SerializeToString(deterministic=True)


class HuggingFaceVocabulary:
    """A `Vocabulary` (see `vocab.py`) with added tokens, named by its folder."""

    unk_id = _UNK_ID

    def __init__(self, spec: str) -> None:
        folder = Path(spec).expanduser()
        tokenizer = read_tokenizer(folder)
        if tokenizer.pad_id != 0:
            raise UserError(
                f"{folder}: pad_token has the id {tokenizer.pad_id}; this program pads with 0."
            )
        self.spec = spec
        self.pad_id, self.eos_id = 0, tokenizer.eos_id
        self.vocab_size = max(len(tokenizer.pieces), *(n + 1 for n in tokenizer.added))
        self.fingerprint = tokenizer.fingerprint()
        self.added = tokenizer.added
        self._clean_up = tokenizer.clean_up
        model = _unigram_model(tokenizer)
        self._pieces = sentencepiece.SentencePieceProcessor()
        self._pieces.LoadFromSerializedProto(model)
        normalizer = sentencepiece.SentencePieceNormalizer(
            model_proto=model,
            add_dummy_prefix=False,
            escape_whitespaces=False,
            remove_extra_whitespaces=False,
        )
        self._normalize: Callable[[str], str] = normalizer.Normalize
        self._texts = [piece for piece, _ in tokenizer.pieces] + [""] * (
            self.vocab_size - len(tokenizer.pieces)
        )
        raw, normalized = {}, {}
        for number, token in tokenizer.added.items():
            text = self._normalize(token.content) if token.normalized else token.content
            self._texts[number] = text
            if text:
                (normalized if token.normalized else raw)[text] = number
        self._cut_raw, self._cut_normalized = self._cutter(raw), self._cutter(normalized)

    def __reduce__(self):
        return open_vocabulary, (self.spec,)

    def _cutter(self, numbers: Mapping[str, int]) -> Callable[[str], list[str | int]]:
        """A function from a text to its stretches and the ids between them."""
        if not numbers:
            return lambda text: [text]
        # Of alternatives the first that matches counts: the longest.
        longest_first = sorted(numbers, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)))
        return functools.partial(_cut, pattern, numbers, self.added)

    def encode(self, text: str, /) -> list[int]:
        """Token ids without EOS."""
        ids: list[int] = []
        for part in self._cut_raw(text):
            if isinstance(part, int):
                ids.append(part)
                continue
            for stretch in self._cut_normalized(self._normalize(part)):
                ids += [stretch] if isinstance(stretch, int) else self._pieces.EncodeAsIds(stretch)
        return ids

    def decode(self, ids: Iterable[int], /) -> str:
        """Text up to the first EOS; padding, special tokens and unknown ids are skipped."""
        texts: list[str] = []
        for number in map(int, ids):
            if number == self.eos_id:
                break
            token = self.added.get(number)
            if 0 < number < self.vocab_size and not (token and token.special):
                texts.append(self._texts[number])
        joined = "".join([texts[0].replace("▁", ""), *texts[1:]]) if texts else ""
        text = joined.replace("▁", " ")
        for before, after in _CLEAN_UP if self._clean_up else ():
            text = text.replace(before, after)
        return text


def _cut(
    pattern: re.Pattern[str],
    numbers: Mapping[str, int],
    added: Mapping[int, AddedToken],
    text: str,
) -> list[str | int]:
    parts: list[str | int] = []
    end = 0
    for match in pattern.finditer(text):
        number = numbers[match[0]]
        token = added[number]
        first, last = match.span()
        beside = text[first - 1 : first] + text[last : last + 1]
        if token.single_word and re.search(r"\w", beside):
            continue
        if token.lstrip:
            first = max(end, len(text[:first].rstrip()))
        if token.rstrip:
            last = len(text) - len(text[last:].lstrip())
        if end < first:
            parts.append(text[end:first])
        parts.append(number)
        end = last
    if end < len(text):
        parts.append(text[end:])
    return parts


@functools.lru_cache(maxsize=4)
def open_vocabulary(spec: str) -> HuggingFaceVocabulary:
    """The vocabulary of a folder for which `folder_vocabulary` gives the folder itself."""
    return HuggingFaceVocabulary(spec)
