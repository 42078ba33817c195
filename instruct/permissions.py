"""Who may read what was built in a temporary folder."""

import os
from pathlib import Path


def as_made_by_mkdir(folder: Path) -> None:
    """Gives a folder of `tempfile.mkdtemp`, which is private, the rights of an ordinary one.

    What is built aside and renamed to its place is shared between the hosts and users of a project.
    """
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
