"""Reading and scoring of the Flan 2021 tasks, beyond `tasks/answers.py`.

`read_*` are SeqIO's `postprocess_fn`s; they add to a target what its metric needs (all right
entities, the group). Metrics are `(targets, predictions) -> {name: value}`, 0-100 unless their
docstring says otherwise.
"""

import collections
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from instruct.eval import metrics
from instruct.prompts.options import plain
from tasks.answers import Example, chosen_option, metadata_of, read_answer, text_of, texts_of


class GroupedLabel(NamedTuple):
    """A target that is scored together with the others of its group."""

    label: str
    group: str


class EntityTarget(NamedTuple):
    """Right fillers of a gap, and the text that follows the gap (ReCoRD)."""

    entities: tuple[str, ...]
    tail: str
    group: str


# ---------------------------------------------------------------- reading


def _answer(decoded: str, example: Example) -> str:
    """The record's answer, for a target."""
    return text_of(example["answer"]) if example and "answer" in example else decoded


def read_first_line(decoded: str, example: Example = None, is_target: bool = False) -> str:
    """`tasks.answers.read_answer` of the first line."""
    return read_answer(decoded.strip().partition("\n")[0], example, is_target)


def read_grouped_label(
    decoded: str, example: Example = None, is_target: bool = False
) -> str | GroupedLabel:
    """`tasks.answers.read_answer`; a target includes its group."""
    label = read_answer(decoded, example, is_target)
    return GroupedLabel(label, str(metadata_of(example).get("group", ""))) if is_target else label


def read_text(decoded: str, example: Example = None, is_target: bool = False) -> str:
    """Free text with one right answer."""
    return (_answer(decoded, example) if is_target else decoded).strip()


def read_first_word(decoded: str, example: Example = None, is_target: bool = False) -> str:
    """The first word, in lower case and without punctuation around it."""
    words = read_text(decoded, example, is_target).split()
    return plain(words[0]) if words else ""


def read_score(decoded: str, example: Example = None, is_target: bool = False) -> float:
    """A number; -1 for a prediction without one (as T5 reads scores)."""
    written = _answer(decoded, example) if is_target else chosen_option(decoded.strip(), example)
    match = re.search(r"-?\d+(?:\.\d+)?", written)
    score = float(match.group()) if match else -1.0
    # Hundreds of digits are beyond every float: infinity would make the correlation of all NaN.
    return score if math.isfinite(score) else -1.0


def read_entity(
    decoded: str, example: Example = None, is_target: bool = False
) -> str | EntityTarget:
    """A continuation that starts with an entity; a target lists the right entities."""
    if not is_target:
        return chosen_option(decoded.strip(), example)
    metadata = metadata_of(example)
    tail = str(metadata.get("tail", ""))
    endings = texts_of(example, "references") or [decoded]
    entities = tuple(ending.removesuffix(tail) for ending in endings)
    return EntityTarget(entities, tail, str(metadata.get("group", "")))


# ---------------------------------------------------------------- scoring


def _label_f1(targets: Sequence[str], predictions: Sequence[str], label: str) -> float:
    """F1 of one label, 0-1."""
    pairs = list(zip(targets, predictions, strict=True))
    both = sum(t == label and p == label for t, p in pairs)
    either = sum((t == label) + (p == label) for t, p in pairs)
    return 2.0 * both / either if either else 0.0


def f1_of_yes(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the label "yes" (MRPC, QQP); other predictions count as not "yes"."""
    return {"f1": 100.0 * _label_f1(targets, predictions, "yes")}


def mean_label_f1(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Mean F1 over the labels that targets have (CommitmentBank), unweighted."""
    values = [_label_f1(targets, predictions, label) for label in sorted(set(targets))]
    return {"mean_f1": 100.0 * float(np.mean(values)) if values else 0.0}


def correlation(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation times 100; 0 where either side is constant."""
    from scipy import stats

    if len(set(targets)) < 2 or len(set(predictions)) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        pearson: Any = stats.pearsonr(targets, predictions)
        spearman: Any = stats.spearmanr(targets, predictions)
    return {"pearson": 100.0 * float(pearson[0]), "spearman": 100.0 * float(spearman[0])}


def multirc(targets: Sequence[GroupedLabel], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of "yes" over all answers, and the share of questions with every answer judged right."""
    whole: dict[str, bool] = collections.defaultdict(lambda: True)
    for target, prediction in zip(targets, predictions, strict=True):
        whole[target.group] &= target.label == prediction
    f1a = _label_f1([target.label for target in targets], predictions, "yes")
    return {
        "f1a": 100.0 * f1a,
        "question_em": 100.0 * float(np.mean(list(whole.values()))) if whole else 0.0,
    }


def record(targets: Sequence[EntityTarget], predictions: Sequence[str]) -> dict[str, float]:
    """SQuAD's EM and F1 of the entity, best of each query's rows, mean over queries."""
    best: dict[str, tuple[float, float]] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        entity = prediction.removesuffix(target.tail)
        scores = metrics.squad([target.entities], [entity])
        old = best.get(target.group, (0.0, 0.0))
        best[target.group] = (max(old[0], scores["em"]), max(old[1], scores["f1"]))
    em, f1 = np.mean(list(best.values()), axis=0) if best else (0.0, 0.0)
    return {"em": float(em), "f1": float(f1)}


def bleu(
    targets: Sequence[metrics.Target], predictions: Sequence[str], tokenize: str = "intl"
) -> dict[str, float]:
    """Corpus BLEU of sacreBLEU, all references.

    Args:
        tokenize: sacreBLEU's name of a tokeniser. "intl" fits scripts with blanks between words.
            For other scripts use "zh" or "char": "intl" takes whole sentences for words, and a
            warning counts these targets.
    """
    import sacrebleu

    if not targets:
        return {"bleu": 0.0}
    if tokenize in ("intl", "13a", "none"):
        metrics.warn_of_unfit_targets(
            targets,
            lambda text: not metrics.in_unspaced_script(text),
            "{unfit} of {all} targets are in scripts without blanks between words, of which BLEU's "
            f"tokeniser {tokenize!r} takes whole sentences for words. Use "
            "functools.partial(bleu, tokenize='char'), or 'zh' for Chinese.",
        )
    pairs = zip(targets, predictions, strict=True)
    references = [metrics.references_of(target) for target, _ in pairs]
    most = max(map(len, references))
    # sacreBLEU takes one list for each reference number; None marks a missing reference.
    streams: Any = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    score = sacrebleu.corpus_bleu(
        list(predictions), streams, tokenize=tokenize, smooth_method="exp", force=True
    )
    return {"bleu": float(score.score)}


def _word_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Insertions, deletions and substitutions of words (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, word in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            best = min(previous + (word != other), row[j] + 1, row[j - 1] + 1)
            previous, row[j] = row[j], best
    return row[-1]


def word_edit_distance(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Number of words to change: 0 is perfect. Case matters, since some tasks restore it."""
    distances = [
        _word_distance(t.split(), p.split()) for t, p in zip(targets, predictions, strict=True)
    ]
    return {
        f"word_edit_{name}": float(getattr(np, name)(distances)) if distances else 0.0
        for name in ("min", "max", "mean", "median", "sum")
    }
