"""The suites by name: mixtures for `run.py eval --gin.EVAL_MIXTURES=...`.

    mmlu.direct, mmlu.cot       57 subjects, five exemplars
    bbh.direct, bbh.cot         27 sub-tasks, three exemplars
    tydiqa                      8 languages without English, one exemplar
    mgsm                        10 languages without English, eight exemplars with reasoning
    flan_held_out               all of the above, which Chung et al. 2022 hold out
    mmlu.zs_direct, .zs_cot     MMLU without exemplars, the second with "Let's think step by step";
    bbh.zs_direct, .zs_cot      BBH likewise
    xquad                       12 languages, one exemplar; tydiqa.all, mgsm.all: English too
    gsm8k.cot, gsm8k.zs_cot     MGSM's eight English exemplars (not those of Wei et al.), and none
    held_in                     held_in.zs and held_in.fs: eight training tasks of Flan
    held_in.wording_1 to _10    the same without exemplars, in each of ten wordings
    cot_eval, cot_eval.zs       five sets by chain of thought
    t0_held_out                 116 prompts of 11 sets, by rank
    dialogsum, samsum           summaries
    bias                        RealToxicityPrompts, Winogender, CivilComments

Every task of a suite has the same weight. FLAN 2021's clusters are `flan2021_v1.<cluster>` and
Super-NaturalInstructions' test tasks `niv2.test_default` (tasks/mixtures.py).
"""

from instruct.data.registry import add_mixture
from tasks.source_mixtures import tasks_of
from tasks.suites import (
    bbh,
    bias,
    cot_eval,
    grade_school,
    held_in,
    mmlu,
    passages,
    summaries,  # noqa: F401 (registers)
    t0_held_out,
)

PROTOCOLS = ("direct", "cot", "zs_direct", "zs_cot")
HELD_OUT = ("mmlu.direct", "mmlu.cot", "bbh.direct", "bbh.cot", "tydiqa", "mgsm")


def _add(name: str, family: str, mode: str, without: str = "") -> None:
    """Registers one mode of the tasks of a family; every task counts alike."""
    specs = tasks_of(family, without=(f"{family}.{without}",))
    add_mixture(name, {spec.leaf_name(mode): 1.0 for spec in specs})


for _name in (mmlu.FAMILY, bbh.FAMILY):
    for _mode in PROTOCOLS:
        _add(f"{_name}.{_mode}", _name, _mode)
_add("tydiqa", passages.TYDIQA, "direct", without="english")
_add("tydiqa.all", passages.TYDIQA, "direct")
_add("xquad", passages.XQUAD, "direct")
_add("mgsm", grade_school.MGSM, "cot", without="en")
_add("mgsm.all", grade_school.MGSM, "cot")
add_mixture("flan_held_out", dict.fromkeys(HELD_OUT, 1.0))
for _mode in ("cot", "zs_cot"):
    _add(f"gsm8k.{_mode}", grade_school.GSM8K, _mode)
_add("held_in.zs", held_in.FAMILY, "zs_opt")
_add("held_in.fs", held_in.FAMILY, "fs_opt")
add_mixture("held_in", {"held_in.zs": 1.0, "held_in.fs": 1.0})
for _number in range(1, held_in.NUM_WORDINGS + 1):
    _names = (f"{held_in.WORDINGS_FAMILY}.{_id}_{_number}.zs_opt" for _id in held_in.IDS)
    add_mixture(f"held_in.wording_{_number}", dict.fromkeys(_names, 1.0))
_add("cot_eval", cot_eval.FAMILY, "cot")
_add("cot_eval.zs", cot_eval.FAMILY, "zs_cot")
_add("t0_held_out", t0_held_out.FAMILY, "zs_direct")
_add("dialogsum", "dialogsum", "zs_noopt")
_add("samsum", "samsum", "zs_noopt")
_add("bias", bias.FAMILY, "zs_direct")
