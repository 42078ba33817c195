"""One pass over a user's rows: what is rejected and repeated, and what the targets look like."""

import collections
import dataclasses
import decimal
import unicodedata

from instruct.data.sources.column_source import ColumnSource, value_of
from instruct.data.sources.files import NOT_UTF8, hash_unit, identity
from instruct.errors import UserError
from instruct.prompts.record import Record

# Choices are at most so many different targets of so many words, each so often on average.
_MOST_LABELS, _MOST_LABEL_WORDS, _LEAST_ROWS_OF_LABEL = 20, 5, 5
NAMED_PLACES = 3  # rejected rows to name for each reason
_MOST_NOT_UTF8 = 0.01  # share of rows above which the file has another encoding
_SAMPLED_TARGETS = 10_000


@dataclasses.dataclass
class Scan:
    """Counts over the rows of one split's files.

    Attributes:
        rejected: reason -> (rows, places of the first ones).
        hashes: of the inputs of each record, in [0, 1).
        repeated: records whose inputs and targets an earlier one has.
        numbers, lists: rows whose target is a number or truth value, or a list.
        answers: targets -> records, as long as there are few.
        words: of the first targets.
        sizes: record field -> characters.
        ascii_targets: of the first targets, those with mostly letters from a to z.
    """

    rows: int = 0
    rejected: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    hashes: list[float] = dataclasses.field(default_factory=list)
    repeated: int = 0
    numbers: int = 0
    lists: int = 0
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    words: list[int] = dataclasses.field(default_factory=list)
    sizes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ascii_targets: int = 0

    @property
    def records(self) -> int:
        return len(self.hashes)

    def labels(self) -> tuple[str, ...]:
        """The different targets if they are choices, sorted; else ()."""
        is_choice = (
            2 <= len(self.answers) <= _MOST_LABELS
            and len(self.answers) * _LEAST_ROWS_OF_LABEL <= self.records
            and max(map(num_words, self.answers)) <= _MOST_LABEL_WORDS
            and not self.lists
        )
        return tuple(sorted(self.answers)) if is_choice else ()

    def threshold(self, wanted: int) -> tuple[float, int]:
        """(hash below which about `wanted` records lie, their number); zeros if that is none.

        Records with equal inputs are on one side; at least one record is on the other.
        """
        hashes = sorted(self.hashes)
        wanted = min(max(wanted, 1), self.records - 1)
        if wanted < 1 or hashes[0] == hashes[-1]:
            return 0.0, 0
        threshold = next(value for value in hashes[wanted:] if value > hashes[0])
        return threshold, sum(value < threshold for value in hashes)

    def describe_rejected(self) -> str:
        """'line is not JSON (3: line 2, line 9, line 11)'."""
        parts = []
        for reason, places in self.rejected.items():
            more = ", ..." if len(places) > NAMED_PLACES else ""
            parts.append(f"{reason} ({len(places):,}: {', '.join(places[:NAMED_PLACES])}{more})")
        return "; ".join(parts)


def scan_split(source: ColumnSource, split: str) -> Scan:
    """Reads all rows of a split's files.

    Raises:
        UserError: none of them can be used, or the encoding is another one.
    """
    scan, seen = Scan(), set()
    column_map = source.column_map
    for place, item, row in source.rows(split):
        scan.rows += 1
        if not isinstance(item, Record):
            scan.rejected.setdefault(item.reason, []).append(place)
            continue
        text = identity(item)
        scan.hashes.append(hash_unit(text))
        pair = hash((text, item.answer))
        scan.repeated += pair in seen
        seen.add(pair)
        if not column_map.messages:
            target = value_of(row, column_map.targets)
            scan.lists += isinstance(target, list)
            scan.numbers += isinstance(target, int | float | decimal.Decimal)
        if len(scan.answers) <= _MOST_LABELS:
            scan.answers[item.answer] += 1
        if len(scan.words) < _SAMPLED_TARGETS:
            scan.words.append(num_words(item.answer))
            scan.ascii_targets += is_ascii(item.answer)
        scan.sizes.update({name: len(value) for name, value in item.fields.items()})
    files = ", ".join(str(path) for path in source.files[split].paths[:3])
    not_utf8 = scan.rejected.get(NOT_UTF8, [])
    if len(not_utf8) > _MOST_NOT_UTF8 * scan.rows:
        raise UserError(
            f"{files}: {len(not_utf8):,} of {scan.rows:,} rows are not UTF-8 text, the first at "
            f"{not_utf8[0]}. Save the file as UTF-8, for example by iconv -f ISO-8859-1 -t UTF-8."
        )
    if not scan.records:
        why = f": {scan.describe_rejected()}" if scan.rejected else ", for there are none"
        raise UserError(f"{files}: none of its {scan.rows:,} rows can be used{why}.")
    return scan


def num_words(text: str) -> int:
    """Words; in scripts without blanks, every wide character is one."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return max(len(text.split()), wide)


def is_ascii(text: str) -> bool:
    """Whether at least half of the letters are from a to z."""
    letters = [sign for sign in text if sign.isalpha()]
    return 2 * sum(map(str.isascii, letters)) >= len(letters)
