"""Made-up files in the publishers' formats, and real ones, as the data folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from instruct.workspace import DATA_VARIABLE

MADE_UP = Path(__file__).parent / "data"


@contextlib.contextmanager
def data_folder(folder: Path) -> Iterator[None]:
    """`folder` as the data folder."""
    before = os.environ.get(DATA_VARIABLE)
    os.environ[DATA_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_VARIABLE]
        else:
            os.environ[DATA_VARIABLE] = before
