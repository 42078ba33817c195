"""JSON files that lie beside the stores: replaced whole, so that no reader sees half of one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from instruct.errors import naming_file


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, making its folder; equal values give equal bytes.

    Raises:
        OSError: no space, no permission; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    descriptor, working = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with naming_file(path), open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; these are shared as the stores are.
        os.chmod(working, path.parent.stat().st_mode & 0o666)
        os.replace(working, path)
    except BaseException:
        os.unlink(working)
        raise
