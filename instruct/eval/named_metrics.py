"""Metrics by name, for tasks that a file defines (instruct/data/task_file.py)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.errors import unknown_name
from instruct.eval import metrics

# Name -> its functions; the first name of the first one is the task's primary metric.
METRICS: dict[str, tuple[Callable[..., Mapping[str, Any]], ...]] = {
    "accuracy": (metrics.accuracy, metrics.class_f1),
    "exact_match": (metrics.exact_match, metrics.squad),
    "number_match": (metrics.number_match,),
    "rouge": (metrics.rouge,),
    "rouge_unicode": (functools.partial(metrics.rouge, tokenizer=metrics.UNICODE_TOKENIZER),),
    "squad": (metrics.squad,),
}


def find_metrics(name: str, labels: Sequence[str]) -> tuple[Callable[..., Mapping[str, Any]], ...]:
    """The metric functions of a name.

    Args:
        labels: classes that `class_f1` lists, whichever of them a sample of examples has.

    Raises:
        UserError: an unknown name.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    of_classes = functools.partial(metrics.class_f1, labels=tuple(labels))
    return tuple(of_classes if fn is metrics.class_f1 else fn for fn in METRICS[name])


def read_texts(
    decoded: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> str | list[str]:
    """A `postprocess_fn`: a target is its one text or its list of references, stripped."""
    references = () if example is None or not is_target else example["references"]
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in references]
    return texts if len(texts) > 1 else decoded.strip()
