"""Tokenizers of Hugging Face folders with added tokens, with the ids of transformers 5.

Finetuners add tokens (`{`, `<sep>`) to the pieces of a SentencePiece model. Several files describe
them; `read_tokenizer` merges these like transformers' T5Tokenizer (the only one since version 5,
based on the library `tokenizers`; the slow one of version 4 treated blanks around added tokens
differently):

    spiece.model               the pieces; or tokenizer.json, which has priority
    tokenizer_config.json      added_tokens_decoder, extra_special_tokens, eos_token, extra_ids, ...
    special_tokens_map.json    \\ read if there is no added_tokens_decoder
    added_tokens.json          /

Encoding splits the text at added tokens (the longest match at each position): first at those that
match raw text, then, in the normalized rest, at the others. Every part in between is encoded
separately. So a normalized token "\\n" is a blank, and matches every blank.
"""

import base64
import binascii
import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# In the order in which transformers gives new ones their ids.
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_SENTINEL = re.compile(r"<extra_id_([0-9]+)>")
_CONTROL, _USER_DEFINED = 3, 4
# Generated code, whose names no type checker sees.
_ModelProto = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"))
_CLEAN_UP += ((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token at which text is split.

    Attributes:
        content: its text.
        special: skipped in decoding.
        normalized: matches normalized text.
        lstrip, rstrip: matches include blanks before and after.
        single_word: does not match next to a letter, digit or underscore.
    """

    content: str
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The contents of a folder's files: pieces with scores, and added tokens by id."""

    pieces: Sequence[tuple[str, float]]
    charsmap: bytes  # SentencePiece's normalization rules; b"" for none
    added: Mapping[int, AddedToken]
    eos_id: int
    pad_id: int
    clean_up: bool  # decoding removes the blanks before punctuation

    def fingerprint(self) -> str:
        """Hash of everything that changes an id or a decoded text."""
        added = {number: dataclasses.astuple(token) for number, token in self.added.items()}
        facts = [list(map(list, self.pieces)), self.charsmap.hex(), sorted(added.items())]
        text = json.dumps([*facts, self.eos_id, self.clean_up])
        return hashlib.sha256(text.encode()).hexdigest()


def folder_vocabulary(folder: Path) -> str | None:
    """Specification (see `vocab.py`) of a Hugging Face folder's vocabulary, None if unsupported.

    The folder itself if it has added tokens or only tokenizer.json, else its `spiece.model`. The
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
    return str(folder) if (folder / FAST).exists() and unread_kind(folder) is None else None


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


def unread_kind(folder: Path) -> str | None:
    """The kind of tokenizer in a tokenizer.json, None if it is supported."""
    model = _read_object(folder / FAST).get("model")
    kind = model.get("type", "unknown") if isinstance(model, dict) else "unknown"
    # For T5Tokenizer, transformers ignores the file's steps; for other classes it uses them.
    name = str(_read_object(folder / SETTINGS).get("tokenizer_class", "T5Tokenizer"))
    supported = name.removesuffix("Fast") in ("T5Tokenizer", "MT5Tokenizer")
    return None if kind == "Unigram" and supported else f"{kind} of class {name}"


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
        texts += [_content(entry) for entry in _read_object(folder / FAST).get("added_tokens", [])]
    own = {*_DEFAULTS.values(), *(f"<extra_id_{number}>" for number in range(sentinels))}
    return [text for text in dict.fromkeys(texts) if text not in own]


def _content(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _is_extended(tokenizer: Tokenizer) -> bool:
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


_FLAGS = tuple(field.name for field in dataclasses.fields(AddedToken) if field.name != "content")


def read_tokenizer(folder: Path) -> Tokenizer:
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
    named = _DEFAULTS | {
        name: settings[name]
        for name in settings
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
    return Tokenizer(
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
        if not isinstance(entries, dict) or not all(str(n).isdecimal() for n in entries):
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
    for entry in _read_object(folder / FAST).get("added_tokens", []):
        declared[int(entry.get("id", -1))] = _token(entry, folder / FAST)
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


def _unigram_model(tokenizer: Tokenizer) -> bytes:
    """The pieces as a SentencePiece model that splits at blanks, like T5Tokenizer."""
    model = _ModelProto()
    for piece, score in tokenizer.pieces:
        model.pieces.add(piece=piece, score=score, type=_ModelProto.SentencePiece.NORMAL)
    model.pieces[_UNK_ID].type = _ModelProto.SentencePiece.UNKNOWN
    model.trainer_spec.unk_id = _UNK_ID
    model.trainer_spec.unk_piece = tokenizer.pieces[_UNK_ID][0]
    model.normalizer_spec.precompiled_charsmap = tokenizer.charsmap
    return model.SerializeToString(deterministic=True)


class HuggingFaceVocabulary:
    """A `Vocabulary` (see `vocab.py`) with added tokens, named by its folder."""

    pad_id, unk_id, start_ids = 0, _UNK_ID, (0,)

    def __init__(self, spec: str) -> None:
        folder = Path(spec).expanduser()
        tokenizer = read_tokenizer(folder)
        if tokenizer.pad_id != 0:
            raise UserError(
                f"{folder}: pad_token has the id {tokenizer.pad_id}; this program pads with 0."
            )
        self.spec = spec
        self.eos_id = tokenizer.eos_id
        self.stop_ids = (tokenizer.eos_id,)
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
        # id -> text of what decoding shows
        self._texts = {number: piece for number, (piece, _) in enumerate(tokenizer.pieces)}
        raw, normalized = {}, {}
        for number, token in tokenizer.added.items():
            text = self._normalize(token.content) if token.normalized else token.content
            self._texts[number] = text
            if token.special:
                del self._texts[number]
            if text:
                (normalized if token.normalized else raw)[text] = number
        self._raw, self._normalized = _pattern(raw), _pattern(normalized)

    def __reduce__(self):
        return open_vocabulary, (self.spec,)

    def encode(self, text: str, /) -> list[int]:
        """Token ids without EOS."""
        ids: list[int] = []
        for part in self._split(text, *self._raw):
            if isinstance(part, int):
                ids.append(part)
                continue
            for inner in self._split(self._normalize(part), *self._normalized):
                ids += [inner] if isinstance(inner, int) else self._pieces.EncodeAsIds(inner)
        return ids

    def decode(self, ids: Iterable[int], /) -> str:
        """Text up to the first EOS, without padding, special tokens and unknown ids."""
        until_eos = itertools.takewhile(lambda number: number != self.eos_id, map(int, ids))
        texts = [self._texts[number] for number in until_eos if number in self._texts]
        text = "".join([texts[0].replace("▁", ""), *texts[1:]]) if texts else ""
        text = text.replace("▁", " ")
        for before, after in _CLEAN_UP if self._clean_up else ():
            text = text.replace(before, after)
        return text

    def _split(
        self, text: str, pattern: re.Pattern[str], numbers: Mapping[str, int]
    ) -> Iterator[str | int]:
        """Ids of added tokens, and the text between them."""
        end = 0
        for match in pattern.finditer(text):
            number = numbers[match[0]]
            token = self.added[number]
            first, last = match.span()
            neighbors = text[first - 1 : first] + text[last : last + 1]
            if token.single_word and re.search(r"\w", neighbors):
                continue
            if token.lstrip:
                first = max(end, len(text[:first].rstrip()))
            if token.rstrip:
                last = len(text) - len(text[last:].lstrip())
            if end < first:
                yield text[end:first]
            yield number
            end = last
        if end < len(text):
            yield text[end:]


def _pattern(numbers: Mapping[str, int]) -> tuple[re.Pattern[str], Mapping[str, int]]:
    """(pattern that matches the longest of some added tokens, their ids)."""
    longest_first = sorted(numbers, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)"), numbers


@functools.lru_cache(maxsize=4)
def open_vocabulary(spec: str) -> HuggingFaceVocabulary:
    """The vocabulary of a folder for which `folder_vocabulary` returns the folder itself."""
    return HuggingFaceVocabulary(spec)
