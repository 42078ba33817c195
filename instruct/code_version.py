"""Which code ran: the git commit of this program, and a hash of its files."""

import functools
import hashlib
import pathlib
import subprocess

_PACKAGE = pathlib.Path(__file__).resolve().parent
_ROOT = _PACKAGE.parent


def git_commit() -> tuple[str | None, bool | None]:
    """(commit, whether files differ from it) of this program; (None, None) outside of git."""
    if not (_ROOT / ".git").exists():  # installed, perhaps below another project's checkout
        return None, None

    def git(*words: str) -> str:
        command = ["git", "-C", str(_ROOT), *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return commit, bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@functools.cache
def code_hash() -> str:
    """SHA-256 over the names and contents of every Python file of `instruct` and `tasks`."""
    digest = hashlib.sha256()
    for package in ("instruct", "tasks"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
