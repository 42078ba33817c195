"""GPT-2's tokens: by hand, and as the `tokenizers` package makes them from the same merges."""

import hashlib
import random
import zlib

import pytest

from tasks import gpt2_tokens
from tasks.gpt2_tokens import GPT2_TOKENIZER
from tests.sentences import SENTENCES


def test_merges_are_gpt2s():
    """The hash is that of the file `vocab.bpe` as OpenAI serves it."""
    content = zlib.decompress(gpt2_tokens.MERGES.read_bytes(), wbits=31)
    assert hashlib.sha256(content).hexdigest() == (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    )
    assert (gpt2_tokens.MERGES.parent / "gpt2_LICENSE.txt").is_file()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello world", ["Hello", "world"]),
        ("it's  12,345!", ["it", "'s", "", "12", ",", "345", "!"]),
        ("tokenization", ["token", "ization"]),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    assert GPT2_TOKENIZER.tokenize(text) == tokens


def test_bytes_that_do_not_merge_are_kept():
    assert len(GPT2_TOKENIZER.tokenize("ꙮ")) == 3
    assert GPT2_TOKENIZER.tokenize("\ud800") == ["?"]


def test_tokens_are_those_of_the_tokenizers_package():
    tokenizers = pytest.importorskip("tokenizers", reason="the extra test is not installed")
    merges = list(gpt2_tokens.merge_ranks())
    signs = [*gpt2_tokens.byte_signs(), *(first + second for first, second in merges)]
    vocabulary = {sign: number for number, sign in enumerate(dict.fromkeys(signs))}
    assert len(vocabulary) == 50_256
    reference = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    reference.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    draw = random.Random(8)
    texts = [text for pair in SENTENCES.values() for text in pair]
    texts += ["it's I'll we've 'd", "  a  b\n\n c\t", "½ ² IV ٣ 12,345.67", "aaaaaa ababab"]
    signs = "".join(texts)
    texts += ["".join(draw.choices(signs, k=draw.randrange(50))) for _ in range(500)]
    for text in texts:
        expected = [token.lstrip("Ġ") for token in reference.encode(text).tokens]
        assert GPT2_TOKENIZER.tokenize(text) == expected, text
