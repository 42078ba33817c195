"""The mixtures of the Flan 2022 Collection: counts, shares, what is in and what is left out."""

import collections
import itertools
import time

import numpy as np
import pytest
from scipy import stats

from instruct.data.feed.plan import Plan
from instruct.data.registry import resolve, task_specs
from tasks import mixtures
from tasks.flan2021.table import CLUSTERS
from tests.workspaces import workspace


def tasks_of(name: str) -> set[str]:
    return {leaf.task for leaf in resolve(workspace(), name).leaves}


def shares(name: str, key=lambda leaf: leaf.family) -> dict[str, float]:
    found: dict[str, float] = collections.defaultdict(float)
    for leaf in resolve(workspace(), name).leaves:
        found[key(leaf)] += leaf.rate
    return dict(found)


COUNTS = {
    "flan2022": 1836, "flan2022_released": 1836 - 7, "scaling_a": 1836, "scaling_b": 1836,
    "equal": 1836, "muffin": 80, "flan2021": 72, "flan2021_released": 71, "t0": 193, "niv2": 1554,
    "cot": 9, "dialog": 3, "program_synthesis": 5, "flan2022_unbalanced": 1836,
    "flan2022_no_inversion": 1836, "flan2022_no_few_shot": 1836, "flan2022_no_cot": 1827,
    "flan_tasks_9": 9, "flan_tasks_89": 89, "flan_tasks_282": 282, "flan_tasks_1836": 1836,
    "scaling_a_no_cot": 1827, "flan2022_tasks_alike": 1836, "p3_plus_plus": 193 + 27,
    "flan2022_random_8_0": 8, "flan2022_random_1836_2": 1836, "flan2022_zs_random_400_1": 400,
    "niv2.train_default": 697, "niv2.test_default": 119, "niv2.test_xlingual": 35,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_papers(name):
    resolved = resolve(workspace(), name)
    assert resolved.num_tasks == COUNTS[name]
    assert sum(leaf.rate for leaf in resolved.leaves) == pytest.approx(1)


def test_balances():
    found = shares("flan2022")
    for source in ("flan2021", "t0", "niv2", "cot"):
        assert found[source] == pytest.approx(mixtures.FLAN2022[source])
    assert found["dialog"] + found["program_synthesis"] == pytest.approx(0.03)
    for name, asked in (("scaling_a", mixtures.SCALING_A), ("scaling_b", mixtures.SCALING_B)):
        found = shares(name)
        for source in ("t0", "niv2", "cot"):
            assert found[source] == pytest.approx(asked[source] / sum(asked.values()))
    assert list(shares("equal").values()) == pytest.approx([1 / 6] * 6)
    for name in mixtures.EQUAL:
        found = shares(f"equal_no_{name}")
        assert name not in found and list(found.values()) == pytest.approx([1 / 5] * 5)


def test_parts_and_inversion():
    by_mode = shares("flan2022", lambda leaf: leaf.mode)
    few_shot = sum(share for mode, share in by_mode.items() if mode.startswith("fs_"))
    assert few_shot == pytest.approx(0.5)
    cot = shares("cot", lambda leaf: leaf.mode)
    assert cot["zs_inv"] / cot["cot"] == pytest.approx(0.3)
    assert cot["fs_inv"] / cot["fs_cot"] == pytest.approx(0.3)
    assert not {"zs_inv", "fs_inv"} & set(shares("flan2022_no_inversion", lambda leaf: leaf.mode))
    assert shares("flan2022_no_inversion")["t0"] == pytest.approx(0.32)


def test_random_subsets_are_nested_differ_by_draw_and_have_zero_shot_forms():
    small, large = tasks_of("flan2022_random_100_0"), tasks_of("flan2022_random_200_0")
    assert small < large and tasks_of("flan2022_zs_random_100_0") == small
    assert len(small & tasks_of("flan2022_random_100_1")) < 30  # 5 of 100 by chance
    leaves = resolve(workspace(), "flan2022_zs_random_200_0").leaves
    assert len(leaves) == 200 and not any(leaf.mode.startswith("fs_") for leaf in leaves)
    whole = shares("flan2022_random_1836_0", lambda leaf: leaf.task)
    assert whole == pytest.approx(shares("flan2022_unbalanced", lambda leaf: leaf.task))


@pytest.mark.parametrize("percent", mixtures.FEW_SHOT_PERCENT)
@pytest.mark.parametrize("source", ["flan2022", "flan2021"])
def test_few_shot_share(source, percent):
    by_mode = shares(f"{source}_fs_{percent}", lambda leaf: leaf.mode)
    few_shot = sum(share for mode, share in by_mode.items() if mode.startswith("fs_"))
    assert few_shot == pytest.approx(percent / 100)
    asked = mixtures.FLAN2022["flan2021"] if source == "flan2022" else 1
    assert shares(f"{source}_fs_{percent}")["flan2021"] == pytest.approx(asked)


def test_a_task_counts_by_its_records_up_to_the_cap():
    per_task = shares("flan2021.zs_opt.straight", lambda leaf: leaf.task)
    sizes = {
        name: min(task_specs(workspace())[name].num_examples["train"], 30_000) for name in per_task
    }
    total = sum(sizes.values())
    assert per_task == pytest.approx({name: size / total for name, size in sizes.items()})
    assert per_task["flan2021.snli"] == per_task["flan2021.sentiment140"] > per_task["flan2021.cb"]
    muffin = shares("muffin", lambda leaf: leaf.task)
    assert muffin["dialog.wiki_dialog"] == pytest.approx(muffin["flan2021.snli"], rel=0.31)


def test_task_scales_are_nested():
    nested = [tasks_of(f"flan_tasks_{count}") for count in sorted(mixtures.TASK_SCALES)]
    assert all(small < large for small, large in itertools.pairwise(nested))


# FLAN 2021's own splits: QNLI is made of SQuAD's texts, WNLI of the Winograd schemas'.
PUBLISHED_OVERLAPS = {
    2: {"flan2021.qnli"},
    9: {"flan2021.wnli"},
    10: {"flan2021.squad_v1", "flan2021.squad_v2", "flan2021.wsc"},
}


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(CLUSTERS)))
def test_inter_cluster_splits_share_neither_task_nor_cluster(index):
    trained = tasks_of(f"flan2021_v1.without_{CLUSTERS[index].name}")
    held_out = tasks_of(f"flan2021_v1.{CLUSTERS[index].name}")
    assert trained and held_out and not trained & held_out
    groups = {task_specs(workspace())[name].group for name in held_out}
    touched = {name for name in trained if task_specs(workspace())[name].group in groups}
    assert touched == PUBLISHED_OVERLAPS.get(index, set())
    assert {
        leaf.mode for leaf in resolve(workspace(), f"flan2021_v1.{CLUSTERS[index].name}").leaves
    } <= {
        "zs_opt",
        "zs_noopt",
    }


def test_natural_instructions_tracks_are_disjoint():
    assert not tasks_of("niv2.train_default") & tasks_of("niv2.test_default")
    assert not tasks_of("niv2.train_xlingual") & tasks_of("niv2.test_xlingual")


@pytest.fixture(scope="module")
def simulated():
    """`flan2022` over stores of the tasks' declared sizes; drawn ones where none is declared."""
    leaves = resolve(workspace(), "flan2022").leaves
    draw = np.random.default_rng(0)
    drawn = {name: int(draw.integers(26, 6500)) for name in dict.fromkeys(x.task for x in leaves)}
    sizes = [leaf.records or drawn[leaf.task] for leaf in leaves]
    numbers = {task: number for number, task in enumerate(drawn)}
    return leaves, sizes, [numbers[leaf.task] for leaf in leaves]


def make_plan(simulated, mode="low_discrepancy") -> Plan:
    leaves, sizes, groups = simulated
    return Plan([leaf.rate for leaf in leaves], sizes, 0, mode, groups)


@pytest.mark.parametrize("mode", ["low_discrepancy", "iid"])
def test_plan_of_the_whole_collection(simulated, mode):
    started = time.process_time()
    plan = make_plan(simulated, mode)
    leaves, counts, turns = plan.examples(0, 100_000)
    assert time.process_time() - started < 2  # 0.3 s of the processor
    # Draws match the asked rates: chi-square over leaves, the rarest ones together.
    expected = plan.rates * 100_000
    observed = np.bincount(leaves, minlength=expected.size)
    rare = expected < 5
    table = np.append(observed[~rare], observed[rare].sum())
    asked = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(table, asked * table.sum() / asked.sum()).pvalue > 0.01
    # Nothing repeats within a task before it is used up.
    records = plan.record_indices(leaves, turns)
    tasks = np.asarray(simulated[2])[leaves]
    epochs = turns // np.asarray(simulated[1])[leaves]
    seen = set(zip(tasks.tolist(), epochs.tolist(), records.tolist()))
    assert len(seen) == leaves.size
    # Any example from its number alone, with a fresh plan.
    fresh = make_plan(simulated, mode)
    for number in (0, 12_345, 99_999):
        leaf, count, turn = fresh.examples(number, number + 1)
        assert (leaf, count, turn) == (leaves[number], counts[number], turns[number])
        assert fresh.record_indices(leaf, turn) == records[number]


@pytest.mark.parametrize("num_hosts", [1, 2, 8])
def test_hosts_read_one_sequence_and_resume_from_one_integer(simulated, num_hosts):
    """Host h takes windows h, h + hosts, ...; together they are the sequence of one host."""
    plan, size = make_plan(simulated), 512
    whole = np.stack(plan.examples(0, 16 * size))
    for resume_at in (0, 1):  # a host's own window number is all it needs to go on
        parts = {}
        for host in range(num_hosts):
            for window in range(host + resume_at * num_hosts, 16, num_hosts):
                parts[window] = np.stack(plan.window(window, size))
        together = np.concatenate([parts[w] for w in sorted(parts)], axis=1)
        assert (together == whole[:, resume_at * num_hosts * size :]).all()
