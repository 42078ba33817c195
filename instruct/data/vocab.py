"""Vocabularies without TensorFlow: text to token ids, with the ids of SeqIO's classes.

A vocabulary is named by one string, which gin, worker processes and manifests pass on:

    bytes                        UTF-8 bytes + 3 (seqio.ByteVocabulary, ByT5)
    gym                          the vocabulary of the embedded collection
    PATH.model                   a SentencePiece model with 100 sentinels appended, padded with 0
                                 and without BOS (T5)
    PATH.model#extra_ids=N       the same with N sentinels
    PATH/tokenizer.model         a SentencePiece model as it is (the name of Llama 2's and Gemma's)
    bytes#extra_ids=N
    FOLDER                       a Hugging Face folder's tokenizer, with the tokens added to it
    FOLDER/tokenizer.json        the same

A folder's tokenizer.json has special tokens, several ends and the chat template, which
tokenizer.model alone does not have.

Only `#extra_ids=N` at the end is an option; any other `#` is part of the path.

Sentinels are numbered downward from the last id, as T5's span corruption expects:
`<extra_id_0>` is vocab_size - 1 (seqio.SentencePieceVocabulary, reverse_extra_ids).
"""

import functools
import hashlib
import itertools
import logging
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from instruct.data.huggingface_tokenizer import (
    DEFAULT_EXTRA_IDS,
    FAST,
    MODEL,
    PIECES,
    folder_vocabulary,
    listed_tokens,
    open_vocabulary,
    read_model,
    tokens_beside_pieces,
)
from instruct.errors import UserError
from instruct.files import any_path, is_address, local_path
from instruct.prompts.chat_template import ChatTemplate

PAD_ID = 0
MOST_EXTRA_IDS = 100_000
_OPTION = re.compile(r"(.+)#extra_ids=([0-9]+)", re.DOTALL)
GYM_MODEL = Path(__file__).resolve().parents[2] / "tasks" / "vocab" / "gym.model"

# Generated code, whose names no type checker sees.
_ModelProto = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009
_log = logging.getLogger(__name__)


class Vocabulary(Protocol):
    """The interface of a vocabulary.

    Attributes:
        pad_id: an id that is padding only, never text; None if there is none (id 0 is '!' in
            Llama 3 and Qwen). Batches are padded with 0 and say where by segment ids.
        eos_id: ends a target in training.
        stop_ids: ids that end an answer in decoding, `eos_id` first, a chat template's end of turn
            included.
        unk_id: stands for characters that the vocabulary cannot spell; None if it spells all.
        start_ids: what a decoder-only sequence starts with: (0,) for T5's and our vocabularies
            (SeqIO's shift), the beginning-of-sequence token for Llama and Gemma, () for Qwen.
        chat_template: of an instruction-tuned checkpoint; special tokens in its text are encoded
            as such.
    """

    spec: str
    vocab_size: int
    pad_id: int | None
    eos_id: int
    stop_ids: tuple[int, ...]
    unk_id: int | None
    start_ids: tuple[int, ...]
    fingerprint: str
    chat_template: ChatTemplate | None

    def encode(self, text: str, /) -> list[int]:
        """Token ids without EOS."""
        ...

    def encode_array(self, text: str, /) -> "array[int]":
        """The ids of `encode` as array("i"), without a Python object for each."""
        ...

    def decode(self, ids: Iterable[int], /) -> str:
        """Text up to the first of `stop_ids`, without padding."""
        ...

    def settled(self, ids: Sequence[int], /) -> int:
        """How many ids from the first on have a text that no later id can change.

        But for its last few characters, which `AnswerText` holds back.
        """
        ...


def text_ids(vocabulary: Vocabulary, ids: Iterable[int]) -> list[int]:
    """Ids up to the first that ends an answer, without padding."""
    stops = set(vocabulary.stop_ids)
    until_stop = itertools.takewhile(lambda token: token not in stops, map(int, ids))
    return [token for token in until_stop if token != vocabulary.pad_id]


class ByteVocabulary:
    """ids 0 pad, 1 EOS, 2 unknown, 3 + b for byte b, then sentinels (never produced by text)."""

    pad_id: int | None = PAD_ID
    eos_id = 1
    unk_id: int | None = 2
    stop_ids: tuple[int, ...] = (1,)
    start_ids: tuple[int, ...] = (PAD_ID,)
    chat_template: ChatTemplate | None = None

    def __init__(self, extra_ids: int = 0) -> None:
        self.spec = f"bytes#extra_ids={extra_ids}" if extra_ids else "bytes"
        self.extra_ids = extra_ids
        self.vocab_size = 259 + extra_ids
        self.fingerprint = hashlib.sha256(self.spec.encode()).hexdigest()

    def __reduce__(self):
        return load_vocabulary, (self.spec,)

    def encode(self, text: str) -> list[int]:
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> "array[int]":
        codes = np.frombuffer(text.encode("utf-8"), np.uint8)
        return array("i", (codes + np.int32(3)).tobytes())

    def decode(self, ids: Iterable[int]) -> str:
        kept = text_ids(self, ids)
        return bytes(i - 3 for i in kept if 3 <= i < 259).decode("utf-8", errors="ignore")

    def settled(self, ids: Sequence[int]) -> int:
        return len(ids)


class SentencePieceVocabulary:
    """A SentencePiece model file with sentinels appended.

    Attributes:
        bos_id: starts a sequence; None if the model has no BOS or is read as T5's, whose sequences
            start with 0: a file of another name than tokenizer.model, or with pad 0, EOS 1, unk 2.
    """

    chat_template: ChatTemplate | None = None

    def __init__(self, spec: str, path: Path, extra_ids: int) -> None:
        model = read_model(spec, path)
        for number in reversed(range(extra_ids)):
            model.pieces.add(
                piece=f"▁<extra_id_{number}>",
                score=0.0,
                type=_ModelProto.SentencePiece.USER_DEFINED,
            )
        serialized = model.SerializeToString(deterministic=True)
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(serialized)
        if processor.eos_id() < 0:
            raise UserError(
                f"vocabulary {spec!r} has no end-of-sequence piece, which training needs; "
                "train it with pad_id=0, eos_id=1, unk_id=2"
            )
        if processor.pad_id() != PAD_ID and path.name != MODEL:
            _log.warning(
                "vocabulary %s: id 0 is %r, and T5's models read it as padding",
                spec,
                processor.IdToPiece(0),
            )
        self.spec = spec
        self.path = path
        self.extra_ids = extra_ids
        self.vocab_size = processor.GetPieceSize()
        self.eos_id: int = processor.eos_id()
        self.stop_ids: tuple[int, ...] = (self.eos_id,)
        self.unk_id: int | None = processor.unk_id()
        ids = processor.pad_id(), processor.eos_id(), processor.unk_id()
        is_t5 = path.name != MODEL or ids == (PAD_ID, 1, 2)
        pad, bos = (PAD_ID, -1) if is_t5 else (processor.pad_id(), processor.bos_id())
        self.pad_id: int | None = pad if pad >= 0 else None
        self.bos_id: int | None = bos if bos >= 0 else None
        self.start_ids: tuple[int, ...] = (PAD_ID if self.bos_id is None else self.bos_id,)
        self.fingerprint = hashlib.sha256(serialized).hexdigest()
        self._processor = processor

    def __reduce__(self):
        return load_vocabulary, (self.spec,)

    def encode(self, text: str) -> list[int]:
        return self._processor.EncodeAsIds(text)

    def encode_array(self, text: str) -> "array[int]":
        return array("i", self._processor.Encode(text, return_type="numpy").tobytes())

    def piece(self, number: int) -> str:
        """The piece of an id."""
        return self._processor.IdToPiece(number)

    def decode(self, ids: Iterable[int]) -> str:
        kept = text_ids(self, ids)
        known = [i if i < self.vocab_size else self._processor.unk_id() for i in kept]
        return self._processor.DecodeIds(known)

    def settled(self, ids: Sequence[int]) -> int:
        return len(ids)


def parse_spec(spec: str) -> tuple[str, int]:
    """Splits "NAME#extra_ids=N" into (NAME, N); N defaults to the vocabulary's usual number.

    >>> parse_spec("my.model#extra_ids=5")
    ('my.model', 5)
    """
    match = _OPTION.fullmatch(spec)
    if match and len(match[2]) < 9 and int(match[2]) <= MOST_EXTRA_IDS:
        return match[1], int(match[2])
    name = spec.partition("#")[0]
    if match or (name in ("bytes", "gym") and spec != name):
        raise UserError(
            f"vocabulary {spec!r}: after '#' only 'extra_ids=N' is allowed, N from 0 to "
            f"{MOST_EXTRA_IDS}, for example '{name}#extra_ids=100'"
        )
    has_none = spec == "bytes" or spec.rpartition("/")[2] == MODEL
    return spec, 0 if has_none else DEFAULT_EXTRA_IDS


def model_path(spec: str) -> Path:
    """File of a SentencePiece vocabulary named by `spec`, which may be in a bucket."""
    name = parse_spec(spec)[0]
    return GYM_MODEL if name == "gym" else any_path("vocabulary", name, "~/spiece.model")


@functools.lru_cache(maxsize=16)
def load_vocabulary(spec: str) -> Vocabulary:
    """The vocabulary named by `spec` (see the module's docstring).

    Raises:
        UserError: the file does not exist, is not a SentencePiece model, or has no EOS.
    """
    in_bucket = is_address(spec)
    folder = Path(spec) if in_bucket else local_path("vocabulary", spec, "~/spiece.model")
    if folder.name == FAST and not in_bucket:
        return load_vocabulary(str(folder.parent))
    if spec not in ("bytes", "gym") and not in_bucket and folder.is_dir():
        inner = folder_vocabulary(folder)
        if inner is None:
            raise UserError(f"vocabulary {spec!r}: {why_unread(folder)}")
        return open_vocabulary(spec) if inner == str(folder) else load_vocabulary(inner)
    name, extra_ids = parse_spec(spec)
    if name == "bytes":
        return ByteVocabulary(extra_ids)
    path = model_path(spec)
    vocabulary = SentencePieceVocabulary(spec, path, extra_ids)
    if path.name == PIECES and (added := tokens_beside_pieces(path.parent)):
        _log.warning(
            "vocabulary %s: %s adds %s, which this file alone does not have; set the folder "
            "instead of the file to use them",
            spec,
            path.parent,
            listed_tokens(added),
        )
    return vocabulary


def why_unread(folder: Path) -> str:
    """Why a Hugging Face folder has no vocabulary."""
    return (
        f"{folder} has no {FAST}, {PIECES}, {MODEL} or ByT5 tokenizer_config.json. Copy the "
        "tokenizer's files there, or give their path."
    )


def chat_template(vocabulary: Vocabulary) -> ChatTemplate:
    """The vocabulary's chat template; raises UserError if it has none."""
    if vocabulary.chat_template is None:
        raise UserError(
            f"vocabulary {vocabulary.spec!r} has no chat template (chat_template.jinja, or "
            "chat_template in tokenizer_config.json), which CHAT_TEMPLATE = True needs. Set "
            "VOCABULARY to the folder of an instruction-tuned checkpoint, or leave CHAT_TEMPLATE "
            "out."
        )
    return vocabulary.chat_template


def check_embedding_rows(vocabulary: Vocabulary, rows: int) -> None:
    """Raises UserError unless every id of the vocabulary has a row in the model's embedding."""
    if vocabulary.vocab_size > rows:
        raise UserError(
            f"vocabulary {vocabulary.spec!r} has {vocabulary.vocab_size} ids, the model's "
            f"embedding {rows} rows (vocab_size). Use a model of at least "
            f"{-(-vocabulary.vocab_size // 128) * 128} rows, or another VOCABULARY."
        )
