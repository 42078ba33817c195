"""Each odd data file gives the right task, or one message with file and line and status 2."""

import json
import os

import pytest

from instruct.cli.arguments import main
from tests.data.odd_files import ODD_FILES, write_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_all(folder)
    return folder


def test_there_are_enough():
    names = [odd.name for odd in ODD_FILES]
    assert len(names) == len(set(names)) >= 40
    assert sum(odd.records is None for odd in ODD_FILES) >= 20


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.name)
def test_an_odd_file(odd, folder, tmp_path, capsys):
    name = f"odd.{odd.name.replace('.', '_')}"
    saved = tmp_path / "task.toml"
    flags = [f"--data={folder / odd.name}", f"--task_name={name}", *odd.flags]
    flags += [f"--save_task={saved}", f"--gin.STORE_DIR={tmp_path}"]
    status = main(["show", *flags])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    for words in odd.says:
        assert words in err
    if odd.records is None:
        assert (status, err.count("error: ")) == (2, 1)
        # The file or, where a flag is wrong, the flag.
        values = (odd.name.partition(".")[0], "held_out", "metric", "template")
        assert any(value in err for value in values)
        assert not saved.exists()
        return
    assert status == 0, err
    for words in odd.example:
        assert words in out
    counts = err.partition("splits: ")[2].partition("\n")[0].partition(" (")[0]
    counts = counts.partition(";")[0]
    assert sum(int(part.split()[1].replace(",", "")) for part in counts.split(", ")) == odd.records
    # The saved task is the same one.
    assert main(["show", f"--data={saved}", "--json", f"--gin.STORE_DIR={tmp_path}"]) == 0
    out, again = capsys.readouterr()
    assert err.partition("\n")[0] == again.partition("\n")[0]  # name and version
    assert json.loads(out)["task"] == name
    assert os.path.isabs(str(saved))
