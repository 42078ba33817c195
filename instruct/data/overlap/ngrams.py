"""Word n-grams of records as 64-bit hashes, equal in every process and on every machine.

Normal form: HTML and JSON escapes decoded (`unescaped`), NFKC, case folded. A word is a run of
letters, digits and combining marks; every Chinese character and kana is a word. Thai and other
scripts without spaces keep whole runs as words. Punctuation does not count.

The parts of a record (fields and answer) are concatenated longest first, so neither the names of
fields nor their order matter. Option markers ("(A)", "B.", "Options:") are not words, and a field
that only lists the options is left out: `question_texts` adds them once.
"""

import dataclasses
import functools
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import regex

from instruct.prompts.record import Record

_FACTOR = 0xD1342543DE82EF95  # odd, so that no position in an n-gram loses bits
_SINGLE = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile(r"[a-z0-9]+")


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # \w excludes vowel signs of Indic scripts, which are marks; words would fall apart.
    marks = "".join(chr(c) for c in range(0x300, 0x12000) if unicodedata.category(chr(c))[0] == "M")
    letters = rf"[^\W_{_SINGLE}]"
    return re.compile(rf"{letters}+(?:[{marks}]+{letters}*)*|[{_SINGLE}]")


def words(text: str) -> list[str]:
    """Normalized words of a text.

    >>> words("It's 1,000 metres – Élan!")
    ['it', 's', '1', '000', 'metres', 'élan']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _word_pattern().findall(unicodedata.normalize("NFKC", text).casefold())


_JSON_UNICODE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_JSON_BLANK = re.compile(r"\\[nrt](?![a-z])")  # LaTeX has commands such as \neq and \times
_TAG_REST = r"""(?:\s+[\w-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+))*\s*/?>"""
_INLINE_TAG = re.compile(
    rf"</?(?:a|b|code|em|font|i|mark|small|span|strong|sub|sup|u){_TAG_REST}", re.IGNORECASE
)
_BLOCK_TAG = re.compile(
    rf"</?(?:br|div|h[1-6]|hr|li|ol|p|pre|table|tbody|td|th|thead|tr|ul){_TAG_REST}",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphens, zero-width joiners


def unescaped(text: str) -> str:
    """Decodes the HTML and JSON escapes of a text and removes HTML tags.

    >>> unescaped("Is 2 &lt; 3&nbsp;<b>true</b>?<br>Caf\\\\u00e9")
    'Is 2 < 3\\xa0true?\\nCafé'
    """
    if "\\" in text:
        text = _JSON_UNICODE.sub(lambda match: json.loads(f'"{match.group()}"'), text)
        text = _JSON_BLANK.sub("\n", text)
    if "<" in text:
        text = _BLOCK_TAG.sub("\n", _INLINE_TAG.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _unescaped_record(record: Record) -> Record:
    fields = {name: unescaped(text) for name, text in record.fields.items()}
    answer, options = unescaped(record.answer), tuple(map(unescaped, record.options))
    if (fields, answer, options) == (record.fields, record.answer, record.options):
        return record
    # A record needs an answer, so one that consists of tags only stays.
    answer = answer if answer.strip() else record.answer
    return dataclasses.replace(record, fields=fields, answer=answer, options=options)


# Shorter questions are only compared with whole texts: any text may contain them.
_MIN_WORDS_IN_TEXT = 6
# The same for a question without its options, which is less specific.
_MIN_WORDS_WITHOUT_OPTIONS = 8
# Shorter ones say nothing without the options or the passage ("Why?").
_MIN_WORDS_ALONE = 3
_IS_FIELD = 0x9E3779B97F4A7C15
_OPTIONS_HEAD = re.compile(r"\b(?:answer )?(?:options|choices)[ \t]*:\s", re.IGNORECASE)
_OPTIONS_BLOCK = re.compile(r"^[ \t]*(?:answer )?(?:options|choices)[ \t]*:", re.I | re.MULTILINE)
_LINE_MARKER = re.compile(r"^[ \t]*(?:[-*][ \t]+)?[A-Za-z][.:][ \t]+", re.MULTILINE)
_BRACKET_MARKER = re.compile(r"(?<!\w)\(?[A-Za-z]\)\s")
# Headings of questions in prompts: "Question 3: ", "17. ", "### Human: ", "<|user|> ".
_HEADING = re.compile(
    r"^\s*(?:[^\w\s]{1,8}\s*)?(?:\w{1,20}[^\w\s]{0,8}\s{1,4})?\w{1,20}[^\w\s]{0,8}[:.)\]>|*]\s+"
)
# Operators tell questions with equal words apart: 3 + 4 and 3 - 4. A hyphen is not one.
_OPERATOR = re.compile(r"[+*=<>^|~×÷√≤≥≠±∑∫]|(?<!\w)[-−/]|[-−/](?=[(\s])")
# The same with brackets, currencies, emoji and the like; a marker such as "(A)" is no sign. Words
# are found too, for where a sign stands among them.
_BRACKET_OR_MINUS = r"(?<!\([a-z])\)|\((?![a-z]\))|(?<!\w)[-−/]|[-−/](?=[(\s])"
_SIGN_OR_WORD = regex.compile(
    rf"({_BRACKET_OR_MINUS}|[\[\]{{}}*^\p{{Sm}}\p{{Sc}}\p{{So}}])|[^\W_]+"
)
_ASCII_SIGN_OR_WORD = re.compile(rf"({_BRACKET_OR_MINUS}|[\[\]{{}}*^+<=>|~$])|[a-z0-9]+")
_NO_LETTERS = re.compile(r"[\W_]+")
_PUNCTUATION = re.compile(r"[\s.,;:!?'\"`´‘’“”„«»…¿¡。、，：；！？]+")


def without_markers(text: str) -> str:
    """Removes option letters and the heading of an option list.

    >>> without_markers("Which?\\nOptions:\\n(A) this\\n(B) that")
    'Which?\\nthis\\nthat'
    """
    if ":" in text:
        text = _OPTIONS_HEAD.sub("", text)
    if ")" in text:
        text = _BRACKET_MARKER.sub("", text)
    return _LINE_MARKER.sub("", text)


def own_fields(record: Record) -> Mapping[str, str]:
    """The fields that do more than list the options; all fields if there is none."""
    fields = record.fields
    if not record.options:
        return fields
    options = sorted(filter(None, record.options), key=len, reverse=True)
    own = {name: text for name, text in fields.items() if not _only_lists(text, options)}
    return own or fields


def _only_lists(text: str, options: Iterable[str]) -> bool:
    rest = without_markers(text)
    for option in options:
        rest = rest.replace(option, " ")
    return all(len(word) == 1 for word in words(rest))


def question_texts(record: Record) -> tuple[str, str]:
    """A record's question: (without its options, with them once).

    The question is the field `question` if there is one (not the passage or description), else
    all of `own_fields`, longest first.
    """
    fields = own_fields(record)
    texts = list(fields.values())
    if len(texts) > 1:
        texts.sort(key=lambda text: (-len(words(text)), text))
    whole = fields.get("question") or "\n".join(texts)
    block = _OPTIONS_BLOCK.search(whole)
    stem = whole[: block.start()] if block and words(whole[: block.start()]) else whole
    listed = all(option in whole for option in record.options)
    return stem, whole if listed else "\n".join([whole, *record.options])


def record_words(record: Record) -> list[str]:
    """All words of a record, longest part first."""
    return [word for part, _ in _parts(record) for word in part]


def record_words_and_signs(record: Record) -> tuple[list[str], int]:
    """`record_words`, and a hash of what tells records with equal words apart.

    These are brackets, operators, symbols and emoji; the hash is 0 without any. Of a record without
    words all characters but blanks count.
    """
    parts = _parts(record)
    return [word for part, _ in parts for word in part], _signs_key(parts)


def _signs_key(parts: Sequence[tuple[list[str], str]]) -> int:
    texts = [_normal(text) for _, text in parts]
    if any(names for names, _ in parts):
        return _key(b"signs of words", "\n".join(map(_signs, texts)))
    return _key(b"no words", "\n".join("".join(text.split()) for text in texts))


def _signs(text: str) -> str:
    """The signs of a text, with a "w" for each word; "" without signs."""
    signs = (_ASCII_SIGN_OR_WORD if text.isascii() else _SIGN_OR_WORD).findall(text)
    return "".join(sign or "w" for sign in signs) if any(signs) else ""


def _parts(record: Record) -> list[tuple[list[str], str]]:
    """(words, text) of each part of a record, longest first."""
    record = _unescaped_record(record)
    fields = own_fields(record)
    texts = [text for name, text in fields.items() if name != "question"]
    if "question" in fields:
        texts.append(question_texts(record)[1])
    elif record.options:
        texts += [option for option in record.options if not any(option in t for t in texts)]
    plain = [without_markers(text) for text in (*texts, record.answer)]
    return sorted(((words(text), text) for text in plain), key=lambda part: (-len(part[0]), *part))


def text_keys(text: str) -> tuple[int, int]:
    """Two hashes of a whole text that ignore case and whitespace.

    The first ignores sentence punctuation (3 + 4 differs from 3 - 4), the second counts letters
    and digits only; 0 if no character is left.
    """
    text = _normal(text)
    return _key(b"signs", _PUNCTUATION.sub("", text)), _key(b"letters", _NO_LETTERS.sub("", text))


def _normal(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _key(form: bytes, text: str) -> int:
    if not text.strip():
        return 0
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, person=form).digest()
    return int.from_bytes(digest, "little")


def record_keys(record: Record) -> set[int]:
    """`text_keys` of every place where a copied question may be: fields, answer and lines."""
    record = _unescaped_record(record)
    fields = set(own_fields(record).values())
    texts = {*fields, *question_texts(record)}
    if len(words(record.answer)) >= _MIN_WORDS_ALONE:  # shorter answers are labels
        texts.add(record.answer)
    texts |= {line for text in texts for line in text.split("\n")}
    texts |= {_HEADING.sub("", text) for text in texts}
    texts |= {without_markers(text) for text in texts}
    keys = {key for text in texts for key in text_keys(text)}
    return (keys | {field_key(text) for text in fields}) - {0}


def field_key(text: str) -> int:
    """The first of `text_keys`, for a text that is a whole field and not just a line."""
    key = text_keys(text)[0]
    return key ^ _IS_FIELD if key else 0


def question_forms(record: Record, n: int) -> list[tuple[int, int, list[str] | int]]:
    """(hash of the form, hash of the question, words or key) of each form of a record's question.

    Forms are the question without and with its options (`question_texts`). Words match by their
    n-grams or, if fewer than n, as a run inside any text; keys (`text_keys`) match whole texts. The
    two hashes of a `field_key` are 0: it identifies the question alone.
    """
    record = _unescaped_record(record)
    stem, full = question_texts(record)
    question = next(filter(None, text_keys(without_markers(full))), 0)
    alone = stem == full and len(own_fields(record)) == 1
    words_of_form: dict[int, list[str]] = {}
    keys, field_keys = set(), set()
    for text in dict.fromkeys((stem, full)):
        plain = without_markers(text)
        names = words(plain)
        if text == stem and not alone and 0 < len(names) < _MIN_WORDS_ALONE:
            continue
        field_keys.add(field_key(text))
        pairs = {text_keys(plain), text_keys(text)}
        keys.update(signs for signs, _ in pairs)
        if len(names) < n and _OPERATOR.search(plain):
            continue  # another question may have the same words
        fewest = _MIN_WORDS_IN_TEXT if text == full else _MIN_WORDS_WITHOUT_OPTIONS
        if len(names) >= min(n, fewest):
            words_of_form[text_keys(plain)[1]] = names
        keys.update(letters for _, letters in pairs)
    return [
        *((form, question, names) for form, names in words_of_form.items()),
        *((key, question, key) for key in sorted(keys - {0})),
        *((0, 0, key) for key in sorted(field_keys - {0})),
    ]


def splitmix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function on uint64 arrays (wraps around, as intended)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class HashedTexts(NamedTuple):
    """Texts as word hashes.

    Attributes:
        words: uint64 [W], the words of all texts one after another.
        starts: int64 [texts], where each text starts in `words`.
        lengths: int64 [texts], words of each text.
    """

    words: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def hash_texts(word_lists: Sequence[Sequence[str]]) -> HashedTexts:
    """Hashes every word of some texts."""
    lengths = np.array([len(names) for names in word_lists], dtype=np.int64)
    hashes = [_word_hash(name) for names in word_lists for name in names]
    return HashedTexts(np.array(hashes, np.uint64), np.cumsum(lengths) - lengths, lengths)


@functools.lru_cache(maxsize=1 << 20)
def _word_hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def ngram_hashes(texts: HashedTexts, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, hash) of the n-grams of each text, sorted, each once a text.

    A text of fewer than n words has one n-gram that stands for the whole text; one without words
    has none.
    """
    _, rows, sums = next(_run_sums(texts, [n]))
    short = np.flatnonzero((texts.lengths > 0) & (texts.lengths < n))
    rows = np.concatenate([rows, short])
    hashes = splitmix(np.concatenate([sums, ~whole_hashes(texts)[short]]))
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    first = first_of_equals(rows, hashes)
    return rows[first], hashes[first]


def run_hashes(texts: HashedTexts, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(row, hash) of every run of words of the given sizes, repeats included."""
    runs = [
        (rows, splitmix(sums ^ np.uint64(size))) for size, rows, sums in _run_sums(texts, sizes)
    ]
    rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in runs)])
    return rows, np.concatenate([np.zeros(0, np.uint64), *(hashes for _, hashes in runs)])


def _run_sums(
    texts: HashedTexts, sizes: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(size, rows, polynomial sums) of the runs of each size, by rising size."""
    num_words, longest = texts.words.size, max(sizes, default=0)
    rows = np.repeat(np.arange(texts.lengths.size), texts.lengths)
    words_left = (texts.starts + texts.lengths)[rows] - np.arange(num_words)
    padded = np.concatenate([texts.words, np.zeros(longest, np.uint64)])
    sums = np.zeros(num_words, dtype=np.uint64)
    for offset in range(longest):
        sums += padded[offset : offset + num_words] * np.uint64(pow(_FACTOR, offset, 1 << 64))
        if offset + 1 in sizes:
            inside = words_left > offset
            yield offset + 1, rows[inside], sums[inside]


def whole_hashes(texts: HashedTexts) -> np.ndarray:
    """uint64 [texts]: hashes of the whole texts."""
    words, starts, lengths = texts
    offsets = np.arange(words.size) - np.repeat(starts, lengths)
    factors = np.full(max(int(lengths.max(initial=0)), 1), _FACTOR, dtype=np.uint64)
    factors[0] = 1
    factors = np.multiply.accumulate(factors)
    # Differences of prefix sums: np.add.reduceat gives an empty text the next text's first word.
    sums = np.concatenate([[np.uint64(0)], np.cumsum(words * factors[offsets])])
    return splitmix(sums[starts + lengths] - sums[starts] + lengths.astype(np.uint64))


def first_of_equals(*columns: np.ndarray) -> np.ndarray:
    """Mask of the rows of sorted columns that differ from the row before."""
    first = np.ones(columns[0].size, dtype=bool)
    first[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return first
