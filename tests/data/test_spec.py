"""Task specs check themselves."""

import dataclasses

import pytest

from instruct.data.spec import Leaf, Resolved
from instruct.errors import UserError
from instruct.prompts.template import Template
from tests.data.toy import TEMPLATES, toy_spec


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"modes": {}}, "no prompt mode"),
        ({"modes": {"zs_nopt": 1.0}}, "Did you mean 'zs_noopt'"),
        ({"modes": {"zs_noopt": 0.0}}, "must be above 0"),
        ({"mode_metric_fns": {"zs_nopt": ()}}, "Did you mean 'zs_noopt'"),
        ({"cap": 0}, "cap is 0"),
        ({"shots": 0}, "shots is 0"),
    ],
)
def test_bad_specs_are_refused(changes, part):
    with pytest.raises(UserError, match=part):
        toy_spec(**changes)


def test_where_exemplars_come_from():
    spec = toy_spec(shots=5, exemplar_split="dev", cot_exemplar_split="dev_cot")
    assert spec.exemplar_split_of("direct") == spec.exemplar_split_of("fs_opt") == "dev"
    assert spec.exemplar_split_of("cot") == spec.exemplar_split_of("fs_cot") == "dev_cot"
    assert spec.exemplar_split_of("zs_opt") == spec.exemplar_split_of("zs_cot") == ""
    assert [spec.fixed_shots(mode) for mode in ("direct", "cot", "fs_opt")] == [5, 5, None]
    assert toy_spec().exemplar_split_of("direct") == ""
    assert toy_spec().exemplar_split_of("fs_cot") == "train"


def test_leaf_names():
    assert toy_spec(name="toy.sums").leaf_name("fs_opt") == "toy.sums.fs_opt"


def test_metrics_of_a_mode_stand_in_for_the_tasks():
    spec = toy_spec(metric_fns=[len], mode_metric_fns={"fs_opt": [max]})
    assert spec.metric_fns_of("fs_opt") == [max] and spec.metric_fns_of("zs_opt") == [len]


def test_counts_of_a_mixture():
    leaves = [
        Leaf(f"t{i}.m{j}", 0.25, f"t{i}", f"m{j}", "t", f"{i}", f"c{i % 2}", "1", count, (), None)
        for i, j, count in ((0, 0, 5), (0, 1, 5), (1, 0, None), (2, 0, 7))
    ]
    resolved = Resolved("mix", "train", tuple(leaves))
    assert (resolved.num_tasks, resolved.num_datasets, resolved.num_categories) == (3, 3, 2)
    assert resolved.unprepared == ("t1.m0",)


def test_a_reply_in_the_form_that_is_read():
    closing = dataclasses.replace(
        TEMPLATES,
        cot_noopt=(Template("why", "{question}", "{rationale}\nSo the answer is {answer}."),),
    )
    spec = toy_spec(templates=closing, modes={"direct": 1, "cot": 1}, extra_modes=("zs_cot",))
    assert [spec.reply(mode, "4") for mode in spec.all_modes] == [
        "4",
        "So the answer is 4",
        "So the answer is 4",
    ]
    own = dataclasses.replace(spec, reasoned_reply="Es sind {answer}.")
    assert (own.reply("cot", "4"), own.reply("direct", "4")) == ("Es sind 4.", "4")
    assert toy_spec(modes={"cot": 1}).reply("cot", "4") == "4"
    with pytest.raises(UserError, match=r"reasoned_reply is 'Es sind'; it must contain \{answer\}"):
        toy_spec(reasoned_reply="Es sind")
