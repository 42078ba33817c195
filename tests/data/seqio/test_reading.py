"""A plain seqio task of a user's module: its stored examples are what its pipeline gives."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from instruct import batch
from instruct.data import registry
from instruct.data.feed.examples import eval_examples, majority_answer
from instruct.data.feed.pipeline import TrainFeed, eval_batches
from instruct.data.seqio import reading as seqio_reading
from instruct.data.stores.prepare import prepare
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from tests.data.toy import eval_config, fresh_name, toy_config
from tests.workspaces import workspace

LENGTHS = {"inputs": 128, "targets": 16}


def make_task(folder, num_lines=30, vocabulary=None):
    """A task as a user would write it: lines of text, TensorFlow steps, a metric."""
    name = fresh_name("lines")
    for split, offset in (("train", 0), ("validation", 500)):
        lines = [f"{i + offset}\t{i % 4}\t{i % 3}" for i in range(num_lines)]
        (folder / f"{name}.{split}.tsv").write_text("\n".join(lines) + "\n")

    @seqio.map_over_dataset
    def parse(line):
        parts = tf.strings.split(line, "\t")
        return {
            "inputs": tf.strings.join(["remainder of ", parts[0]]),
            "targets": parts[1],
            "label": tf.strings.to_number(parts[2], tf.int32),
            "words": parts,
        }

    vocabulary = vocabulary or seqio.ByteVocabulary()
    return seqio.TaskRegistry.add(
        name,
        source=seqio.TextLineDataSource(
            {s: str(folder / f"{name}.{s}.tsv") for s in ("train", "validation")}
        ),
        preprocessors=[
            parse,
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=True),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={
            key: seqio.Feature(vocabulary, add_eos=True) for key in ("inputs", "targets")
        },
        postprocess_fn=lambda text, example=None, is_target=False: int(example["label"]),
        metric_fns=[],
    )


@pytest.mark.slow
def test_stored_examples_are_the_pipelines(tmp_path):
    task = make_task(tmp_path)
    resolved, config = registry.resolve(workspace(), task.name), toy_config(task.name)
    done = prepare(workspace(), resolved, config)
    assert [(s.split, s.status, s.records) for s in done.stores] == [
        ("train", "built", 30),
        ("validation", "built", 30),
    ]
    (leaf,) = registry.resolve(workspace(), task.name).leaves
    ours = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS))
    theirs = task.get_dataset(LENGTHS, "validation", shuffle=False).as_numpy_iterator()
    for one, two in zip(ours, theirs, strict=True):
        assert one.seqio_example.keys() == two.keys()
        for key, value in two.items():
            np.testing.assert_array_equal(one.seqio_example[key], value)
            assert type(one.seqio_example[key]) is type(value)
        assert (
            one.inputs.startswith("remainder of ")
            and one.inputs.encode() == (two["inputs_pretokenized"])
        )
        assert one.target_ids == two["targets"].tolist()
        assert task.postprocess_fn("", example=one.seqio_example) == two["label"]
    assert majority_answer(workspace(), leaf, config) == ("0", pytest.approx(8 / 30, abs=1e-5))


@pytest.mark.slow
def test_inputs_that_seqio_trimmed_are_known(tmp_path):
    task = make_task(tmp_path, num_lines=12)
    (leaf,) = registry.resolve(workspace(), task.name).leaves
    for length, cut in ((15, True), (16, False), (17, False)):  # "remainder of 500" and EOS
        lengths = {"inputs": length + 1, "targets": 16}
        config = toy_config(task.name, feature_lengths=lengths)
        prepare(
            workspace(), registry.resolve(workspace(), task.name), config, ("validation",)
        ).check()
        examples = eval_examples(workspace(), leaf, "validation", eval_config(lengths))
        assert {example.truncated for example in examples} == {cut}
        assert {example.num_exemplars for example in examples} == {None}


def test_plain_tasks_train_packed(tmp_path):
    task = make_task(tmp_path)
    config = toy_config(task.name)
    prepare(workspace(), registry.resolve(workspace(), task.name), config).check()
    feed = TrainFeed(workspace(), config, registry.resolve(workspace(), task.name))
    rows, info = next(feed)
    batch.ENCODER_DECODER.check(rows)
    assert info.task_counts == {task.name: info.num_examples}
    assert info.num_examples > 4
    assert (
        len(
            eval_batches(
                workspace(), config, registry.resolve(workspace(), task.name), num_examples=10
            )
        )
        == 1
    )
    feed.close()


@pytest.mark.slow
def test_a_changed_file_is_read_again(tmp_path):
    task = make_task(tmp_path)
    config = toy_config(task.name)
    prepare(workspace(), registry.resolve(workspace(), task.name), config).check()
    with (tmp_path / f"{task.name}.train.tsv").open("a") as file:
        file.write("99\t3\t0\n")
    done = prepare(workspace(), registry.resolve(workspace(), task.name), config)
    assert [(s.status, s.records) for s in done.stores if s.split == "train"] == [("built", 31)]
    assert {
        s.status
        for s in prepare(workspace(), registry.resolve(workspace(), task.name), config).stores
    } == {"there"}


@pytest.mark.slow
def test_lengths_are_part_of_a_plain_store(tmp_path):
    task = make_task(tmp_path)
    resolved = registry.resolve(workspace(), task.name)
    prepare(workspace(), resolved, toy_config(task.name)).check()
    shorter = toy_config(task.name, feature_lengths={"inputs": 10, "targets": 16})
    with pytest.raises(UserError, match="prepare"):
        TrainFeed(workspace(), shorter, resolved)
    prepare(workspace(), resolved, shorter).check()
    (leaf,) = resolved.leaves
    assert len(eval_examples(workspace(), leaf, "train", shorter)[9].input_ids) == 10


def test_another_vocabulary_is_refused(tmp_path):
    task = make_task(tmp_path, vocabulary=seqio.ByteVocabulary(extra_ids=9))
    done = prepare(workspace(), registry.resolve(workspace(), task.name), toy_config(task.name))
    assert "tokenizes 'inputs' with 'bytes#extra_ids=9', this run uses 'bytes'" in (
        done.failed[0].message
    )
    config = toy_config(task.name, vocabulary="bytes#extra_ids=9")
    prepare(workspace(), registry.resolve(workspace(), task.name), config).check()


def test_a_task_without_targets_is_refused():
    name = fresh_name("plain")
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"])
    features = {"text": seqio.Feature(seqio.ByteVocabulary())}
    seqio.TaskRegistry.add(name, source=source, output_features=features, preprocessors=[])
    done = prepare(workspace(), registry.resolve(workspace(), name), toy_config(name))
    assert "has no output feature 'inputs'" in done.failed[0].message


def test_empty_targets_are_dropped_and_counted(tmp_path):
    task = make_task(tmp_path)
    lines = ["1\t1\t1", "2\t\t1"]
    (tmp_path / f"{task.name}.train.tsv").write_text("\n".join(lines) + "\n")
    done = prepare(
        workspace(), registry.resolve(workspace(), task.name), toy_config(task.name), ("train",)
    )
    assert (done.stores[0].records, done.stores[0].dropped) == (1, {"empty target": 1})


@pytest.mark.slow
@pytest.mark.parametrize("layout", batch.LAYOUTS)
@pytest.mark.parametrize("packing", ["next_fit", "none"])
def test_seqios_own_pipeline_as_feed(tmp_path, packing, layout):
    task = make_task(tmp_path)
    config = toy_config(task.name, feed="seqio", packing=packing, layout=layout)
    resolved, windows_fn = registry.resolve(workspace(), task.name), seqio_reading.seqio_windows
    feed = TrainFeed(workspace(), config, resolved, seqio_windows_fn=windows_fn)
    batches = [next(feed) for _ in range(3)]
    for rows, info in batches:
        batch.LAYOUTS[layout].check(rows)
        assert info.num_examples >= 4
        weights, targets = rows[batch.DECODER_LOSS_WEIGHTS], rows[batch.DECODER_TARGET_TOKENS]
        trained = targets > 0
        if layout == "decoder_only":
            prefix, segments = rows[batch.DECODER_CAUSAL_ATTENTION], rows[batch.DECODER_SEGMENT_IDS]
            # The next input is of the prefix too: the target is of the inputs.
            same = segments[:, 1:] == segments[:, :-1]
            trained[:, :-1] &= ~((prefix[:, :-1] & prefix[:, 1:]).astype(bool) & same)
            assert 0 < weights.sum() < (targets > 0).sum()
        assert (weights == trained).all()
    state = json.loads(json.dumps(feed.state()))
    expected = next(feed)[0]
    again = TrainFeed(workspace(), config, resolved, seqio_windows_fn=windows_fn)
    again.restore([state])
    found = next(again)[0]
    assert all((found[key] == expected[key]).all() for key in expected)


def test_seqio_cannot_start_every_sequence(monkeypatch):
    config = toy_config("any", feed="seqio", layout="decoder_only")
    assert seqio_reading.feature_converter(config).bos_id == 0
    vocabulary = load_vocabulary("bytes")
    monkeypatch.setattr(type(vocabulary), "start_ids", ())
    with pytest.raises(UserError, match=r"'decoder_only' with the tokens \(\).*feed='records'"):
        seqio_reading.feature_converter(config)


def test_tokens_without_the_frame_of_the_run_are_warned_of(tmp_path, caplog):
    task = make_task(tmp_path)
    resolved, config = registry.resolve(workspace(), task.name), toy_config(task.name)
    prepare(workspace(), resolved, config).check()
    TrainFeed(workspace(), config, resolved)
    assert not caplog.text
    framed = dataclasses.replace(config, layout="decoder_only", separator="")
    rows, _ = next(TrainFeed(workspace(), framed, resolved))
    assert f"1 plain seqio or pretraining tasks ({task.name}) keep their own tokens" in caplog.text
    assert (rows[batch.DECODER_INPUT_TOKENS][:, 0] == 0).all()


def test_many_tasks_through_seqios_pipeline_warn(tmp_path, caplog):
    task = make_task(tmp_path)
    resolved = registry.resolve(workspace(), task.name)
    resolved = dataclasses.replace(resolved, leaves=resolved.leaves * 101)
    config = toy_config(task.name, feed="seqio")
    with pytest.raises(StopIteration):
        next(TrainFeed(workspace(), config, resolved, seqio_windows_fn=lambda *arguments: iter(())))
    assert "101 tasks: expect about 2 minutes" in caplog.text


@pytest.mark.parametrize(
    "targets, steps, words",
    [
        (
            [1, 2],
            [seqio.preprocessors.tokenize],
            ["int32 and rank 0", "as_string"],
        ),
        ([0.5, 2.0], [functools.partial(seqio.preprocessors.tokenize)], ["dtype float32"]),
        ([[1], [2]], [seqio.preprocessors.tokenize], ["dtype int32 and rank 1"]),
        ([1, 2], [seqio.preprocessors.append_eos], ["int32 and rank 0 at"]),
    ],
)
def test_targets_that_are_no_text_are_named(targets, steps, words):
    name = fresh_name("numbers")

    def dataset_fn(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["a", "b"], "targets": targets})

    features = {key: seqio.Feature(seqio.ByteVocabulary()) for key in ("inputs", "targets")}
    source = seqio.FunctionDataSource(dataset_fn, ["train"])
    seqio.TaskRegistry.add(name, source=source, preprocessors=steps, output_features=features)
    resolved = registry.resolve(workspace(), name)
    (store,) = prepare(workspace(), resolved, toy_config(name), ("train",)).stores
    assert store.status == "failed"
    for word in words:
        assert f"seqio task '{name}', split 'train': feature 'targets'" in store.message
        assert word in store.message and "in user code" not in store.message
