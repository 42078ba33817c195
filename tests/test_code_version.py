"""The hash of the code does not change within a process; the commit is this checkout's."""

import re
import subprocess

from instruct import code_version


def test_code_hash_is_a_sha256():
    assert re.fullmatch("[0-9a-f]{64}", code_version.code_hash())
    assert code_version.code_hash() == code_version.code_hash.__wrapped__()


def test_commit_of_the_checkout():
    commit, dirty = code_version.git_commit()
    if commit is None:  # an archive without .git
        assert dirty is None
        return
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=code_version._ROOT, capture_output=True, text=True
    )
    assert commit == head.stdout.strip() and isinstance(dirty, bool)


def test_no_commit_outside_of_git(tmp_path, monkeypatch):
    monkeypatch.setattr(code_version, "_ROOT", tmp_path)
    assert code_version.git_commit() == (None, None)
