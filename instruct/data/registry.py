"""Tasks and mixtures by name. Definitions are SeqIO's; registering one reads nothing.

    add_task(spec)          one seqio.Task per mode: `gym.chain_sum.zs_noopt`, and
                            `gym.chain_sum`, the mixture of its modes
    add_mixture(name, ...)  a seqio.Mixture over tasks, task specs and mixtures, ours or a user's
    resolve(name)           its leaves with their shares; linear in their number
    children(name)          what it was made of, one level down

Rates nest: each mixture divides its share among its children. `None` stands for a rate
proportional to the number of records, at most `cap` of each task (T5, Raffel et al. 2020, 3.5.2).
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping

import seqio

from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.records import known_num_records
from instruct.data.seqio.bridge import (
    FEATURES,
    from_seqio,
    record_task,
    use_vocabulary,
)
from instruct.data.seqio.mixtures import (
    UNKNOWN_RECORDS,
    known_size,
    plain_num_records,
    plain_shares,
)
from instruct.data.seqio.reading import PlainTaskSource
from instruct.data.spec import Leaf, Resolved, TaskSpec
from instruct.data.stores.store import leaf_manifest, store_dir
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name

_specs: dict[str, TaskSpec] = {}
_leaves: dict[str, tuple[TaskSpec, str]] = {}
_mixtures: dict[str, dict[str, float | None]] = {}
_caps: dict[str, int] = {}  # of mixtures that set their own
# Mixture -> (state of the store folder, shares); SeqIO asks for one leaf's rate at a time.
_rate_tables: dict[str, tuple[object, dict[str, float]]] = {}


def set_vocabulary(spec: str) -> None:
    """Chooses the vocabulary of all our seqio tasks (names: instruct/data/vocab.py)."""
    use_vocabulary(spec)


def add_task(spec: TaskSpec) -> TaskSpec:
    """Registers a task: one seqio task per mode, and the mixture of the modes.

    Raises:
        UserError: the name is taken or not one SeqIO allows.
    """
    _check_free(spec.name)
    for mode in spec.all_modes:
        name = spec.leaf_name(mode)
        _check_free(name)
        try:
            seqio.TaskRegistry.add_provider(name, record_task(spec, mode))
        except ValueError as error:
            raise UserError(f"task {name!r}: {error}") from error
        _leaves[name] = (spec, mode)
    _specs[spec.name] = spec
    _add(spec.name, {spec.leaf_name(mode): rate for mode, rate in spec.modes.items()})
    return spec


def add_mixture(name: str, rates: Mapping[str, float | None], cap: int | None = None) -> None:
    """Registers a mixture.

    Args:
        rates: child -> rate, relative to its siblings; None for the number of its records,
            capped per task. A child is a mixture, a task (all its modes), one mode of a task,
            or any registered seqio task or mixture; it must be registered before.
        cap: most records that a task counts for where a rate is None, instead of its own cap.

    Raises:
        UserError: the name is taken, a child is unknown, a rate is not above 0, or no child.
    """
    _check_free(name)
    if not rates:
        raise UserError(f"mixture {name!r} is empty; it needs at least one task or mixture")
    for child, rate in rates.items():
        if not _is_known(child):
            raise unknown_name(f"task or mixture (in mixture {name!r})", child, all_names())
        if rate is not None and not (rate > 0 and rate < float("inf")):
            raise UserError(
                f"mixture {name!r}: the rate of {child!r} is {rate}; it must be above 0. "
                "Leave out what should not be mixed in"
            )
    if cap is not None and cap <= 0:
        raise UserError(f"mixture {name!r}: cap is {cap}; use a number above 0 or None")
    _add(name, dict(rates), cap)


def _add(name: str, rates: dict[str, float | None], cap: int | None = None) -> None:
    # SeqIO gets the leaves flat: its own rates of nested mixtures take quadratic time, and its
    # rates of sub-mixtures must be numbers. They are resolved when first asked for.
    _mixtures[name] = rates
    if cap is not None:
        _caps[name] = cap
    rate_fn = _SeqioRates(name)
    leaves = [(leaf, rate_fn) for leaf in _leaf_names(name)]
    try:
        seqio.MixtureRegistry.add(name, leaves)
    except ValueError as error:
        del _mixtures[name]
        _caps.pop(name, None)
        raise UserError(f"mixture {name!r}: {error}") from error


class _SeqioRates:
    """`rate_fn(task)` of a flat seqio mixture: the leaf's share, by the same rules as `resolve`."""

    def __init__(self, mixture: str) -> None:
        self._mixture = mixture

    def __call__(self, task: seqio.Task) -> float:
        state = _store_state()
        if _rate_tables.get(self._mixture, (None, {}))[0] != state:
            _rate_tables[self._mixture] = (state, _Shares("train").of(self._mixture))
        return _rate_tables[self._mixture][1][task.name]


def _store_state() -> object:
    """Another value after stores were added, which may change examples-proportional rates."""
    folder = store_dir()
    try:
        return str(folder), folder.stat().st_mtime_ns
    except OSError:
        return str(folder), 0


def _check_free(name: str) -> None:
    if name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names():
        raise UserError(f"the name {name!r} is registered already; names must be unique")


def _is_known(name: str) -> bool:
    return name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names()


def all_names() -> list[str]:
    """Every registered task and mixture, sorted."""
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def mixture_names() -> list[str]:
    """Mixtures made by `add_mixture` or by a user through SeqIO, sorted."""
    return sorted(name for name in seqio.MixtureRegistry.names() if name not in _specs)


def task_specs() -> Mapping[str, TaskSpec]:
    """Our tasks by name, in the order they were registered."""
    return dict(_specs)


def find_spec(name: str) -> TaskSpec:
    """The task of that name; one of its modes may be given as well."""
    if name in _leaves:
        return _leaves[name][0]
    if name in _specs:
        return _specs[name]
    task, _, mode = name.rpartition(".")
    if task in _specs:
        raise unknown_name(f"prompt mode of task {task!r}", mode, _specs[task].all_modes)
    raise unknown_name("task", name, _specs)


def is_plain_task(name: str) -> bool:
    """Whether a name is that of a seqio task which a user registered, without records of ours."""
    return name not in _leaves and name not in _specs and name in seqio.TaskRegistry.names()


def find_seqio_task(name: str) -> seqio.Task:
    """The seqio task behind a leaf: its `postprocess_fn` and `metric_fns`."""
    if name not in seqio.TaskRegistry.names():
        raise unknown_name("task", name, seqio.TaskRegistry.names())
    return seqio.TaskRegistry.get(name)


def _leaf_names(name: str) -> list[str]:
    """Names of the seqio tasks below a task or mixture, each once, in order of first mention."""
    seen: dict[str, None] = {}
    visited = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current in visited:
            continue
        visited.add(current)
        if current in _mixtures:
            stack.extend(reversed(_mixtures[current]))
        elif current in seqio.MixtureRegistry.names():
            tasks = seqio.MixtureRegistry.get(current).tasks
            seen.update(dict.fromkeys(task.name for task in tasks))
        else:
            seen[current] = None
    return list(seen)


class _Shares:
    """Shares of leaves, every mixture worked out once."""

    def __init__(self, split: str, declared: bool = False, left_out: Collection[str] = ()) -> None:
        self._split = split
        self._declared = declared
        self._left_out = frozenset(left_out)
        self._memo: dict[str, dict[str, float]] = {}
        self._sizes: dict[tuple[str, int | None], float] = {}
        self._records: dict[str, int | None] = {}

    def of(self, name: str) -> dict[str, float]:
        """Leaf -> share of mixture `name`; they add up to 1."""
        if name not in self._memo:
            if name in _mixtures:
                self._memo[name] = self._ours(name)
            elif name in seqio.MixtureRegistry.names():
                self._memo[name] = plain_shares(seqio.MixtureRegistry.get(name), self._without)
            else:
                self._memo[name] = {} if self._without(name) else {name: 1.0}
        return self._memo[name]

    def _without(self, name: str) -> bool:
        """Whether a task or leaf is left out."""
        return (_leaves[name][0].name if name in _leaves else name) in self._left_out

    def _ours(self, name: str) -> dict[str, float]:
        shares: dict[str, float] = {}
        for child, part in self.parts(name).items():
            for leaf, share in self.of(child).items():
                shares[leaf] = shares.get(leaf, 0.0) + share * part
        return shares

    def parts(self, name: str) -> dict[str, float]:
        """Child -> its share of one of our mixtures; they add up to 1.

        A child whose tasks are all left out is none; the others keep their proportions.
        """
        cap = _caps.get(name)
        rates = {
            child: self._size(child, cap) if rate is None else rate
            for child, rate in _mixtures[name].items()
            if not self._left_out or self.of(child)
        }
        if not rates:
            return {}
        total = sum(rates.values())
        if not total > 0:
            raise UserError(f"mixture {name!r}: all of its tasks are empty")
        return {child: rate / total for child, rate in rates.items()}

    def _size(self, name: str, cap: int | None) -> float:
        """Records below `name`, at most `cap` (or its own cap) of each task.

        Two modes of a task are two leaves over the same records, so a single mode counts as much
        as the whole task.
        """
        if (name, cap) not in self._sizes:
            if name in _specs or name in _leaves:
                spec = find_spec(name)
                if spec.name not in self._records:
                    self._records[spec.name] = (
                        spec.num_examples.get(self._split)
                        if self._declared
                        else known_num_records(spec, self._split)
                    )
                size = float(_capped(self._records[spec.name], cap or spec.cap))
                size = 0.0 if self._without(spec.name) else size
            elif name in _mixtures:
                size = sum(self._size(child, cap) for child in _mixtures[name])
            else:
                size = float(plain_num_records(name, self._split, self._without))
            self._sizes[name, cap] = size
        return self._sizes[name, cap]


def _capped(records: int | None, cap: int | None) -> int:
    if records is None:
        return cap if cap is not None else UNKNOWN_RECORDS
    return records if cap is None else min(records, cap)


def resolve(name: str, split: str = "train", left_out: Collection[str] = ()) -> Resolved:
    """Takes a mixture, a task or one of its modes apart into leaves.

    Args:
        name: anything registered here or with SeqIO.
        split: the split whose record numbers fix examples-proportional rates and `records`.
        left_out: tasks that take no part. The rest of each sub-mixture shares what it had; only a
            sub-mixture without any task left gives its share to the others.

    Raises:
        UserError: unknown name, a mixture of empty tasks, or all of them are left out.
    """
    found = shares(name, split, left_out=left_out)
    if not found:
        raise UserError(f"every task of {name!r} is left out: {', '.join(sorted(left_out)[:5])}")
    leaves = (_make_leaf(n, share, split) for n, share in found.items())
    return Resolved(name, split, tuple(leaves), tuple(_tasks_among(name, left_out)))


def _tasks_among(name: str, tasks: Collection[str]) -> list[str]:
    """Those of `tasks` that are below `name`, in the mixture's order."""
    if not tasks:
        return []
    below = (_leaves[n][0].name if n in _leaves else n for n in _leaf_names(name))
    return [task for task in dict.fromkeys(below) if task in tasks]


def shares(
    name: str, split: str = "train", declared: bool = False, left_out: Collection[str] = ()
) -> dict[str, float]:
    """Leaf -> share of a mixture, task or mode, as `resolve` has it, without the rest.

    Args:
        declared: go by the sizes that the tasks declare, whatever the stores hold: what the rates
            ask for as they are written.
        left_out: as in `resolve`.
    """
    if not _is_known(name):
        raise unknown_name("task or mixture", name, all_names())
    return _Shares(split, declared, left_out).of(name)


@dataclasses.dataclass(frozen=True)
class Child:
    """What a mixture was made of, one level down.

    Attributes:
        name: a mixture, a task or a leaf.
        rate: as it was written; None for the number of its records.
        share: of the mixture's examples.
        cap: most records that the mixture lets a task count for where the rate is None; None where
            the tasks' own caps hold.
    """

    name: str
    rate: float | None
    share: float
    cap: int | None


def children(name: str, split: str = "train", left_out: Collection[str] = ()) -> tuple[Child, ...]:
    """The children of one of our mixtures or tasks, in the order written; () for anything else.

    Those without a task that is not left out are no children.
    """
    if name not in _mixtures:
        return ()
    cap = _caps.get(name)
    parts = _Shares(split, left_out=left_out).parts(name)
    rates = {n: rate for n, rate in _mixtures[name].items() if n in parts}
    return tuple(Child(n, rate, parts[n], cap) for n, rate in rates.items())


def task_vocabulary(name: str) -> str | None:
    """The vocabulary that all plain seqio tasks of a mixture have; None if there is none to tell.

    Our own tasks take any. A vocabulary class that has no counterpart here tells nothing: its ids
    are taken as they are.

    Raises:
        UserError: unknown name, or two vocabularies.
    """
    if not _is_known(name):
        raise unknown_name("task or mixture", name, all_names())
    found: dict[str, str] = {}  # vocabulary -> the task and feature that has it
    for leaf in _leaf_names(name):
        if leaf in _leaves:
            continue
        for feature, settings in seqio.TaskRegistry.get(leaf).output_features.items():
            spec = from_seqio(getattr(settings, "vocabulary", None))
            if feature in FEATURES and spec is not None:
                found.setdefault(spec, f"{feature!r} of {leaf!r}")
    if len(found) > 1 and len({load_vocabulary(spec).fingerprint for spec in found}) > 1:
        listed = "; ".join(f"{place}: {spec}" for spec, place in found.items())
        raise UserError(
            f"the tasks of {name!r} have different vocabularies ({listed}), and a model has one. "
            "Give them the same features, or train on those of one vocabulary"
        )
    return next(iter(found), None)


def with_vocabulary(config: DataConfig) -> DataConfig:
    """`config` with the vocabulary of its mixture's tasks for "auto"; "gym" where they have none.

    Raises:
        UserError: see `task_vocabulary`.
    """
    if config.vocabulary != AUTO_VOCABULARY:
        return config
    return dataclasses.replace(config, vocabulary=task_vocabulary(config.mixture) or "gym")


def unprepared(resolved: Resolved, config: DataConfig) -> list[str]:
    """Names of the leaves that have no store of `config.split` yet."""
    split = config.split
    return [leaf.name for leaf in resolved.leaves if leaf_manifest(leaf, split, config)[0] is None]


def _make_leaf(name: str, share: float, split: str) -> Leaf:
    if name in _leaves:
        spec, mode = _leaves[name]
        records = known_num_records(spec, split) if split in spec.splits else 0
        own = (spec.name, mode, spec.family, spec.dataset, spec.category, spec.version)
        return Leaf(name, share, *own, records, tuple(spec.splits), spec)
    task = seqio.TaskRegistry.get(name)
    # A plain task has no family of its own; the first part of its name is the best guess.
    family = name.replace(":", ".").partition(".")[0]
    version = getattr(task.source, "version", "") or "0"
    own = (name, "", family, name, family, version)
    source_fn = functools.partial(PlainTaskSource, name)
    records = known_size(task, split)
    return Leaf(name, share, *own, records, tuple(task.splits), None, source_fn)
