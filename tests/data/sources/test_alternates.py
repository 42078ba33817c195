import dataclasses
import pickle

import pytest

from instruct.data.sources.alternates import Alternates
from instruct.data.sources.files import FieldMap, JsonLinesSource, Part
from instruct.errors import UserError
from tests.workspaces import workspace


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    return tmp_path


def source(name, *splits, origin=""):
    parts = {split: Part(f"{name}-{split}.jsonl") for split in splits}
    return JsonLinesSource(name, parts, origin, FieldMap({"q": "q"}, "a"))


def write(folder, name, *splits):
    for split in splits:
        (folder / f"{name}-{split}.jsonl").write_text(f'{{"q": "{split}", "a": "{name}"}}\n')


def answers(alternates):
    return [
        record.answer
        for split in alternates.splits
        for record in alternates.records(workspace(), split)
    ]


def test_the_first_that_is_there_is_used(folder):
    both = Alternates((source("a", "train", "test"), source("b", "train", "test")))
    write(folder, "b", "train", "test")
    assert both.available(workspace()) is None and answers(both) == ["b", "b"]
    assert (
        both.fingerprint(workspace())
        == f"1-JsonLinesSource-{both.sources[1].fingerprint(workspace())}"
    )
    second = both.fingerprint(workspace())
    write(folder, "a", "train", "test")
    assert answers(both) == ["a", "a"] and both.fingerprint(workspace()) != second
    assert pickle.loads(pickle.dumps(both)) == both


def test_splits_never_come_from_two_sources(folder):
    both = Alternates((source("a", "train", "test"), source("b", "train", "test")))
    write(folder, "b", "train", "test")
    write(folder, "a", "train")  # half of it: not there
    assert answers(both) == ["b", "b"]


@dataclasses.dataclass(frozen=True)
class Remote(JsonLinesSource):
    """May be downloaded."""

    def available(self, workspace):
        return None

    def records(self, workspace, split):
        raise OSError("no network")


def test_what_is_here_goes_before_a_download(folder):
    remote = Remote("a", {"train": Part("a-train.jsonl")})
    both = Alternates((remote, source("b", "train")))
    with pytest.raises(OSError, match="no network"):
        both.records(workspace(), "train")
    write(folder, "b", "train")
    assert answers(both) == ["b"] and both.fingerprint(workspace()).startswith("1-")


def test_the_choice_is_made_when_records_are_asked_for(folder):
    both = Alternates((source("a", "train"), source("b", "train")))
    write(folder, "b", "train")
    records = both.records(workspace(), "train")
    write(folder, "a", "train")
    assert [record.answer for record in records] == ["b"]


def test_none_is_there(folder):
    both = Alternates((source("a", "train", origin="here"), source("b", "train", origin="there")))
    assert both.fingerprint(workspace()) == "absent"
    why = both.available(workspace()) or ""
    assert "a-train.jsonl" in why and "b-train.jsonl" in why
    assert "from here" in why and "from there" in why
    with pytest.raises(UserError, match="one of them is enough"):
        both.records(workspace(), "train")


def test_splits_are_those_of_all_sources(folder):
    both = Alternates((source("a", "train", "test"), source("b", "test", "train", "validation")))
    assert both.splits == ("train", "test")
    with pytest.raises(KeyError):
        both.records(workspace(), "validation")
    with pytest.raises(UserError, match="no split in common: train; test"):
        Alternates((source("a", "train"), source("b", "test")))
    with pytest.raises(UserError, match="at least one"):
        Alternates(())
