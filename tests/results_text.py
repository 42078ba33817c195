"""Results files as text that a test edits."""

import pathlib

from instruct.json_text import unsealed_line


def without_checksums(path: pathlib.Path) -> str:
    """The lines of a results file, which may be changed without becoming damage."""
    lines = path.read_bytes().splitlines()
    return "".join(f"{unsealed_line(line).decode()}\n" for line in lines)
