"""`EarlyStopping`: ends a run whose evaluations no longer improve."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.checkpoints.checkpoint import CheckpointConfig, is_lowest_best
from instruct.fields import bounded, check_fields


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When to stop, from the rows of metrics.jsonl alone, so that a resumed run decides the same.

    Attributes:
        patience: stop after this many evaluations in a row without an improvement; None: never.
        min_change: an evaluation improves the metric if it is better than the best by more.
        metric: name of a scalar of the evaluation, as in metrics.jsonl; "": that of the best
            checkpoint (`CheckpointConfig.best_metric`).
        is_lowest: a lower `metric` is better; None: by its name (`is_lowest_best`), or as for the
            best checkpoint if it is the same metric.
    """

    patience: int | None = bounded(None, least=1)
    min_change: float = bounded(0.0, least=0)
    metric: str = ""
    is_lowest: bool | None = None

    __post_init__ = check_fields

    def resolved(self, best: CheckpointConfig) -> "EarlyStopping":
        """With the metric and direction that are used."""
        metric = self.metric or best.best_metric
        by_name = best.lowest if metric == best.best_metric else is_lowest_best(metric)
        is_lowest = by_name if self.is_lowest is None else self.is_lowest
        return dataclasses.replace(self, metric=metric, is_lowest=is_lowest)

    def reason(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Why to stop after the last of these rows; None: go on. For a `resolved` one.

        A value that is not finite is no improvement.
        """
        best, best_step, since = math.nan, 0, 0
        sign = -1.0 if self.is_lowest else 1.0
        for row in rows:
            if self.patience is None or self.metric not in row:
                continue
            value = math.nan if row[self.metric] is None else row[self.metric]
            since += 1
            is_first = math.isfinite(value) and math.isnan(best)
            if is_first or sign * (value - best) > self.min_change:
                best, best_step, since = value, row["step"], 0
        if self.patience is None or since < self.patience:
            return None
        if math.isnan(best):
            return f"{since} evaluations gave no finite {self.metric}"
        change = f" by more than {self.min_change:g}" if self.min_change else ""
        return (
            f"{since} evaluations did not improve {self.metric}{change} since step {best_step:,} "
            f"({best:.5g})"
        )


def choice_lines(
    checkpoint: CheckpointConfig, stops_early: EarlyStopping, every_steps: Sequence[int]
) -> list[str]:
    """Lines for the user on what chooses a checkpoint or ends the run, where that is asked for."""
    best = {True: "lowest", False: "highest"}
    lines = []
    if checkpoint.keep_best and checkpoint.best_metric != CheckpointConfig.best_metric:
        which = best[checkpoint.lowest]
        lines.append(f"keeps the checkpoint with the {which} {checkpoint.best_metric}")
        saved = checkpoint.save_every_steps
        if unsaved := [every for every in every_steps if saved and every % saved]:
            lines.append(
                f"warning: there are evaluations every {min(unsaved):,} steps and checkpoints "
                f"every {saved:,}; the best one is among the steps that have both. Set "
                "checkpoint.CheckpointConfig.save_every_steps so that it divides the former."
            )
    if stops_early.patience:
        lines.append(
            f"stops early after {stops_early.patience} evaluations without a "
            f"{best[bool(stops_early.is_lowest)].replace('est', 'er')} {stops_early.metric}"
        )
    return lines
