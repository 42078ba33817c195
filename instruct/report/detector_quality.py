"""How good the detectors of `ner` are on a labelled set, as measured; a test measures again.

The set and the measurement: `tests/report/measure_detector.py`.
"""

import dataclasses
from collections.abc import Mapping

from instruct.report.statistics import wilson


@dataclasses.dataclass(frozen=True)
class Counts:
    """Labelled items that were found, found wrongly, and overlooked."""

    right: int
    wrong: int
    overlooked: int

    @property
    def precision(self) -> float:
        """Per cent of what was found that is labelled."""
        return 100.0 * self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Per cent of what is labelled that was found."""
        return 100.0 * self.right / max(1, self.right + self.overlooked)


# Of the part `held_out`; spaCy's is measured with en_core_web_sm 3.8.0.
DETECTOR_QUALITY: Mapping[str, Mapping[str, Counts]] = {
    "rules": {"invented": Counts(45, 4, 0), "missed": Counts(65, 2, 0)},
    "spacy:en_core_web_sm": {"invented": Counts(44, 5, 1), "missed": Counts(63, 3, 2)},
}


def sentence(counts: Counts) -> str:
    """ "precision 94.9 % [83.1, 98.6], recall 100.0 % [90.6, 100.0]"."""
    made = []
    for name, of in (("precision", counts.wrong), ("recall", counts.overlooked)):
        low, high = wilson(counts.right, counts.right + of)
        made.append(f"{name} {getattr(counts, name):.1f} % [{low:.1f}, {high:.1f}]")
    return ", ".join(made)


def describe(detector: str) -> str:
    """What a page says about the detector that it used."""
    known = DETECTOR_QUALITY.get(detector)
    if known is None:
        return (
            f"How good the detector {detector} is has not been measured on the labelled set; "
            f"measured are {', '.join(DETECTOR_QUALITY)}."
        )
    labels = sum(c.right + c.overlooked for c in known.values())
    return (
        f"On {labels} labelled items that were not looked at while it was made, the detector "
        f"({detector}) has, for what is invented: {sentence(known['invented'])}; for what is "
        f"missed: {sentence(known['missed'])} (95 % intervals). The items were written for this "
        "purpose, mostly in clean English; on other text, expect less."
    )
