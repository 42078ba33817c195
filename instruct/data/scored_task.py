"""`ScoredTask`: what evaluation uses of a `seqio.Task`, for one of our tasks in one mode."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.data.spec import TaskSpec
from instruct.errors import UserError

MetricFn = Callable[..., Mapping[str, Any]]
_KINDS = (
    ("targets", "predictions"),
    ("targets", "scores"),
    ("targets", "predictions", "aux_values"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredTask:
    """A task in one mode, whose names and rules are those of `seqio.Task`."""

    spec: TaskSpec
    mode: str

    @property
    def name(self) -> str:
        return self.spec.leaf_name(self.mode)

    def postprocess_fn(self, decoded_model_output: Any, **postprocess_kwargs: Any) -> Any:
        """The reply as metrics compare it."""
        postprocess_fn = self.spec.postprocess_fn
        if postprocess_fn is None:
            return decoded_model_output
        return postprocess_fn(decoded_model_output, **postprocess_kwargs)

    @functools.cached_property
    def _metric_fns(self) -> Mapping[tuple[str, ...], Sequence[MetricFn]]:
        """Arguments -> the functions that take them."""
        by_kind: dict[tuple[str, ...], list[MetricFn]] = {kind: [] for kind in _KINDS}
        for metric_fn in self.spec.metric_fns_of(self.mode):
            required = tuple(
                name
                for name, parameter in inspect.signature(metric_fn).parameters.items()
                if parameter.default is inspect.Parameter.empty
                and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            )
            if required not in by_kind:
                raise UserError(
                    f"task {self.name!r}: a metric function takes {required}; allowed: "
                    f"{', '.join(map(str, _KINDS))}"
                )
            by_kind[required].append(metric_fn)
        return by_kind

    @property
    def predict_metric_fns(self) -> Sequence[MetricFn]:
        """Metric functions of (targets, predictions)."""
        return self._metric_fns[_KINDS[0]]

    @property
    def score_metric_fns(self) -> Sequence[MetricFn]:
        """Metric functions of (targets, scores): the targets' log-likelihoods."""
        return self._metric_fns[_KINDS[1]]

    @property
    def predict_with_aux_metric_fns(self) -> Sequence[MetricFn]:
        """Metric functions of (targets, predictions, aux_values)."""
        return self._metric_fns[_KINDS[2]]
