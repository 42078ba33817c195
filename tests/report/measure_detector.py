"""Measures a detector's precision and recall by kind on `faithfulness_labels.jsonl`.

python -m tests.report.measure_detector [--ner spacy:en_core_web_sm] [--show tuning]

The set: short dialogues, news items and notes with an output and a reference, written for this
purpose, and labels by hand of what the output invents and misses. What says the same in other words
(half an hour, 30 minutes) is the same; what has to be calculated or inferred is not; kin (Mom),
bare titles and adverbs (once) are no items. Rules follow the part `tuning`; only the part
`held_out` says how good they are. A mention is right if a label of the same kind overlaps it.
"""

import argparse
import collections
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from instruct.report.faithfulness.check import check
from instruct.report.faithfulness.detector import Detector, load_detector
from instruct.report.faithfulness.mentions import KINDS, Mention
from instruct.report.faithfulness.quality import Counts

LABELS = pathlib.Path(__file__).with_name("faithfulness_labels.jsonl")
PARTS = ("tuning", "held_out")

Label = tuple[str, str]  # kind, text


def items(part: str) -> list[dict[str, Any]]:
    """The labelled items of one part."""
    rows = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["part"] == part]


def measure(detector: Detector, part: str) -> dict[str, dict[str, Counts]]:
    """{"invented" or "missed": {kind: counts}} of one part."""
    totals = collections.Counter()
    for _, what, right, wrong, overlooked in outcomes(detector, part):
        totals.update((what, m.kind, "right") for m in right)
        totals.update((what, m.kind, "wrong") for m in wrong)
        totals.update((what, kind, "overlooked") for kind, _ in overlooked)
    outcome_names = ("right", "wrong", "overlooked")
    return {
        what: {
            kind: Counts(*(totals[what, kind, name] for name in outcome_names)) for kind in KINDS
        }
        for what in ("invented", "missed")
    }


def outcomes(
    detector: Detector, part: str
) -> Iterator[tuple[int, str, list[Mention], list[Mention], list[Label]]]:
    """(item, "invented" or "missed", right, wrong, overlooked) of every item."""
    for item in items(part):
        checked = check(item["source"], item["output"], [item["reference"]], detector)
        for what, mentions, text in (
            ("invented", checked.invented, item["output"]),
            ("missed", checked.missed, item["reference"]),
        ):
            yield item["id"], what, *_match(mentions, item[what], text)


def _match(
    mentions: Sequence[Mention], labels: Sequence[Label], text: str
) -> tuple[list[Mention], list[Mention], list[Label]]:
    unmatched, right, overlooked = list(mentions), [], []
    for kind, label in labels:
        spans = [(at, at + len(label)) for at in range(len(text)) if text.startswith(label, at)]
        hit = next(
            (
                m
                for m in unmatched
                if m.kind == kind and any(m.start < e and s < m.end for s, e in spans)
            ),
            None,
        )
        if hit is None:
            overlooked.append((kind, label))
        else:
            unmatched.remove(hit)
            right.append(hit)
    return right, unmatched, overlooked


def print_table(detector: Detector) -> None:
    """Prints precision and recall by part, direction and kind."""
    print(f"{'part':9s} {'items':9s} {'kind':7s} right wrong overlooked  precision  recall")
    for part in PARTS:
        measured = measure(detector, part)
        by_kind = {kind: sum((c[kind] for c in measured.values()), Counts()) for kind in KINDS}
        for what, counts in {**measured, "both": by_kind}.items():
            for kind, c in {**counts, "all": sum(counts.values(), Counts())}.items():
                print(
                    f"{part:9s} {what:9s} {kind:7s} {c.right:5d} {c.wrong:5d} {c.overlooked:10d}"
                    f"  {c.precision:9.1f}  {c.recall:6.1f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ner", default="rules")
    parser.add_argument("--show", metavar="PART", choices=PARTS, help="print this part's errors")
    flags = parser.parse_args()
    detector = load_detector(flags.ner)
    begin = time.perf_counter()
    print_table(detector)
    texts = 3 * sum(len(items(part)) for part in PARTS)
    print(f"{time.perf_counter() - begin:.1f} s for {texts // 3} items ({texts} texts)")
    if flags.show:
        for number, what, _, wrong, overlooked in outcomes(detector, flags.show):
            if wrong or overlooked:
                texts = [(m.kind, m.text) for m in wrong]
                print(number, what, "wrong:", texts, "overlooked:", overlooked)


if __name__ == "__main__":
    main()
