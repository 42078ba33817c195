"""TFDS data sets as records: read from disk, absent, allowed to be fetched, and damaged."""

import json
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest

from instruct.data.sources.tfds import TfdsSource
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import TFDS_VARIABLE
from tests.waiting import LIMIT_SECS
from tests.workspaces import workspace

NAME = "made_up_words:1.2.3"
PARTS = {"train": "train[:-2]", "validation": "train[-2:]"}


def as_record(row, identity):
    word = row["word"].decode()
    if int(row["length"]) == 3:
        return Dropped("three letters")
    return Record(identity, {"word": word}, str(int(row["length"])))


def as_other_record(row, identity):
    return as_record(row, identity)


def lacking(row, identity):
    return Record(identity, {"word": row["letters"]}, "1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set, prepared by TFDS itself."""
    import tensorflow_datasets as tfds

    class MadeUpWords(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            features = {"word": tfds.features.Text(), "length": tfds.features.Scalar(np.int32)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for word in (b"one", b"three", b"seven", b"eleven", b"fifteen", b"\xff\xfe-"):
                yield repr(word), {"word": word, "length": len(word)}

    folder = tmp_path_factory.mktemp("tfds")
    MadeUpWords(data_dir=str(folder)).download_and_prepare()
    return folder


@pytest.fixture
def there(prepared, monkeypatch):
    monkeypatch.setenv(TFDS_VARIABLE, str(prepared))
    return prepared


@pytest.fixture
def absent(tmp_path, monkeypatch):
    monkeypatch.setenv(TFDS_VARIABLE, str(tmp_path / "none"))
    return tmp_path / "none"


def test_rows_become_records_in_one_order(there):
    source = TfdsSource(NAME, PARTS, as_record)
    assert source.available(workspace()) is None and source.splits == ("train", "validation")
    items = [*source.records(workspace(), "train"), *source.records(workspace(), "validation")]
    assert len(items) == 6
    records = [item for item in items if isinstance(item, Record)]
    assert {r.fields["word"] for r in records} == {"three", "seven", "eleven", "fifteen"}
    reasons = sorted(item.reason for item in items if isinstance(item, Dropped))
    assert reasons == ["text is not UTF-8", "three letters"]
    assert {r.id.rpartition("-")[0] for r in records} == {
        "made_up_words-train",
        "made_up_words-validation",
    }
    assert len({r.id for r in records}) == len(records)
    assert [
        *source.records(workspace(), "train"),
        *source.records(workspace(), "validation"),
    ] == items


def _read(source, found):
    found.put(list(source.records(workspace(), "train")))


@pytest.mark.slow
def test_another_process_reads_the_same(there):
    source = TfdsSource(NAME, PARTS, as_record)
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    arguments = pickle.loads(pickle.dumps(source)), found
    worker = context.Process(target=_read, args=arguments, daemon=True)
    worker.start()
    assert found.get(timeout=LIMIT_SECS) == list(source.records(workspace(), "train"))
    worker.join()


def test_fingerprint_follows_what_the_records_come_from(there, tmp_path, monkeypatch):
    source = TfdsSource(NAME, PARTS, as_record)
    others = [
        TfdsSource(NAME, PARTS, as_record, version=2),
        TfdsSource(NAME, PARTS, as_other_record),
        TfdsSource(NAME, PARTS | {"train": "train[:-3]"}, as_record),
    ]
    found = {s.fingerprint(workspace()) for s in (source, *others)}
    assert len(found) == 4
    assert TfdsSource(NAME, dict(PARTS), as_record).fingerprint(workspace()) == source.fingerprint(
        workspace()
    )

    info = json.loads((source.path(workspace()) / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["7"]
    copy = tmp_path / "made_up_words" / "1.2.3"
    copy.mkdir(parents=True)
    (copy / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setenv(TFDS_VARIABLE, str(tmp_path))
    assert source.fingerprint(workspace()) not in found


def test_absent_data_say_what_to_do(absent, prepared, monkeypatch):
    source = TfdsSource("made_up_words:9.0.0", PARTS, as_record, manual="words.csv of example.org")
    assert source.fingerprint(workspace()) == "absent"
    message = source.available(workspace())
    assert message is not None
    for part in (str(absent), TFDS_VARIABLE, "--download", "tfds build", "words.csv"):
        assert part in message
    with pytest.raises(UserError, match="not prepared"):
        source.records(workspace(), "train")
    monkeypatch.setenv(TFDS_VARIABLE, str(prepared))
    assert "prepared: made_up_words:1.2.3" in (source.available(workspace()) or "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"splits": [{"name": "train"}]}'])
def test_a_folder_without_readable_metadata_counts_as_absent(absent, content):
    source = TfdsSource(NAME, PARTS, as_record)
    source.path(workspace()).mkdir(parents=True)
    (source.path(workspace()) / "dataset_info.json").write_text(content)
    assert source.fingerprint(workspace()) == "absent" and source.available(workspace())


def test_only_where_allowed_is_a_data_set_prepared(absent, monkeypatch):
    source = TfdsSource("bool_q:1.0.0", {"train": "train"}, as_record)
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "0")
    with pytest.raises(UserError, match="not prepared"):
        source.download(workspace())
    assert not absent.exists()

    import tensorflow_datasets as tfds

    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")
    assert source.available(workspace()) is None
    with tfds.testing.mock_data(num_examples=3):
        assert source.download(workspace()).name == "bool_q"

    failing = TfdsSource("bool_q:0.0.1", {"train": "train"}, as_record, manual="boolq.zip")
    with pytest.raises(UserError, match=r"bool_q:0\.0\.1 cannot be prepared.*boolq\.zip"):
        failing.records(workspace(), "train")


def test_what_does_not_fit_is_named(there):
    with pytest.raises(UserError, match=r"made_up_words:1\.2\.3.*'test'"):
        list(TfdsSource(NAME, {"test": "test"}, as_record).records(workspace(), "test"))
    with pytest.raises(UserError, match=r"no 'letters'; it has length, word"):
        list(TfdsSource(NAME, PARTS, lacking).records(workspace(), "train"))
    with pytest.raises(KeyError):
        TfdsSource(NAME, PARTS, as_record).records(workspace(), "test")
    for bad in ("made_up_words", "huggingface:x/y:1.0.0", "a/b/c:1.0.0", "a:1.0", ""):
        with pytest.raises(UserError, match="name:version"):
            TfdsSource(bad, PARTS, as_record)


def test_neither_the_module_nor_asking_imports_tensorflow(absent):
    script = (
        "import sys\n"
        "from instruct.data.sources.tfds import TfdsSource\n"
        "from instruct.workspace import Workspace\n"
        f"workspace = Workspace(tfds_dir=__import__('pathlib').Path({str(absent)!r}))\n"
        "source = TfdsSource('bool_q:1.0.0', {'train': 'train'}, print)\n"
        "assert source.available(workspace) and source.fingerprint(workspace) == 'absent'\n"
        "assert not [m for m in sys.modules if m.startswith('tensorflow')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
