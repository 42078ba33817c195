"""GPT-2's tokens, by which Natural-Instructions scores its cross-lingual track (ROUGE-L).

Byte-level BPE (Radford et al. 2019): a text is split into pieces of letters, digits or other signs,
each with the blank before it; a piece's UTF-8 bytes are merged in the order of
`vocab/gpt2_merges.txt.gz` (GPT-2's own `vocab.bpe`; see `vocab/gpt2_LICENSE.txt`). As in the
publisher's script, tokens lose the sign of the blank.
"""

import functools
import gzip
import itertools
from pathlib import Path

import regex

MERGES = Path(__file__).parent / "vocab" / "gpt2_merges.txt.gz"
_PIECE = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_BLANK = "\u0120"


@functools.cache
def merge_ranks() -> dict[tuple[str, str], int]:
    """Pair of tokens -> its rank in the order of merges."""
    with gzip.open(MERGES, "rt", encoding="utf-8") as stream:
        pairs = (line.split() for line in stream if not line.startswith("#version"))
        return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


@functools.cache
def byte_signs() -> tuple[str, ...]:
    """A visible sign for each byte: itself in Latin-1, or the next one from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in visible else next(others)) for byte in range(256))


@functools.lru_cache(maxsize=100_000)
def _merged(piece: str) -> tuple[str, ...]:
    """The tokens of a piece."""
    signs = byte_signs()
    # A lone surrogate has no UTF-8.
    tokens = [signs[byte] for byte in piece.encode("utf-8", errors="replace")]
    ranks = merge_ranks()
    while len(tokens) > 1:
        first = min(itertools.pairwise(tokens), key=lambda pair: ranks.get(pair, len(ranks)))
        if first not in ranks:
            break
        merged: list[str] = []
        for token in tokens:
            if merged and (merged[-1], token) == first:
                merged[-1] += token
            else:
                merged.append(token)
        tokens = merged
    return tuple(tokens)


class Gpt2Tokenizer:
    """A tokenizer for `rouge_score`: GPT-2's tokens without the blanks before words."""

    def tokenize(self, text: str) -> list[str]:
        return [token.lstrip(_BLANK) for piece in _PIECE.findall(text) for token in _merged(piece)]


GPT2_TOKENIZER = Gpt2Tokenizer()
