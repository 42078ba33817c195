"""A source's tasks as a tree of mixtures, the same for every source of the Flan Collection.

    <source>                      zero- and few-shot parts, half each
      <source>.zs                 its zero-shot parts, with and without answer options, half each
        <source>.zs_opt           straight prompts 1.0, inverted ones 0.3
          <source>.zs_opt.straight    tasks by their number of records, at most `cap` of each
          <source>.inverted_zs
        <source>.zs_noopt
      <source>.fs                 the same with exemplars
    <source>.straight             the source without inverted prompts

As in the released generator (flan/v2), an option part contains every task of the source, those that
have no options worded without them, so that the parts differ in wording only.
"""

from collections.abc import Iterable, Mapping

from instruct.data.registry import add_mixture, registered_specs
from instruct.data.spec import TaskSpec

# Rate of inverted prompts relative to straight ones (flan/v2: 0.3 for CoT-II and Dialog-II;
# Longpre et al. 2023, section 3.3).
INVERSION = 0.3

# Side -> part -> modes; a task contributes the first of these that it has.
OPTION_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "zs": {"zs_opt": ("zs_opt", "zs_noopt"), "zs_noopt": ("zs_noopt",)},
    "fs": {"fs_opt": ("fs_opt", "fs_noopt"), "fs_noopt": ("fs_noopt",)},
}
PLAIN_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "zs": {"zs_noopt": ("zs_noopt",)},
    "fs": {"fs_noopt": ("fs_noopt",)},
}
COT_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "zs": {"zs_cot": ("cot",)},
    "fs": {"fs_cot": ("fs_cot",)},
}


def tasks_of(*families: str, without: Iterable[str] = ()) -> tuple[TaskSpec, ...]:
    """The registered tasks of these families, family by family, without some by name."""
    specs = registered_specs().values()
    names = set(without)
    return tuple(s for f in families for s in specs if s.family == f and s.name not in names)


def leaves(specs: Iterable[TaskSpec], *modes: str) -> dict[str, float | None]:
    """A leaf of every task that has one of the modes, in the first of these."""
    own_modes = [(spec, [mode for mode in modes if mode in spec.modes]) for spec in specs]
    return {spec.leaf_name(own[0]): None for spec, own in own_modes if own}


def add_source(
    name: str,
    specs: Iterable[TaskSpec],
    parts: Mapping[str, Mapping[str, tuple[str, ...]]],
    cap: int | None = None,
) -> None:
    """Registers the mixtures of one source: `name`, `name.zs`, `name.fs`, `name.straight`, parts.

    Args:
        specs: its tasks, registered before.
        parts: "zs" and "fs" -> part -> modes.
        cap: most records that a task counts for; None for the tasks' own caps.
    """
    specs = tuple(specs)
    for side, modes_of in parts.items():
        inverted = leaves(specs, f"{side}_inv")
        if inverted:
            add_mixture(f"{name}.inverted_{side}", inverted, cap)
        for part, modes in modes_of.items():
            add_mixture(f"{name}.{part}.straight", leaves(specs, *modes), cap)
            mixed = {f"{name}.{part}.straight": 1.0}
            if inverted:
                mixed[f"{name}.inverted_{side}"] = INVERSION
            add_mixture(f"{name}.{part}", mixed)
        add_mixture(f"{name}.{side}", {f"{name}.{part}": 1.0 for part in modes_of})
        add_mixture(f"{name}.{side}.straight", {f"{name}.{p}.straight": 1.0 for p in modes_of})
    add_mixture(name, {f"{name}.{side}": 1.0 for side in parts})
    add_mixture(f"{name}.straight", {f"{name}.{side}.straight": 1.0 for side in parts})
