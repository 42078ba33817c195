"""Instruction tuning in JAX: tasks, mixtures, packed training, evaluation, reports.

The names below are the Python API (`instruct/api.py`), which is imported when one is first used:
`import instruct` alone imports nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instruct.api import (
        Answer,
        DecodeConfig,
        Ranking,
        RunFailed,
        Score,
        SuiteResult,
        TaskFile,
        TextModel,
        UserError,
        add_task,
        convert_checkpoint,
        evaluate_model,
        load_model,
        read_results,
        train_model,
    )

__all__ = [
    "Answer",
    "DecodeConfig",
    "Ranking",
    "RunFailed",
    "Score",
    "SuiteResult",
    "TaskFile",
    "TextModel",
    "UserError",
    "add_task",
    "convert_checkpoint",
    "evaluate_model",
    "load_model",
    "read_results",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from instruct import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "Any"})
