"""Word n-grams of records as 64-bit hashes: the same in every process and on every machine.

Normal form: NFKC, case folded; a word is a run of letters, digits and the marks above and below
them, so that punctuation does not count; every Chinese character and kana is a word of its own.
Thai and other scripts without blanks keep their runs as single words. Escapes of HTML and JSON are
read first (`unescaped`).

The parts of a record (fields and answer) are put one after another, the longest first, so that
neither the names of fields nor their order matter. Markers of options ("(A)", "B.", "Options:") are
no words, and a field that only lists the options is left out: `question_texts` adds them once.
"""

import dataclasses
import functools
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from instruct.prompts.record import Record

_FACTOR = 0xD1342543DE82EF95  # odd, so that no place of an n-gram loses bits
_MASK = (1 << 64) - 1
_MOST_REMEMBERED = 1 << 20  # words; memory, not meaning
_SINGLE = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile(r"[a-z0-9]+")


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # Vowel signs of Indian scripts are marks, which \w does not hold; words would fall apart.
    marks = "".join(chr(c) for c in range(0x300, 0x12000) if unicodedata.category(chr(c))[0] == "M")
    letters = rf"[^\W_{_SINGLE}]"
    return re.compile(rf"{letters}+(?:[{marks}]+{letters}*)*|[{_SINGLE}]")


def words(text: str) -> list[str]:
    """Words in their normal form.

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
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphens, joints without width


def unescaped(text: str) -> str:
    """A text without the escapes and tags that a copy may have from HTML or JSON.

    >>> unescaped("Is 2 &lt; 3&nbsp;<b>true</b>?<br>Caf\\\\u00e9")
    'Is 2 < 3\\xa0true?\\nCafé'
    """
    if "\\" in text:
        text = _JSON_UNICODE.sub(lambda found: json.loads(f'"{found.group()}"'), text)
        text = _JSON_BLANK.sub("\n", text)
    if "<" in text:
        text = _BLOCK_TAG.sub("\n", _INLINE_TAG.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    return text if text.isascii() else _UNSEEN.sub("", text)


def _unescaped_record(record: Record) -> Record:
    fields = {name: unescaped(text) for name, text in record.fields.items()}
    answer, options = unescaped(record.answer), tuple(map(unescaped, record.options))
    if (fields, answer, options) == (record.fields, record.answer, record.options):
        return record
    # An answer that was nothing but tags stays as it was: a record cannot be without.
    answer = answer if answer.strip() else record.answer
    return dataclasses.replace(record, fields=fields, answer=answer, options=options)


# A question of fewer words is looked for as a whole text only: any text may hold it.
_FEWEST_IN_TEXT = 6
# Without its options, where it has some, it tells less.
_FEWEST_WITHOUT_OPTIONS = 8
# So few words tell nothing without the options or the passage ("Why?").
_FEWEST_ALONE = 3
_IS_FIELD = 0x9E3779B97F4A7C15
_OPTIONS_HEAD = re.compile(r"\b(?:answer )?(?:options|choices)[ \t]*:\s", re.IGNORECASE)
_OPTIONS_BLOCK = re.compile(r"^[ \t]*(?:answer )?(?:options|choices)[ \t]*:", re.I | re.MULTILINE)
_LINE_MARKER = re.compile(r"^[ \t]*(?:[-*][ \t]+)?[A-Za-z][.:][ \t]+", re.MULTILINE)
_BRACKET_MARKER = re.compile(r"(?<!\w)\(?[A-Za-z]\)\s")
# What stands before a question in a prompt: "Question 3: ", "17. ", "### Human: ", "<|user|> ".
_HEADING = re.compile(
    r"^\s*(?:[^\w\s]{1,8}\s*)?(?:\w{1,20}[^\w\s]{0,8}\s{1,4})?\w{1,20}[^\w\s]{0,8}[:.)\]>|*]\s+"
)
# What makes another question of the same words: 3 + 4 and 3 - 4. A hyphen is none.
_OPERATOR = re.compile(r"[+*=<>^|~×÷√≤≥≠±∑∫]|(?<!\w)[-−/]|[-−/](?=[(\s])")
_NO_LETTERS = re.compile(r"[\W_]+")
_PUNCTUATION = re.compile(r"[\s.,;:!?'\"`´‘’“”„«»…¿¡。、，：；！？]+")


def without_markers(text: str) -> str:
    """`text` without the letters and the heading that a list of options may have.

    >>> without_markers("Which?\\nOptions:\\n(A) this\\n(B) that")
    'Which?\\nthis\\nthat'
    """
    if ":" in text:
        text = _OPTIONS_HEAD.sub("", text)
    if ")" in text:
        text = _BRACKET_MARKER.sub("", text)
    return _LINE_MARKER.sub("", text)


def own_fields(record: Record) -> Mapping[str, str]:
    """The fields that are more than a list of the record's options; all where none is."""
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
    """What a record asks: (without its options, with them once).

    That is its field `question` where it has one (a passage or a description is no question),
    else all its own fields, the longest first.
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
    """All words of a record, its longest part first."""
    record = _unescaped_record(record)
    fields = own_fields(record)
    texts = [text for name, text in fields.items() if name != "question"]
    if "question" in fields:
        texts.append(question_texts(record)[1])
    elif record.options:
        texts += [option for option in record.options if not any(option in t for t in texts)]
    parts = [words(without_markers(text)) for text in (*texts, record.answer)]
    parts.sort(key=lambda part: (-len(part), part))
    return [word for part in parts for word in part]


def text_keys(text: str) -> tuple[int, int]:
    """Two hashes of a whole text, case and blanks aside.

    Returns:
        Of all signs but sentence punctuation (so that 3 + 4 is not 3 - 4), and of letters and
        digits alone; 0 where nothing is left.
    """
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _key(b"signs", _PUNCTUATION.sub("", text)), _key(b"letters", _NO_LETTERS.sub("", text))


def _key(form: bytes, text: str) -> int:
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, person=form).digest()
    return int.from_bytes(digest, "little")


def record_keys(record: Record) -> set[int]:
    """`text_keys` of all that a copied question may be in a record: fields, answer and lines."""
    record = _unescaped_record(record)
    fields = set(own_fields(record).values())
    texts = {*fields, *question_texts(record)}
    if len(words(record.answer)) >= _FEWEST_ALONE:  # fewer are a label
        texts.add(record.answer)
    texts |= {line for text in texts for line in text.split("\n")}
    texts |= {_HEADING.sub("", text) for text in texts}
    texts |= {without_markers(text) for text in texts}
    keys = {key for text in texts for key in text_keys(text)}
    return (keys | {field_key(text) for text in fields}) - {0}


def field_key(text: str) -> int:
    """The first of `text_keys`, for a text that is a field and not only a line of one."""
    key = text_keys(text)[0]
    return key ^ _IS_FIELD if key else 0


@dataclasses.dataclass(frozen=True)
class Question:
    """The forms of a record's question, without and with its options; see `question_texts`.

    Attributes:
        whole: hash of the question with its options: which question it is.
        long: hash of a form -> its words, n or more.
        runs: hash of a form -> its words, too few for an n-gram; to be found in any text.
        keys: `text_keys` of forms. fields: `field_key` of forms.
    """

    whole: int
    long: dict[int, list[str]]
    runs: dict[int, list[str]]
    keys: set[int]
    fields: set[int]


def question_of(record: Record, n: int) -> Question:
    """The question of a record, for n-grams of n words."""
    record = _unescaped_record(record)
    stem, full = question_texts(record)
    whole = next(filter(None, text_keys(without_markers(full))), 0)
    question = Question(whole, {}, {}, set(), set())
    alone = stem == full and len(own_fields(record)) == 1
    for text in dict.fromkeys((stem, full)):
        plain = without_markers(text)
        names = words(plain)
        if text == stem and not alone and 0 < len(names) < _FEWEST_ALONE:
            continue
        question.fields.add(field_key(text))
        keys = {text_keys(plain), text_keys(text)}
        question.keys.update(signs for signs, _ in keys)
        form = text_keys(plain)[1]
        if len(names) >= n:
            question.long[form] = names
        elif _OPERATOR.search(plain):
            continue  # its words alone could be another question's
        elif len(names) >= (_FEWEST_IN_TEXT if text == full else _FEWEST_WITHOUT_OPTIONS):
            question.runs[form] = names
        question.keys.update(letters for _, letters in keys)
    question.fields.discard(0)
    question.keys.discard(0)
    return question


def scramble(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function on uint64 arrays (wraps around, as intended)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# Of several texts: the hashes of all words, where each text starts, its number of words.
WordHashes = tuple[np.ndarray, np.ndarray, np.ndarray]


class Shingler:
    """Turns records into hashes of their n-grams.

    Args:
        n: words of an n-gram, at least 1.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._known: dict[str, int] = {}

    def hashes(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, n-gram, text) of a batch.

        Returns:
            row: int64 [M], which record an n-gram is of, rising.
            n-gram: uint64 [M], each once a record. A record of fewer than n words has a single
                one that stands for its whole text; one without words has none.
            text: uint64 [records], of the whole text.
        """
        return self.hashes_of(self.texts([record_words(record) for record in records]))

    def hashes_of(self, words_of: WordHashes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`hashes` of texts that are words already."""
        values, starts, lengths = words_of
        texts = self._texts(values, starts, lengths)
        rows, grams = self._grams(values, starts, lengths)
        short = np.flatnonzero((lengths > 0) & (lengths < self.n))
        rows = np.concatenate([rows, short])
        grams = np.concatenate([grams, scramble(~texts[short])])
        order = np.lexsort((grams, rows))
        rows, grams = rows[order], grams[order]
        new = np.ones(rows.size, dtype=bool)
        new[1:] = (rows[1:] != rows[:-1]) | (grams[1:] != grams[:-1])
        return rows[new], grams[new], texts

    def run_hashes(
        self, words_of: WordHashes, sizes: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(row, hash) of every run of so many words, for some sizes, repeats included."""
        values, starts, lengths = words_of
        rows = np.repeat(np.arange(lengths.size), lengths)
        left = (starts + lengths)[rows] - np.arange(values.size)  # words from here to the end
        padded = np.concatenate([values, np.zeros(max(sizes, default=0), np.uint64)])
        sums = np.zeros(values.size, dtype=np.uint64)
        row_parts, hash_parts = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        for place in range(max(sizes, default=0)):
            factor = np.uint64(pow(_FACTOR, place, _MASK + 1))
            sums += padded[place : place + values.size] * factor
            if place + 1 in sizes:
                there = left > place
                row_parts.append(rows[there])
                hash_parts.append(scramble(sums[there] ^ np.uint64(place + 1)))
        return np.concatenate(row_parts), np.concatenate(hash_parts)

    def run_hash(self, names: Sequence[str]) -> int:
        """The hash of a whole text as `run_hashes` finds it inside another."""
        return int(self.run_hashes(self.texts([names]), [len(names)])[1][0])

    def texts(self, word_lists: Sequence[Sequence[str]]) -> WordHashes:
        """Texts that are words, as the other methods take them."""
        lists = [self._word_hashes(names) for names in word_lists]
        lengths = np.array([len(part) for part in lists], dtype=np.int64)
        values = np.array([value for part in lists for value in part], dtype=np.uint64)
        return values, np.cumsum(lengths) - lengths, lengths

    def _word_hashes(self, names: Sequence[str]) -> list[int]:
        known = self._known
        if len(known) > _MOST_REMEMBERED:
            known.clear()
        found = []
        for name in names:
            value = known.get(name)
            if value is None:
                digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
                value = known[name] = int.from_bytes(digest, "little")
            found.append(value)
        return found

    def _texts(self, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        places = np.arange(values.size) - np.repeat(starts, lengths)
        longest = int(lengths.max(initial=0))
        factors = np.full(max(longest, 1), _FACTOR, dtype=np.uint64)
        factors[0] = 1
        factors = np.multiply.accumulate(factors)
        # A sum over an empty stretch would take the next record's first word: sums of prefixes.
        sums = np.concatenate([[np.uint64(0)], np.cumsum(values * factors[places])])
        return scramble(sums[starts + lengths] - sums[starts] + lengths.astype(np.uint64))

    def _grams(
        self, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        counts = np.maximum(lengths - self.n + 1, 0)
        rows = np.repeat(np.arange(lengths.size), counts)
        first = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts) + starts[rows]
        sums = np.zeros(rows.size, dtype=np.uint64)
        for place in range(self.n):
            sums += values[first + place] * np.uint64(pow(_FACTOR, place, _MASK + 1))
        return rows, scramble(sums)
