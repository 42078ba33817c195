"""Sources whose splits need files of their own."""

import dataclasses
import functools
import pickle

import pytest

from instruct.errors import UserError
from instruct.prompts.record import Record
from tasks.suites.files import SplitFiles, SuiteSource, read_text
from tests.tasks.suites.made_up import data_folder
from tests.workspaces import workspace


def read_words(path, extra=None, ending=""):
    more = "" if extra is None else read_text(extra).strip()
    for number, word in enumerate(read_text(path).split()):
        yield Record(f"{number}", {"question": word + more}, word + ending)


@dataclasses.dataclass(frozen=True)
class Other:
    """Another place to read the test split from."""

    there: bool = True
    splits = ("test",)

    def fingerprint(self, workspace):
        return "other"

    def available(self, workspace):
        return None if self.there else "the other one is not there either"

    def records(self, workspace, split):
        yield Record(split, {"question": "other"}, "other")


SOURCE = SuiteSource(
    "words",
    {
        "test": SplitFiles(
            read_words, (("words/test.txt", "words/old/test.txt"), "words/more.txt")
        ),
        "dev": SplitFiles(functools.partial(read_words, ending="!"), ("words/dev.txt",)),
    },
    "https://words.example",
)


def answers(source, split):
    return [record.answer for record in source.records(workspace(), split)]


def test_each_split_needs_its_own_files_only(tmp_path):
    (tmp_path / "words" / "old").mkdir(parents=True)
    (tmp_path / "words" / "dev.txt").write_text("a b")
    with data_folder(tmp_path):
        assert SOURCE.available(workspace()) is None
        assert answers(SOURCE, "dev") == ["a!", "b!"]
        with pytest.raises(UserError, match="words/test.txt, .*words/more.txt"):
            SOURCE.records(workspace(), "test")
        before = SOURCE.fingerprint(workspace())
        (tmp_path / "words" / "old" / "test.txt").write_text("c")
        (tmp_path / "words" / "more.txt").write_text("?")
        assert [r.fields["question"] for r in SOURCE.records(workspace(), "test")] == ["c?"]
        assert SOURCE.fingerprint(workspace()) != before
        (tmp_path / "words" / "test.txt").write_text("d")
        assert answers(SOURCE, "test") == ["d"]  # the first name counts
        with pytest.raises(KeyError):
            SOURCE.records(workspace(), "train")


def test_the_fingerprint_knows_how_files_are_read(tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "dev.txt").write_text("a b")
    louder = {"dev": SplitFiles(functools.partial(read_words, ending="!!"), ("words/dev.txt",))}
    plain = {"dev": SOURCE.parts["dev"]}
    with data_folder(tmp_path):
        one, other = (dataclasses.replace(SOURCE, parts=parts) for parts in (plain, louder))
        assert one.fingerprint(workspace()) != other.fingerprint(workspace())
        assert pickle.loads(pickle.dumps(one)).fingerprint(workspace()) == one.fingerprint(
            workspace()
        )
    with data_folder(tmp_path / "nowhere"):
        assert one.fingerprint(workspace()) == "absent"


def test_another_source_stands_in_where_it_has_the_split(tmp_path):
    source = dataclasses.replace(SOURCE, fallback=Other())
    with data_folder(tmp_path):
        assert source.available(workspace()) is None and source.fingerprint(workspace()) != "absent"
        assert answers(source, "test") == ["other"]
        with pytest.raises(UserError, match=r"words/dev.txt"):
            source.records(workspace(), "dev")
        nowhere = dataclasses.replace(SOURCE, fallback=Other(there=False))
        with pytest.raises(UserError, match="not there either"):
            nowhere.records(workspace(), "test")
        # The other place has no such split, so it is not offered for it.
        with pytest.raises(UserError) as caught:
            nowhere.records(workspace(), "dev")
        assert "either" not in str(caught.value)
        absent = dataclasses.replace(SOURCE, fallback=Other(there=False))
        why = absent.available(workspace())
        assert why is not None and "https://words.example" in why and "either" in why


def test_text_that_is_not_utf8_is_a_users_mistake(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_text(tmp_path / "bad.txt")
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfword")
    assert read_text(tmp_path / "marked.txt") == "word"
