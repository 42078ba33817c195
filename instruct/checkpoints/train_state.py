"""`TrainState`: all that training changes, one pytree; what a checkpoint holds."""

from typing import Any, NamedTuple


class TrainState(NamedTuple):
    """Parameters, optimiser state, and how many updates they have behind them.

    `step` is an int32 scalar and counts finished updates: 0 before the first. The update that turns
    step n into n + 1 draws its dropout from n, and is logged and saved as n + 1.
    """

    step: Any
    params: Any
    opt_state: Any
