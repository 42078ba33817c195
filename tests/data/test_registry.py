"""Names, rates and leaves; everything that a user can mistype is one clear message."""

import subprocess
import sys
import time

import pytest
import seqio

from instruct.data import registry
from instruct.data.seqio.bridge import use_vocabulary
from instruct.data.stores.prepare import prepare
from instruct.data.vocab import GYM_MODEL
from instruct.errors import UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def shares(name):
    return {leaf.name: leaf.rate for leaf in registry.resolve(workspace(), name).leaves}


def test_a_task_is_one_seqio_task_a_mode_and_a_mixture_of_its_modes():
    spec = registry.add_task(toy_spec(modes={"zs_noopt": 3, "fs_noopt": 1}))
    assert shares(spec.name) == {f"{spec.name}.zs_noopt": 0.75, f"{spec.name}.fs_noopt": 0.25}
    assert shares(f"{spec.name}.fs_noopt") == {f"{spec.name}.fs_noopt": 1}
    assert isinstance(seqio.TaskRegistry.get(f"{spec.name}.zs_noopt"), seqio.Task)
    assert isinstance(seqio.MixtureRegistry.get(spec.name), seqio.Mixture)
    assert (
        registry.find_spec(workspace(), f"{spec.name}.fs_noopt")
        is registry.task_specs(workspace())[spec.name]
        is spec
    )
    leaf = registry.resolve(workspace(), spec.name).leaves[0]
    assert leaf.name == f"{spec.name}.zs_noopt"
    assert (leaf.task, leaf.mode, leaf.family, leaf.category) == (
        spec.name,
        "zs_noopt",
        "toy",
        "sums",
    )


def test_rates_nest():
    one, two, three = (registry.add_task(toy_spec()).name for _ in range(3))
    inner, outer = fresh_name("mix"), fresh_name("mix")
    registry.add_mixture(inner, {one: 1, two: 3})
    registry.add_mixture(outer, {inner: 0.5, three: 0.25, one: 0.25})
    expected = {one: 0.125 + 0.25, two: 0.375, three: 0.25}
    expected = {f"{name}.zs_noopt": rate for name, rate in expected.items()}
    assert shares(outer) == pytest.approx(expected)
    assert list(shares(outer)) == list(expected)
    resolved = registry.resolve(workspace(), outer)
    assert (resolved.num_tasks, resolved.num_datasets, resolved.num_categories) == (3, 3, 1)


def test_a_mixture_may_say_what_it_asks():
    spec, name = registry.add_task(toy_spec()), fresh_name("mixture")
    registry.add_mixture(name, {spec.name: 1.0}, description="Sums of two numbers")
    assert registry.description_of(name) == "Sums of two numbers"
    assert registry.description_of(spec.name) == ""


def test_seqio_mixtures_have_the_same_rates():
    one, two = (registry.add_task(toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1})) for _ in "ab")
    name = fresh_name("mix")
    registry.add_mixture(name, {one.name: 1, f"{two.name}.fs_noopt": 2})
    mixture = seqio.MixtureRegistry.get(name)
    found = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert found == pytest.approx(shares(name))
    assert mixture.total_rate == pytest.approx(1)


def test_rates_by_records_are_capped_and_follow_the_stores():
    small = registry.add_task(toy_spec(ToySource("small", size=10)))
    large = registry.add_task(toy_spec(ToySource("large", size=90), cap=30))
    declared = registry.add_task(toy_spec(ToySource("told", size=40), num_examples={"train": 20}))
    inner, name = fresh_name("mix"), fresh_name("mix")
    registry.add_mixture(inner, {small.name: None, large.name: None})
    registry.add_mixture(name, {inner: None, declared.name: None})
    before = registry.resolve(workspace(), name)
    assert before.unprepared == (f"{small.name}.zs_noopt", f"{large.name}.zs_noopt")
    assert [leaf.records for leaf in before.leaves] == [None, None, 20]
    seqio_rates = seqio.MixtureRegistry.get(name)
    task = seqio.TaskRegistry.get(f"{small.name}.zs_noopt")
    assert seqio_rates.get_rate(task) == pytest.approx(1000 / 1050)
    prepare(workspace(), before, toy_config(name)).check()
    after = registry.resolve(workspace(), name)
    assert not after.unprepared
    assert [leaf.records for leaf in after.leaves] == [10, 90, 40]
    assert [leaf.rate for leaf in after.leaves] == pytest.approx([10 / 80, 30 / 80, 40 / 80])
    assert seqio_rates.get_rate(task) == pytest.approx(10 / 80)
    assert registry.unprepared(workspace(), after, toy_config(name)) == []


def test_a_mixture_may_set_its_own_cap():
    few = registry.add_task(toy_spec(num_examples={"train": 20})).name
    many = registry.add_task(toy_spec(num_examples={"train": 900}, cap=500)).name
    inner, name = fresh_name("mix"), fresh_name("mix")
    registry.add_mixture(inner, {few: None, many: None}, cap=80)
    assert list(shares(inner).values()) == pytest.approx([0.2, 0.8])
    # A cap counts the children of its own mixture; inside, `inner` keeps its shares.
    registry.add_mixture(name, {inner: None, few: None}, cap=40)
    assert shares(name)[f"{few}.zs_noopt"] == pytest.approx((60 * 0.2 + 20) / 80)
    with pytest.raises(UserError, match="cap is 0"):
        registry.add_mixture(fresh_name("mix"), {few: None}, cap=0)


def test_plain_seqio_tasks_and_mixtures_are_leaves_too():
    ours = registry.add_task(toy_spec()).name
    features = {
        key: seqio.Feature(seqio.ByteVocabulary(), add_eos=True) for key in ("inputs", "targets")
    }
    plain, theirs, both = fresh_name("plain"), fresh_name("mix"), fresh_name("mix")
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"], {"train": 25})
    seqio.TaskRegistry.add(plain, source=source, output_features=features, preprocessors=[])
    seqio.MixtureRegistry.add(theirs, [(plain, 2.0), (f"{ours}.zs_noopt", 1.0)])
    registry.add_mixture(both, {theirs: 1, ours: 1})
    assert shares(plain) == {plain: 1}
    assert shares(theirs) == pytest.approx({plain: 2 / 3, f"{ours}.zs_noopt": 1 / 3})
    assert shares(both) == pytest.approx({plain: 1 / 3, f"{ours}.zs_noopt": 2 / 3})
    (leaf,) = (lf for lf in registry.resolve(workspace(), both).leaves if lf.name == plain)
    assert (leaf.spec, leaf.mode, leaf.records, leaf.splits) == (None, "", 25, ("train",))
    registry.add_mixture(fresh_name("mix"), {theirs: None, plain: None})


def test_thousands_of_leaves_take_linear_time():
    names = [registry.add_task(toy_spec()).name for _ in range(600)]
    groups = []
    for start in range(0, 600, 60):
        groups.append(fresh_name("group"))
        registry.add_mixture(groups[-1], dict.fromkeys(names[start : start + 60], 1.0))
    name = fresh_name("mix")
    registry.add_mixture(name, dict.fromkeys(groups, 1.0))
    started = time.process_time()
    resolved = registry.resolve(workspace(), name)
    assert time.process_time() - started < 1  # 0.05 s of the processor
    assert sum(leaf.rate for leaf in resolved.leaves) == pytest.approx(1)


@pytest.mark.parametrize("rate", [0, -1, 0.0, float("nan"), float("inf")])
def test_rates_must_be_above_zero(rate):
    task = registry.add_task(toy_spec()).name
    with pytest.raises(UserError, match="must be above 0"):
        registry.add_mixture(fresh_name("mix"), {task: rate})


def test_what_a_user_can_mistype():
    spec = registry.add_task(toy_spec())
    with pytest.raises(UserError, match="is empty"):
        registry.add_mixture(fresh_name("mix"), {})
    with pytest.raises(UserError, match="Did you mean"):
        registry.add_mixture(fresh_name("mix"), {spec.name + "x": 1})
    with pytest.raises(UserError, match="Did you mean"):
        registry.resolve(workspace(), spec.name + "x")
    with pytest.raises(UserError, match="unknown task"):
        registry.find_spec(workspace(), "no.such.task")
    with pytest.raises(UserError, match="registered already"):
        registry.add_task(spec)
    with pytest.raises(UserError, match="invalid characters"):
        registry.add_task(toy_spec(name="toy.has space"))
    with pytest.raises(UserError, match="prompt mode"):
        registry.add_task(toy_spec(modes={"zero_shot": 1}))
    with pytest.raises(UserError, match="extra_ids"):
        use_vocabulary("gym#nonsense")


def test_a_refused_task_leaves_nothing():
    other, name = registry.add_task(toy_spec()).name, fresh_name("task")
    registry.add_mixture(f"{name}.fs_noopt", {other: 1})
    with pytest.raises(UserError, match=rf"{name}\.fs_noopt' is registered already"):
        registry.add_task(toy_spec(name=name, modes={"zs_noopt": 1, "fs_noopt": 1}))
    assert not registry._is_known(f"{name}.zs_noopt")
    registry.add_task(toy_spec(name=name, modes={"zs_noopt": 1}))


def test_an_interrupted_task_leaves_nothing(monkeypatch):
    spec = toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1})
    for step in ("_add_seqio_task", "_register_mixture"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(registry, step, interrupt)
            registry.add_task(spec)
    registry.add_task(spec)
    assert list(shares(spec.name)) == [f"{spec.name}.zs_noopt", f"{spec.name}.fs_noopt"]


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_an_interrupted_import_of_seqio_is_repeated(monkeypatch):
    """The registries then hold some of the tasks."""
    spec = registry.add_task(toy_spec(modes={"zs_noopt": 1, "fs_noopt": 1}))
    seqio.TaskRegistry.remove(f"{spec.name}.fs_noopt")
    seqio.MixtureRegistry.remove(spec.name)
    monkeypatch.setattr(registry, "_joined_seqio", [])
    monkeypatch.setattr(registry, "_on_demand", {})
    registry._join_seqio()
    assert f"{spec.name}.fs_noopt" in seqio.TaskRegistry.names()
    assert spec.name in seqio.MixtureRegistry.names()


def test_a_users_mixture_without_rates_is_refused():
    features = {"inputs": seqio.Feature(seqio.ByteVocabulary())}
    plain, mixture = fresh_name("plain"), fresh_name("mix")
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"])
    seqio.TaskRegistry.add(plain, source=source, output_features=features, preprocessors=[])
    seqio.MixtureRegistry.add(mixture, [(plain, 0.0)])
    with pytest.raises(UserError, match="rates above 0"):
        registry.resolve(workspace(), mixture)
    by_size = fresh_name("mix")
    seqio.MixtureRegistry.add(by_size, [(plain, seqio.mixing_rate_num_characters)])
    with pytest.raises(UserError, match="cannot compute"):
        registry.resolve(workspace(), by_size)


def test_children_and_what_the_rates_ask_for():
    small = registry.add_task(toy_spec(cap=30, num_examples={"train": 100}))
    large = registry.add_task(toy_spec(ToySource("other", size=4), num_examples={"train": 90}))
    inner = fresh_name("mix")
    registry.add_mixture(inner, {small.name: None, large.name: None}, cap=60)
    outer = fresh_name("mix")
    registry.add_mixture(outer, {inner: 3.0, f"{small.name}.zs_noopt": 1.0})
    assert registry.children(workspace(), outer) == (
        registry.Child(inner, 3.0, 0.75, None),
        registry.Child(f"{small.name}.zs_noopt", 1.0, 0.25, None),
    )
    assert [(c.rate, c.share, c.cap) for c in registry.children(workspace(), inner)] == [
        (None, 0.5, 60)
    ] * 2
    assert [child.name for child in registry.children(workspace(), small.name)] == [
        f"{small.name}.zs_noopt"
    ]
    assert registry.children(workspace(), f"{small.name}.zs_noopt") == ()
    prepare(workspace(), registry.resolve(workspace(), inner), toy_config(inner))
    # The stores hold 40 and 4 records, which changes the shares and not what is asked for.
    assert shares(inner)[f"{large.name}.zs_noopt"] == pytest.approx(4 / 44)
    asked = registry.shares(workspace(), inner, declared=True)
    assert asked == {f"{small.name}.zs_noopt": 0.5, f"{large.name}.zs_noopt": 0.5}
    with pytest.raises(UserError, match="unknown task or mixture"):
        registry.shares(workspace(), "no_such_mixture")
    with pytest.raises(UserError, match=r"'own\.gone'.*--data=MODEL_DIR/task\.toml"):
        registry.check_name(workspace(), "own.gone")


@pytest.mark.slow
def test_the_read_path_needs_no_tensorflow():
    modules = """config task_lists vocab feed.examples feed.leaves feed.pipeline feed.plan
        feed.preview feed.records feed.task_report feed.window overlap.duplicates
        sources.files stores.beam stores.left_out stores.prepare stores.store"""
    code = f"""
import importlib, sys
for name in {modules.split()!r}:
    importlib.import_module("instruct.data." + name)
assert not {{"tensorflow", "seqio"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def plain_task(**vocabularies) -> str:
    """A seqio task of a user's own whose features have these vocabularies."""
    name = fresh_name("plain")
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, ["train"])
    features = {key: seqio.Feature(found) for key, found in vocabularies.items()}
    seqio.TaskRegistry.add(name, source=source, output_features=features, preprocessors=[])
    return name


def both(vocabulary) -> str:
    return plain_task(inputs=vocabulary, targets=vocabulary)


def test_the_vocabulary_of_a_mixture_is_that_of_its_plain_tasks():
    ours = registry.add_task(toy_spec()).name
    byte, own = both(seqio.ByteVocabulary()), both(seqio.PassThroughVocabulary(9))
    pieces = both(seqio.SentencePieceVocabulary(str(GYM_MODEL), 7))
    gym = both(seqio.SentencePieceVocabulary(str(GYM_MODEL), 100))
    mixture = fresh_name("mix")
    registry.add_mixture(mixture, {ours: 1, byte: 1, own: 1})
    for name, expected in {
        byte: "bytes#extra_ids=0",
        pieces: f"{GYM_MODEL}#extra_ids=7",
        gym: f"{GYM_MODEL}#extra_ids=100",
        mixture: "bytes#extra_ids=0",
        own: None,
        ours: None,
    }.items():
        assert registry.task_vocabulary(workspace(), name) == expected
        config = registry.with_vocabulary(workspace(), toy_config(name, vocabulary="auto"))
        assert config.vocabulary == expected or (expected is None and config.vocabulary == "gym")
        assert registry.with_vocabulary(workspace(), config) is config
    named = toy_config(byte, vocabulary="gym")
    assert registry.with_vocabulary(workspace(), named).vocabulary == "gym"


def test_two_vocabularies_are_refused_with_both_named():
    byte, pieces = both(seqio.ByteVocabulary()), both(seqio.SentencePieceVocabulary(str(GYM_MODEL)))
    mixture, same = fresh_name("mix"), fresh_name("mix")
    registry.add_mixture(mixture, {byte: 1, pieces: 1})
    with pytest.raises(UserError, match=f"{byte}.*bytes#extra_ids=0.*{pieces}.*gym.model"):
        registry.task_vocabulary(workspace(), mixture)
    mixed = plain_task(inputs=seqio.ByteVocabulary(), targets=seqio.ByteVocabulary(extra_ids=3))
    with pytest.raises(UserError, match="'inputs' of .*'targets' of .*bytes#extra_ids=3"):
        registry.task_vocabulary(workspace(), mixed)
    registry.add_mixture(same, {byte: 1, both(seqio.ByteVocabulary()): 1})
    assert registry.task_vocabulary(workspace(), same) == "bytes#extra_ids=0"
    with pytest.raises(UserError, match="unknown task or mixture"):
        registry.task_vocabulary(workspace(), "no.such.task")
