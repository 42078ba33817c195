"""What T5X asks of our tasks and mixtures, through SeqIO's own functions, on prepared stores."""

import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from instruct.data import registry
from instruct.data.seqio import bridge as seqio_bridge
from instruct.data.seqio.bridge import RecordTask, use_vocabulary
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def accuracy(targets, predictions):
    right = [target == found for target, found in zip(targets, predictions)]
    return {"accuracy": float(np.mean(right)), "examples": len(right)}


LENGTHS = {"inputs": 64, "targets": 16}
MODEL_FEATURES = {
    *("encoder_input_tokens", "encoder_segment_ids", "encoder_positions"),
    *("decoder_target_tokens", "decoder_input_tokens", "decoder_loss_weights"),
    *("decoder_segment_ids", "decoder_positions"),
}
SIZES = {"a": 30, "b": 10}
ONE_MODE = {"zs_noopt": 1}


@pytest.fixture(scope="module", autouse=True)
def _bytes():
    use_vocabulary("bytes")
    yield
    use_vocabulary("gym")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(folder of stores, name of a mixture of two tasks, 3 : 1, prepared there)."""
    folder = tmp_path_factory.mktemp("facade")
    specs = [
        registry.add_task(toy_spec(ToySource(tag, size=size), modes=ONE_MODE))
        for tag, size in SIZES.items()
    ]
    name = fresh_name("facade")
    registry.add_mixture(name, {specs[0].name: 3, specs[1].name: 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCT_STORE_DIR", str(folder))
        for split in ("train", "validation"):
            prepare(
                workspace(),
                registry.resolve(workspace(), name, split),
                toy_config(name, split=split),
            ).check()
    return folder, name


@pytest.fixture
def mixture(prepared, monkeypatch):
    """The mixture, with its stores in place."""
    folder, name = prepared
    monkeypatch.setattr(RecordTask, "workspace", workspace(store_dir=folder))
    return seqio.get_mixture_or_task(name)


def task_of(mixture, tag: str) -> seqio.Task:
    return mixture.tasks[list(SIZES).index(tag)]


def rows(dataset) -> list[dict]:
    return list(dataset.as_numpy_iterator())


def unpacked(found: list[dict]) -> list[tuple[bytes, bytes]]:
    """(inputs, targets) of every example in packed rows."""
    examples = []
    for row in found:
        for number in range(1, row["decoder_segment_ids"].max() + 1):
            inputs = row["encoder_input_tokens"][row["encoder_segment_ids"] == number]
            targets = row["decoder_target_tokens"][row["decoder_segment_ids"] == number]
            assert inputs[-1] == targets[-1] == 1, "no EOS"
            examples.append(tuple(bytes((ids[:-1] - 3).tolist()) for ids in (inputs, targets)))
    return examples


def test_output_features(mixture):
    assert set(mixture.output_features) == {"inputs", "targets"}
    for feature in mixture.output_features.values():
        assert feature.vocabulary == seqio.ByteVocabulary() and feature.add_eos
        assert feature.dtype == tf.int32 and feature.rank == 1 and feature.required
    assert set(mixture.splits) == {"train", "validation"}


def test_num_input_examples(mixture):
    assert mixture.num_input_examples("train") == 40
    assert task_of(mixture, "a").num_input_examples("train") == 30
    rate = seqio.mixing_rate_num_examples(task_of(mixture, "a"), maximum=25)
    assert rate == 25


@pytest.mark.slow
def test_packed_rows_hold_what_the_task_gives(mixture):
    task = task_of(mixture, "a")
    converter = seqio.EncDecFeatureConverter(pack=True)
    packed = seqio.get_dataset(task.name, LENGTHS, converter, shuffle=False, seed=3)
    found = rows(packed)
    assert {key: value.shape for key, value in found[0].items()} == {
        name: ((64,) if name.startswith("encoder") else (16,)) for name in MODEL_FEATURES
    }
    plain = rows(task.get_dataset(LENGTHS, "train", shuffle=False, seed=3))
    expected = [(e["inputs_pretokenized"], e["targets_pretokenized"]) for e in plain]
    assert unpacked(found) == expected and len(expected) == 30
    assert len(found) < 30, "nothing is packed"
    for row in found:
        # Teacher forcing: each example begins with 0, then its own targets.
        starts = np.flatnonzero(row["decoder_positions"] == 0)
        starts = [s for s in starts if row["decoder_segment_ids"][s]]
        assert not row["decoder_input_tokens"][starts].any()
        np.testing.assert_array_equal(row["decoder_loss_weights"], row["decoder_target_tokens"] > 0)


@pytest.mark.slow
def test_mixtures_pack_as_t5x_asks_for_them(mixture):
    """Repeated without end, shuffled, seeded, a store counting as a cache, in batches."""
    found = seqio.get_dataset(
        mixture,
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=True),
        dataset_split="train",
        use_cached=True,
        shuffle=True,
        num_epochs=None,
        shard_info=seqio.ShardInfo(0, 1),
        seed=7,
        batch_size=4,
    )
    batches = rows(found.take(40))
    assert batches[0]["encoder_input_tokens"].shape == (4, 64)
    flat = [{key: value[i] for key, value in batch.items()} for batch in batches for i in range(4)]
    shown = [inputs for inputs, _ in unpacked(flat)]
    share = sum(b"[a]" in text for text in shown) / len(shown)
    assert share == pytest.approx(0.75, abs=0.08), len(shown)
    again = rows(found.take(2))
    for one, two in zip(again, batches):
        np.testing.assert_array_equal(one["encoder_input_tokens"], two["encoder_input_tokens"])


@pytest.mark.slow
def test_shards_are_read_apart_and_add_up(mixture, monkeypatch):
    task = task_of(mixture, "a")
    read = []
    original = seqio_bridge.numbered_records

    def watch(*arguments):
        for number, record in original(*arguments):
            read.append(number)
            yield number, record

    monkeypatch.setattr(seqio_bridge, "numbered_records", watch)
    for shuffle in (False, True):
        whole = [e["id"] for e in rows(task.get_dataset(LENGTHS, "train", shuffle=shuffle, seed=5))]
        parts = []
        for index in range(4):
            read.clear()
            shard = seqio.ShardInfo(index, 4)
            found = rows(
                task.get_dataset(LENGTHS, "train", shuffle=shuffle, seed=5, shard_info=shard)
            )
            assert len(read) == len(found) in (7, 8), "a host reads what others use"
            parts.append([e["id"] for e in found])
        assert parts == [whole[index::4] for index in range(4)]
    converter = seqio.EncDecFeatureConverter(pack=True)
    texts = [
        text
        for index in range(3)
        for text in unpacked(
            rows(
                seqio.get_dataset(
                    task.name, LENGTHS, converter, shard_info=seqio.ShardInfo(index, 3), seed=5
                )
            )
        )
    ]
    assert len(texts) == len({text for text, _ in texts}) == 30


@pytest.mark.slow
def test_more_shards_than_shares_fall_back_to_examples(mixture):
    task = task_of(mixture, "b")
    found = [
        rows(task.get_dataset(LENGTHS, "train", shuffle=False, shard_info=seqio.ShardInfo(i, 12)))
        for i in range(12)
    ]
    assert [len(part) for part in found] == [1] * 10 + [0] * 2
    with pytest.raises(UserError, match="12 shards requested, its records come in 10"):
        task.source.get_dataset("train", shard_info=seqio.ShardInfo(0, 12))


@pytest.mark.slow
def test_a_source_without_a_store_is_sharded_by_examples():
    spec = registry.add_task(toy_spec(ToySource("u", size=9), modes=ONE_MODE))
    task = seqio.get_mixture_or_task(spec.leaf_name("zs_noopt"))
    assert task.source.list_shards("train") == ["train"]
    found = [
        rows(task.get_dataset(LENGTHS, "train", shuffle=False, shard_info=seqio.ShardInfo(i, 2)))
        for i in range(2)
    ]
    assert [len(part) for part in found] == [5, 4]


@pytest.mark.slow
def test_epochs_show_all_records_and_word_them_anew(mixture):
    task = task_of(mixture, "a")
    found = rows(task.get_dataset(LENGTHS, "train", shuffle=True, seed=0, num_epochs=3))
    epochs = [found[start : start + 30] for start in (0, 30, 60)]
    for epoch in epochs:
        assert len({e["id"] for e in epoch}) == 30
    wordings = [{e["id"]: e["template"] for e in epoch} for epoch in epochs]
    assert wordings[0] != wordings[1] != wordings[2] != wordings[0]
    once = rows(task.get_dataset(LENGTHS, "train", shuffle=True, seed=0))
    assert {e["id"]: e["template"] for e in once} == wordings[0]
    again = rows(task.get_dataset(LENGTHS, "train", shuffle=True, seed=0, num_epochs=2))
    assert [e["template"] for e in again] == [e["template"] for e in found[:60]]


def test_fields_are_passed_through(mixture):
    found = rows(
        mixture.get_dataset(
            LENGTHS,
            "validation",
            shuffle=False,
            num_epochs=1,
            copy_pretokenized=True,
            passthrough_features=["id", "answer", "references", "answer_index"],
        )
    )
    assert len(found) > 20
    for example in found:
        assert set(example) == {
            *("inputs", "targets", "inputs_pretokenized", "targets_pretokenized"),
            *("id", "answer", "references", "answer_index"),
        }
        assert example["references"].tolist() == [example["answer"]]
        assert example["targets_pretokenized"] == example["answer"]


def write_seqio_cache(folder, task: seqio.Task, split: str) -> None:
    """SeqIO's cache of a task, as `seqio_cache_tasks` writes it."""
    place = folder / seqio.get_task_dir_from_name(task.name)
    place.mkdir(parents=True)
    elements = rows(task.preprocess_precache(task.source.get_dataset(split, False, 11), seed=11))
    kinds = {name: ("int64" if name == "number" else "string") for name in elements[0]}
    with tf.io.TFRecordWriter(str(place / f"{split}.tfrecord-00000-of-00001")) as writer:
        for element in elements:
            writer.write(seqio.dict_to_tfexample(element).SerializeToString())
    info = {
        "num_shards": 1,
        "features": {name: {"shape": [], "dtype": kind} for name, kind in kinds.items()},
        "seqio_version": seqio.__version__,
    }
    (place / f"info.{split}.json").write_text(json.dumps(info))
    (place / f"stats.{split}.json").write_text(json.dumps({"examples": len(elements)}))
    (place / "COMPLETED").write_text("")


@pytest.fixture
def cache_folder(tmp_path):
    before = list(seqio.get_global_cache_dirs())
    seqio.set_global_cache_dirs([str(tmp_path)])
    yield tmp_path
    seqio.set_global_cache_dirs(before)


def test_no_cache_is_said_with_what_to_do(cache_folder):
    spec = registry.add_task(toy_spec(ToySource("n", size=9), modes=ONE_MODE))
    task = seqio.get_mixture_or_task(spec.leaf_name("zs_noopt"))
    with pytest.raises(UserError) as error:
        task.get_dataset(LENGTHS, "train", use_cached=True)
    for text in (task.name, "run.py prepare --mixture=", "USE_CACHED_TASKS", str(cache_folder)):
        assert text in str(error.value), text
    assert len(rows(task.get_dataset(LENGTHS, "train", use_cached=False))) == 9
    prepare(workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name)).check()
    assert len(rows(task.get_dataset(LENGTHS, "train", use_cached=True))) == 9


@pytest.mark.slow
def test_seqio_s_own_cache_is_read(cache_folder):
    """By a user who made one, where neither store nor source is there."""
    spec = registry.add_task(toy_spec(ToySource("c", size=9), modes=ONE_MODE))
    task = seqio.get_mixture_or_task(spec.leaf_name("zs_noopt"))
    plain = rows(task.get_dataset(LENGTHS, "train", shuffle=False, seed=11))
    write_seqio_cache(cache_folder, task, "train")
    object.__setattr__(spec.source, "missing", "gone")
    with pytest.raises(UserError, match="gone"):
        next(seqio_bridge.numbered_records(workspace(), spec, "train", False, 0))
    found = rows(task.get_dataset(LENGTHS, "train", use_cached=True, shuffle=False))
    assert len(found) == 9
    for one, two in zip(found, plain):
        for name in two:
            np.testing.assert_array_equal(one[name], two[name])
    packed = seqio.get_dataset(
        task.name, LENGTHS, seqio.EncDecFeatureConverter(pack=True), use_cached=True, num_epochs=2
    )
    assert len(unpacked(rows(packed))) == 18


@pytest.mark.slow
def test_the_evaluator_reads_our_tasks():
    """T5X's eval and infer: SeqIO's evaluator, with a model that copies the targets."""
    spec = registry.add_task(
        toy_spec(ToySource("a", size=12), modes=ONE_MODE, metric_fns=(accuracy,))
    )
    evaluator = seqio.Evaluator(
        mixture_or_task_name=spec.name,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split="validation",
        num_examples=5,
    )
    (name,) = [task.name for task in evaluator.eval_tasks]

    def predict(dataset, **_):
        return [
            (number, [int(i) for i in row["decoder_target_tokens"] if i])
            for number, row in dataset.as_numpy_iterator()
        ]

    metrics, _ = evaluator.evaluate(
        compute_metrics=True, step=0, predict_fn=predict, score_fn=predict
    )
    assert metrics.result()[name] == {"accuracy": 1.0, "examples": 5}
