"""Measured precision and recall of the detectors; a test measures them again.

The labelled set and the measurement: `tests/report/measure_detector.py`.
"""

import dataclasses
from collections.abc import Mapping

from instruct.files import read_package_toml
from instruct.report.faithfulness.mentions import KINDS
from instruct.report.statistics import wilson


@dataclasses.dataclass(frozen=True)
class Counts:
    """Labelled items that were found, found wrongly, and overlooked."""

    right: int = 0
    wrong: int = 0
    overlooked: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Counts(*map(sum, pairs))

    @property
    def precision(self) -> float:
        """In per cent."""
        return 100.0 * self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """In per cent."""
        return 100.0 * self.right / max(1, self.right + self.overlooked)


Quality = Mapping[str, Mapping[str, Counts]]  # "invented" or "missed" -> kind -> counts


_MEASURED = read_package_toml("instruct.report.faithfulness", "quality.toml")
DETECTOR_QUALITY: Mapping[str, Quality] = {
    detector: {
        what: {kind: Counts(*counts[kind]) for kind in KINDS} for what, counts in measured.items()
    }
    for detector, measured in _MEASURED.items()
}


def sentence(counts: Counts) -> str:
    """Precision and recall: "precision 94.9 % [83.1, 98.6], recall 100.0 % [90.6, 100.0]"."""
    precision = wilson(counts.right, counts.right + counts.wrong)
    recall = wilson(counts.right, counts.right + counts.overlooked)
    return (
        f"precision {counts.precision:.1f} % [{precision[0]:.1f}, {precision[1]:.1f}], "
        f"recall {counts.recall:.1f} % [{recall[0]:.1f}, {recall[1]:.1f}]"
    )


def describe(detector: str) -> str:
    """What a page says about the detector that it used."""
    quality = DETECTOR_QUALITY.get(detector)
    if quality is None:
        return (
            f"The detector {detector} has not been measured on the labelled set; measured are "
            f"{', '.join(DETECTOR_QUALITY)}."
        )
    invented, missed = (sum(quality[what].values(), Counts()) for what in ("invented", "missed"))
    labels = invented.right + invented.overlooked + missed.right + missed.overlooked
    kinds = "; ".join(
        f"{kind}s: {sentence(quality['invented'][kind] + quality['missed'][kind])}"
        for kind in KINDS
    )
    return (
        f"On {labels} held-out English labels, for which no rule was written, the detector "
        f"({detector}) reaches, for invented items: {sentence(invented)}; for missed items: "
        f"{sentence(missed)}. Both together by kind: {kinds} (95 % intervals; an item found under "
        "another kind counts as wrong). The rules were chosen with these figures in view, and the "
        "texts were written for this purpose, mostly in clean English: expect less on other text, "
        "and nothing in other languages."
    )
