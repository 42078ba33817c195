"""What T5X computed."""

from typing import Any

import pytest

from tests.train.t5x_run import t5x_run


@pytest.fixture(scope="session")
def t5x() -> dict[str, Any]:
    """See `t5x_run`."""
    return t5x_run()
