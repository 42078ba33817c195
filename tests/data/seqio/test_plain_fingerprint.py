"""Fingerprints of plain seqio tasks of every kind of source, over processes and changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from instruct.data import registry
from instruct.data.feed.pipeline import TrainFeed
from instruct.data.stores.jobs import store_jobs
from instruct.data.stores.prepare import prepare
from instruct.data.stores.store import store_path
from instruct.errors import UserError
from tests.data.seqio.test_reading import make_task
from tests.data.toy import toy_config
from tests.workspaces import workspace

ROOT = Path(__file__).resolve().parents[3]
MODULE = """
import functools
import os
import seqio
import tensorflow as tf
import my_words

DATA = os.environ["TASK_DATA"]
LABEL = "label: "

@seqio.map_over_dataset
def parse(example):
    text = example if not isinstance(example, dict) else example["text"]
    return {"inputs": tf.strings.join([LABEL, my_words.question(text)]), "targets": text}

@seqio.utils.map_over_dataset(num_seeds=1)
def shake(example, seed):
    return example

def lines(split, shuffle_files, seed=None, count=10):
    return tf.data.Dataset.range(count).map(tf.strings.as_string)

def keep(dataset, least=1):
    return dataset.filter(lambda example: tf.strings.length(example["targets"]) >= least)

def dataset_fn(split, shuffle_files, seed=None):
    return lines(split, shuffle_files, count=20)

SOURCES = {
    "function": seqio.FunctionDataSource(dataset_fn, {"train", "validation", "test"}),
    "lines": seqio.TextLineDataSource({"train": f"{DATA}/*.txt"}, skip_header_lines=1),
    "examples": seqio.TFExampleDataSource(
        {"train": f"{DATA}/rows.tfrecord"}, {"text": tf.io.FixedLenFeature([], tf.string)}
    ),
    "tfds": seqio.TfdsDataSource(
        tfds_name="made_up_lines:1.2.3", tfds_data_dir=DATA, splits={"train": "train[:3]"}
    ),
}
VOCABULARY = seqio.SentencePieceVocabulary(os.environ["TASK_VOCABULARY"], extra_ids=10)
for name, source in SOURCES.items():
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[
            parse,
            shake,
            functools.partial(keep, least=2),
            lambda dataset: dataset.take(100),
            seqio.CacheDatasetPlaceholder(),
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=True),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={
            "inputs": seqio.Feature(VOCABULARY, add_eos=True, required=False),
            "targets": seqio.Feature(seqio.ByteVocabulary(), add_eos=True),
        },
        postprocess_fn=lambda text, **_: text,
        metric_fns=[],
    )
seqio.MixtureRegistry.add("both", ["function", "lines"], default_rate=1.0)
"""
WORDS = "PREFIX = 'say '\ndef question(text):\n    return PREFIX + text\n"
ALL = ("function", "lines", "examples", "tfds")
# What is changed -> the tasks that it changes.
CHANGES = {
    ("PREFIX = 'say '", "PREFIX = 'tell '"): ALL,
    ('"label: "', '"mark: "'): ALL,
    ("least=2", "least=3"): ALL,
    ("take(100)", "take(101)"): ALL,
    ("num_seeds=1", "num_seeds=2"): ALL,
    ("add_eos=True, required=False", "add_eos=False, required=False"): ALL,
    ("required=False", "required=True"): ALL,
    ("required=False", "dtype=tf.int64"): ALL,
    ("extra_ids=10", "extra_ids=11"): ALL,
    ("seqio.ByteVocabulary()", "seqio.ByteVocabulary(extra_ids=4)"): ALL,
    ("copy_pretokenized=True", "copy_pretokenized=False"): ALL,
    ("CacheDatasetPlaceholder()", "CacheDatasetPlaceholder(required=True)"): ALL,
    ("            shake,\n", ""): ALL,
    ("count=20", "count=21"): ("function",),
    ("skip_header_lines=1", "skip_header_lines=2"): ("lines",),
    ("/*.txt", "/a*.txt"): ("lines",),
    ("FixedLenFeature([], tf.string)", "FixedLenFeature([1], tf.string)"): ("examples",),
    ("train[:3]", "train[:2]"): ("tfds",),
    ("for name, source", "SOURCES['lines'].version = '2'\nfor name, source"): ("lines",),
    # What decides scores and no examples, and what says the same.
    ("postprocess_fn=lambda text, **_: text", "postprocess_fn=lambda text, **_: text + ' '"): (),
    ('{"train", "validation", "test"}', '{"test", "train", "validation"}'): (),
    ("default_rate=1.0", "default_rate=2.0"): (),
    ("@seqio.map_over_dataset", "# A comment.\n@seqio.map_over_dataset"): (),
}
PROGRAM = """
import importlib, json, sys
import seqio
from instruct.data.seqio.reading import plain_fingerprint
found = []
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    importlib.import_module("my_tasks")
    found.append({n: plain_fingerprint(n) for n in ("function", "lines", "examples", "tfds")})
    seqio.TaskRegistry.reset(), seqio.MixtureRegistry.reset()
    del sys.path[0], sys.modules["my_tasks"], sys.modules["my_words"]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files for every kind of source, and a vocabulary."""
    import tensorflow_datasets as tfds

    class MadeUpLines(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": np.str_})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((n, {"text": f"line {n}"}) for n in range(4))

    folder = tmp_path_factory.mktemp("data")
    MadeUpLines(data_dir=str(folder)).download_and_prepare()
    (folder / "a.txt").write_text("head\none\ntwo\n")
    (folder / "b.txt").write_text("head\nthree\n")
    with tf.io.TFRecordWriter(str(folder / "rows.tfrecord")) as writer:
        value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"row"]))
        features = tf.train.Features(feature={"text": value})
        writer.write(tf.train.Example(features=features).SerializeToString())
    (folder / "gym.model").write_bytes((ROOT / "tasks/vocab/gym.model").read_bytes())
    return folder


def write(folder, change=("", "")):
    folder.mkdir(parents=True)
    assert change[0] in MODULE + WORDS
    for name, text in (("my_tasks", MODULE), ("my_words", WORDS)):
        (folder / f"{name}.py").write_text(text.replace(*change) if change[0] else text)
    return str(folder)


def fingerprints(data, folders, seed, working=None, vocabulary="gym.model"):
    variables = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "TASK_DATA": str(data)}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, *folders],
        env=os.environ | variables | {"TASK_VOCABULARY": str(data / vocabulary)},
        cwd=working,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.slow
def test_every_change_is_seen_in_one_process_and_none_in_another(data, tmp_path):
    plain, moved = write(tmp_path / "plain"), write(tmp_path / "far" / "moved")
    changed = [write(tmp_path / str(n), change) for n, change in enumerate(CHANGES)]
    (before, *after) = fingerprints(data, [plain, *changed], "1")
    assert len(set(before.values())) == len(ALL)
    for (change, tasks), found in zip(CHANGES.items(), after):
        assert tuple(name for name in ALL if found[name] != before[name]) == tasks, change
    # Another process, hash seed, folder of the module, working folder, name of the vocabulary.
    (data / "copy.model").write_bytes((data / "gym.model").read_bytes())
    os.utime(data / "a.txt", (1, 1))
    again = fingerprints(data, [moved], "2", tmp_path, "copy.model")
    assert again == [before]
    # The same, but a file's contents and a vocabulary.
    text = (data / "a.txt").read_text()
    (data / "a.txt").write_text(text.replace("one", "ten"))
    (data / "copy.model").write_bytes((data / "gym.model").read_bytes() + b"\x1a\x00")
    files = fingerprints(data, [plain], "3")[0]
    assert [name for name in ALL if files[name] != before[name]] == ["lines"]


@pytest.mark.slow
def test_a_store_of_an_older_version_is_built_anew_once_and_that_is_said(tmp_path, caplog):
    task = make_task(tmp_path)
    config, resolved = toy_config(task.name), registry.resolve(workspace(), task.name)
    prepare(workspace(), resolved, config, ("train",)).check()
    feed = TrainFeed(workspace(), config, resolved)
    next(feed)
    state = feed.state()
    feed.close()
    (job,) = store_jobs(workspace(), resolved, config, ("train",))
    from instruct.data.stores.store import read_manifest
    from instruct.data.stores.writing import write_store

    def rewrite(items, fingerprint):
        write_store(
            job.path, items, task=job.task, kind="tokens", version="0",
            source_fingerprint=fingerprint,
        )  # fmt: skip

    rewrite(job.source.records(workspace(), job.source_split), "0" * 64)
    assert [s.status for s in prepare(workspace(), resolved, config, ("train",)).stores] == [
        "built"
    ]
    assert "or an older version of this program built it" in caplog.text
    caplog.clear()
    assert [s.status for s in prepare(workspace(), resolved, config, ("train",)).stores] == [
        "there"
    ]
    assert not caplog.text
    # Equal records: the run goes on.
    feed = TrainFeed(workspace(), config, registry.resolve(workspace(), task.name))
    feed.restore([state])
    # Other records: refused, and the message says whose.
    fingerprint = read_manifest(
        store_path(workspace(), job.path.parent.name, "train")
    ).source_fingerprint
    rewrite(list(job.source.records(workspace(), job.source_split))[:-1], fingerprint)
    other = TrainFeed(workspace(), config, registry.resolve(workspace(), task.name))
    with pytest.raises(
        UserError, match=rf"The records of seqio tasks \({task.name}\) have changed"
    ):
        other.restore([state])
    del state["plain_records"]
    with pytest.raises(UserError, match=rf"The records of seqio tasks \({task.name}\) may have"):
        other.restore([state])


def test_what_the_code_does_not_show_is_said_once(tmp_path, caplog):
    import seqio

    from tests.data.toy import fresh_name

    name = fresh_name("reads")
    (tmp_path / "table.txt").write_text("1\n2\n")

    def dataset_fn(split, shuffle_files, seed=None):
        lines = (tmp_path / "table.txt").read_text().split()
        return tf.data.Dataset.from_tensor_slices({"inputs": lines, "targets": lines})

    source = seqio.FunctionDataSource(dataset_fn, ["train", "validation"])
    features = {key: seqio.Feature(seqio.ByteVocabulary()) for key in ("inputs", "targets")}
    steps = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    seqio.TaskRegistry.add(name, source=source, preprocessors=steps, output_features=features)
    prepare(workspace(), registry.resolve(workspace(), name), toy_config(name)).check()
    assert caplog.text.count("does not show what read_text reads in") == 1
    assert "source.version = '2'" in caplog.text
