"""The tree of parts that every source has."""

import dataclasses

import pytest

from instruct.data.registry import add_task, find_spec, resolve
from tasks.gym import family  # noqa: F401 (registers tasks to take wordings from)
from tasks.source_mixtures import INVERSION, OPTION_PARTS, PLAIN_PARTS, add_source
from tests.workspaces import workspace


def made_up(name: str, modes: tuple[str, ...], records: int):
    spec = dataclasses.replace(
        find_spec(workspace(), "gym.gcd"),
        name=f"tree.{name}",
        family="tree",
        dataset=name,
        modes=dict.fromkeys(modes, 1.0),
        extra_modes=(),
        num_examples={"train": records},
        cap=100,
    )
    return add_task(spec)


@pytest.fixture(scope="module")
def specs():
    both = ("zs_opt", "zs_noopt", "zs_inv", "fs_opt", "fs_noopt", "fs_inv")
    return [made_up("choice", both, 50), made_up("free", ("zs_noopt", "fs_noopt"), 900)]


def shares(name: str) -> dict[str, float]:
    return {leaf.name: leaf.rate for leaf in resolve(workspace(), name).leaves}


def test_an_option_part_holds_every_task(specs):
    add_source("tree_options", specs, OPTION_PARTS)
    straight = shares("tree_options.zs_opt.straight")
    assert straight == pytest.approx(
        {"tree.choice.zs_opt": 50 / 150, "tree.free.zs_noopt": 100 / 150}
    )
    part = shares("tree_options.fs_noopt")
    assert part["tree.choice.fs_inv"] == pytest.approx(INVERSION / (1 + INVERSION))
    whole = shares("tree_options")
    assert sum(rate for name, rate in whole.items() if ".zs_" in name) == pytest.approx(0.5)
    assert not any("_inv" in name for name in shares("tree_options.straight"))


def test_a_plain_source_has_one_part_a_side_and_a_cap_of_its_own(specs):
    add_source("tree_plain", specs, PLAIN_PARTS, cap=10)
    assert shares("tree_plain.zs_noopt.straight") == pytest.approx(
        {"tree.choice.zs_noopt": 0.5, "tree.free.zs_noopt": 0.5}
    )
