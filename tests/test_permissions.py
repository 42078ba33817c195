"""What was built aside is as open as what was made in place."""

import tempfile
from pathlib import Path

from instruct.permissions import as_made_by_mkdir


def test_a_temporary_folder_gets_the_rights_of_an_ordinary_one(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    working = Path(tempfile.mkdtemp(dir=tmp_path))
    assert working.stat().st_mode != ordinary.stat().st_mode
    as_made_by_mkdir(working)
    assert working.stat().st_mode == ordinary.stat().st_mode
