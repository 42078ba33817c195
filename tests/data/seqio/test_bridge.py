"""Our tasks work as SeqIO users expect of theirs."""

import numpy as np
import pytest
import seqio

from instruct.data import registry
from instruct.data.feed.examples import eval_examples
from instruct.data.seqio import bridge as seqio_bridge
from instruct.data.seqio.bridge import use_vocabulary
from instruct.data.stores.prepare import prepare
from tests.data.toy import ToySource, eval_config, toy_config, toy_spec
from tests.workspaces import workspace

LENGTHS = {"inputs": 128, "targets": 16}


@pytest.fixture(autouse=True)
def _bytes():
    use_vocabulary("bytes")
    yield
    use_vocabulary("gym")


def examples(task, split="train", **options):
    options = {"shuffle": False, "seed": 0, **options}
    return list(task.get_dataset(LENGTHS, split, **options).as_numpy_iterator())


def test_vocabularies_have_counterparts(tmp_path):
    found = seqio_bridge.seqio_vocabulary("bytes#extra_ids=5")
    assert found == seqio.ByteVocabulary(extra_ids=5)
    assert seqio_bridge.from_seqio(found) == "bytes#extra_ids=5"
    piece = seqio.SentencePieceVocabulary("a.model", 7)
    assert seqio_bridge.from_seqio(piece) == "a.model#extra_ids=7"
    assert seqio_bridge.from_seqio(seqio.PassThroughVocabulary(9)) is None
    assert seqio_bridge.seqio_vocabulary("gym").extra_ids == 100


def test_get_dataset_from_the_source():
    spec = registry.add_task(toy_spec(ToySource("s", size=12)))
    task = seqio.TaskRegistry.get(spec.leaf_name("zs_noopt"))
    found = examples(task)
    assert len(found) == 12
    assert found[3]["targets_pretokenized"] == b"4"
    assert found[3]["targets"].tolist() == [ord("4") + 3, 1]
    assert b"[s] 3 + 1 = ?" in found[3]["inputs_pretokenized"]
    assert found[3]["inputs"].dtype == np.int32 and found[3]["inputs"][-1] == 1
    assert task.num_input_examples("train") is None
    assert set(task.splits) == {"train", "validation"}
    assert task.output_features["inputs"].vocabulary == seqio.ByteVocabulary()


def test_store_and_source_give_the_same_examples_and_evaluation_too():
    spec = registry.add_task(toy_spec(ToySource("s", size=12), modes={"fs_noopt": 1}))
    leaf_name = spec.leaf_name("fs_noopt")
    task = seqio.TaskRegistry.get(leaf_name)
    before = examples(task, "validation")
    resolved = registry.resolve(workspace(), leaf_name)
    prepare(workspace(), resolved, toy_config(leaf_name)).check()
    assert task.num_input_examples("train") == 12
    after = examples(task, "validation")
    ours = eval_examples(workspace(), resolved.leaves[0], "validation", eval_config(LENGTHS))
    assert len(before) == len(after) == len(ours) == 12
    for one, two, three in zip(before, after, ours):
        assert one.keys() == two.keys() == three.seqio_example.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
            np.testing.assert_array_equal(one[name], three.seqio_example[name])
    assert before[0]["inputs_pretokenized"].count(b" + 1 = ?") > 1, "no exemplars"


@pytest.mark.slow
def test_seed_shuffling_and_what_does_not_fit():
    spec = registry.add_task(toy_spec(ToySource("s", size=30)))
    task = seqio.TaskRegistry.get(spec.leaf_name("zs_noopt"))
    prepare(workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name)).check()
    wordings = [[e["template"] for e in examples(task, seed=seed)] for seed in (0, 0, 1)]
    assert wordings[0] == wordings[1] != wordings[2]
    shuffled = [e["id"] for e in examples(task, shuffle=True)]
    assert sorted(shuffled) == sorted(e["id"] for e in examples(task))
    assert shuffled != [e["id"] for e in examples(task)]
    short = task.get_dataset({"inputs": 8, "targets": 16}, "train", shuffle=False)
    assert list(short.as_numpy_iterator()) == []


@pytest.mark.slow
def test_mixtures_mix():
    specs = [registry.add_task(toy_spec(ToySource(f"m{i}", size=20))) for i in range(2)]
    name = f"{specs[0].name}.and_more"
    registry.add_mixture(name, {specs[0].name: 3, specs[1].name: 1})
    mixture = seqio.MixtureRegistry.get(name)
    dataset = mixture.get_dataset(
        LENGTHS, "train", shuffle=False, seed=0, num_epochs=None, copy_pretokenized=True
    )
    rows = [e["inputs_pretokenized"] for e in dataset.take(80).as_numpy_iterator()]
    assert 45 <= sum(b"[m0]" in row for row in rows) <= 75
