"""Groups unite what shares examples, under names that some task really has."""

from instruct.data.registry import task_specs
from tasks import mixtures  # noqa: F401 (registers every family)
from tasks.contamination import GROUPS, group_of
from tests.workspaces import workspace


def test_every_name_is_a_data_set_and_no_chain_is_left():
    datasets = {spec.dataset for spec in task_specs(workspace()).values()}
    names = {*datasets, *(name.partition(".")[2] for name in task_specs(workspace()))}
    assert set(GROUPS) <= names
    assert not set(GROUPS.values()) & set(GROUPS)


def test_families_agree_on_what_they_share():
    groups = {}
    for spec in task_specs(workspace()).values():
        groups.setdefault(spec.group, set()).add(spec.family)
    assert {"flan2021", "niv2"} <= groups["bool_q"] & groups["trivia_qa"] & groups["squad"]
    assert groups["snli"] >= {"flan2021", "niv2", "cot"}
    assert groups["commonsenseqa"] >= {"t0", "niv2", "cot"}
    assert group_of("a_set_of_a_user") == "a_set_of_a_user"
