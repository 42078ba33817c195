"""Tasks and mixtures by name. Definitions are SeqIO's; registering one reads nothing.

    add_task(spec)             one seqio.Task per mode: `gym.chain_sum.zs_noopt`, and
                               `gym.chain_sum`, the mixture of its modes
    add_mixture(name, ...)     a seqio.Mixture over tasks, task specs and mixtures, ours or a user's
    add_discovery(find_specs)  tasks that depend on the files of a workspace
    resolve(workspace, name)   its leaves with their shares; linear in their number
    children(workspace, name)  what it was made of, one level down

Rates nest: each mixture divides its share among its children. `None` stands for a rate
proportional to the number of records, at most `cap` of each task (T5, Raffel et al. 2020, 3.5.2).
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping

import seqio

from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.records import known_num_records
from instruct.data.seqio.bridge import (
    FEATURES,
    RecordTask,
    WorkspaceMixture,
    from_seqio,
    record_task,
    registered_task,
)
from instruct.data.seqio.mixtures import (
    UNKNOWN_RECORDS,
    known_size,
    plain_num_records,
    plain_shares,
)
from instruct.data.seqio.reading import PlainTaskSource
from instruct.data.spec import Leaf, Resolved, TaskSpec
from instruct.data.stores.store import leaf_manifest
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.workspace import Workspace

Rates = Mapping[str, float | None]
FindSpecs = Callable[[Workspace], Iterable[TaskSpec]]

_specs: dict[str, TaskSpec] = {}
_discoveries: dict[FindSpecs, None] = {}
_discovered: dict[str, TaskSpec] = {}  # in whatever workspace
_leaves: dict[str, tuple[TaskSpec, str]] = {}
_mixtures: dict[str, Rates | Callable[[Workspace], Rates]] = {}
_caps: dict[str, int] = {}  # of mixtures that set their own
_by_workspace: set[str] = set()  # mixtures whose children are a function of the workspace
_warned: set[str] = set()  # mixtures of a user's whose provisional rates were warned of
# Mixture -> (state of the workspace, shares); SeqIO asks for one leaf's rate at a time.
_rate_tables: dict[str, tuple[object, dict[str, float]]] = {}


def add_task(spec: TaskSpec) -> TaskSpec:
    """Registers a task: one seqio task per mode, and the mixture of the modes.

    Raises:
        UserError: the name is taken or not one SeqIO allows.
    """
    _add_spec(spec)
    _specs[spec.name] = spec
    return spec


def _add_spec(spec: TaskSpec) -> None:
    _check_free(spec.name)
    for mode in spec.all_modes:
        name = spec.leaf_name(mode)
        _check_free(name)
        try:
            seqio.TaskRegistry.add_provider(name, registered_task(spec, mode))
        except ValueError as error:
            raise UserError(f"task {name!r}: {error}") from error
        _leaves[name] = (spec, mode)
    _add(spec.name, {spec.leaf_name(mode): rate for mode, rate in spec.modes.items()})


def add_discovery(find_specs: FindSpecs) -> None:
    """Registers a function that finds tasks in a workspace; doing so again changes nothing.

    Args:
        find_specs: workspace -> tasks. It is called when tasks are listed or looked up, and a task
            of one name must be the same in every workspace that has it.
    """
    _discoveries[find_specs] = None


def _discover(workspace: Workspace) -> dict[str, TaskSpec]:
    """The tasks of a workspace that are not registered by name."""
    found = {}
    for find_specs in _discoveries:
        for spec in find_specs(workspace):
            if spec.name not in _discovered:
                _add_spec(spec)
                _discovered[spec.name] = spec
            found[spec.name] = _discovered[spec.name]
    return found


def add_mixture(
    name: str, rates: Rates | Callable[[Workspace], Rates], cap: int | None = None
) -> None:
    """Registers a mixture.

    Args:
        rates: child -> rate, relative to its siblings; None for the number of its records,
            capped per task. A child is a mixture, a task (all its modes), one mode of a task,
            or any registered seqio task or mixture; it must be registered before. Or a function
            that gives these for a workspace, called when the mixture is resolved.
        cap: most records that a task counts for where a rate is None, instead of its own cap.

    Raises:
        UserError: the name is taken, a child is unknown, a rate is not above 0, or no child.
    """
    _check_free(name)
    if cap is not None and cap <= 0:
        raise UserError(f"mixture {name!r}: cap is {cap}; use a number above 0 or None")
    if not callable(rates):
        _check_rates(name, rates)
        rates = dict(rates)
    _add(name, rates, cap)


def _check_rates(name: str, rates: Rates) -> None:
    if not rates:
        raise UserError(f"mixture {name!r} is empty; it needs at least one task or mixture")
    for child, rate in rates.items():
        if not _is_registered(child):
            known = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
            raise unknown_name(f"task or mixture (in mixture {name!r})", child, known)
        if rate is not None and not (rate > 0 and rate < float("inf")):
            raise UserError(
                f"mixture {name!r}: the rate of {child!r} is {rate}; it must be above 0. "
                "Leave out what should not be mixed in"
            )


def _add(name: str, rates: Rates | Callable[[Workspace], Rates], cap: int | None = None) -> None:
    # SeqIO gets the leaves flat: its own rates of nested mixtures take quadratic time, and its
    # rates of sub-mixtures must be numbers. They are resolved when first asked for.
    _mixtures[name] = rates
    if cap is not None:
        _caps[name] = cap
    try:
        if callable(rates) or not _by_workspace.isdisjoint(rates):
            _by_workspace.add(name)
            mixture = WorkspaceMixture(name, functools.partial(_seqio_shares, name))
            seqio.MixtureRegistry.add_provider(name, mixture)
        else:
            rate_fn = _SeqioRates(name)
            seqio.MixtureRegistry.add(name, [(leaf, rate_fn) for leaf in _leaf_names(name)])
    except ValueError as error:
        del _mixtures[name]
        _caps.pop(name, None)
        raise UserError(f"mixture {name!r}: {error}") from error


class _SeqioRates:
    """`rate_fn(task)` of a flat seqio mixture: the leaf's share, by the same rules as `resolve`."""

    def __init__(self, mixture: str) -> None:
        self._mixture = mixture

    def __call__(self, task: seqio.Task) -> float:
        # A leaf that the workspace's wordings lack has no share.
        return _seqio_shares(self._mixture, RecordTask.workspace).get(task.name, 0.0)


def _seqio_shares(mixture: str, workspace: Workspace) -> dict[str, float]:
    """Leaf -> share, worked out again after stores were added, which may change the rates."""
    try:
        state = workspace, workspace.store_dir.stat().st_mtime_ns
    except OSError:
        state = workspace, 0
    if _rate_tables.get(mixture, (None, {}))[0] != state:
        _rate_tables[mixture] = (state, shares(workspace, mixture))
    return _rate_tables[mixture][1]


def _is_registered(name: str) -> bool:
    return name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names()


def _check_free(name: str) -> None:
    if _is_registered(name):
        raise UserError(f"the name {name!r} is registered already; names must be unique")


class _View:
    """The registered tasks and mixtures as one workspace has them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._worded: dict[str, TaskSpec] = {}

    @functools.cached_property
    def discovered(self) -> dict[str, TaskSpec]:
        """Tasks that only some workspaces have; empty for those that this one lacks."""
        return _discover(self.workspace)

    def knows(self, name: str) -> bool:
        """Whether this workspace has a task, mode or mixture of that name."""
        if not _is_registered(name):
            self.discovered  # noqa: B018 (registers)
        if name in _leaves and not self.has(name):
            return False
        task = _leaves[name][0].name if name in _leaves else name
        return _is_registered(name) and (task not in _discovered or task in self.discovered)

    def names(self) -> list[str]:
        """Every name, sorted."""
        self.discovered  # noqa: B018 (registers)
        names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
        return sorted(filter(self.knows, names))

    def spec(self, task: str) -> TaskSpec:
        """A task as the workspace words and scores it."""
        if task not in self._worded:
            spec = _specs[task] if task in _specs else self.discovered[task]
            self._worded[task] = spec.within(self.workspace)
        return self._worded[task]

    def has(self, leaf: str) -> bool:
        """Whether the workspace's wordings have the mode of one of our leaves."""
        spec, mode = _leaves[leaf]
        if spec.within_fn is None:
            return spec.name not in _discovered or spec.name in self.discovered
        return mode in self.spec(spec.name).all_modes

    def rates(self, name: str) -> Rates:
        """The children of one of our mixtures."""
        rates = _mixtures[name]
        if callable(rates):
            rates = rates(self.workspace)
            _check_rates(name, rates)
        elif name in _specs:
            spec = self.spec(name)
            return {spec.leaf_name(mode): rate for mode, rate in spec.modes.items()}
        return rates

    def leaf_names(self, name: str) -> list[str]:
        """Names of the seqio tasks below a name, each once, in order of first mention."""
        leaves = _leaf_names(name, self.rates)
        return [leaf for leaf in leaves if leaf not in _leaves or self.has(leaf)]


def all_names(workspace: Workspace) -> list[str]:
    """Every registered task and mixture, sorted."""
    return _View(workspace).names()


def mixture_names() -> list[str]:
    """Mixtures made by `add_mixture` or by a user through SeqIO, sorted."""
    tasks = {*_specs, *_discovered}
    return sorted(name for name in seqio.MixtureRegistry.names() if name not in tasks)


def registered_specs() -> Mapping[str, TaskSpec]:
    """Tasks by name as `add_task` got them, in their order; no workspace's tasks or wordings."""
    return dict(_specs)


def task_specs(workspace: Workspace) -> Mapping[str, TaskSpec]:
    """Tasks by name as a workspace has them: those of `add_task` in their order, then its own."""
    view = _View(workspace)
    return {name: view.spec(name) for name in (*_specs, *view.discovered)}


def find_spec(workspace: Workspace, name: str) -> TaskSpec:
    """The task of that name; one of its modes may be given as well."""
    view = _View(workspace)
    if view.knows(name) and (name in _leaves or is_task(name)):
        return view.spec(_leaves[name][0].name if name in _leaves else name)
    task, _, mode = name.rpartition(".")
    if task in _specs or task in view.discovered:
        raise unknown_name(f"prompt mode of task {task!r}", mode, view.spec(task).all_modes)
    raise unknown_name("task", name, (*_specs, *view.discovered))


def is_task(name: str) -> bool:
    """Whether a name is that of one of our tasks, not of a mode or mixture."""
    return name in _specs or name in _discovered


def is_plain_task(name: str) -> bool:
    """Whether a name is that of a seqio task which a user registered, without records of ours."""
    return name not in _leaves and name in seqio.TaskRegistry.names()


def find_seqio_task(workspace: Workspace, name: str) -> seqio.Task:
    """The seqio task behind a leaf, for its `postprocess_fn` and `metric_fns`.

    Its `get_dataset`, as that of all tasks, reads the workspace of `bridge.use_workspace`.
    """
    if name in _leaves:
        spec, mode = _leaves[name]
        return record_task(_View(workspace).spec(spec.name), mode)
    if name not in seqio.TaskRegistry.names():
        raise unknown_name("task", name, seqio.TaskRegistry.names())
    return seqio.TaskRegistry.get(name)


def _leaf_names(name: str, rates_fn: Callable[[str], Rates] | None = None) -> list[str]:
    """Names of the seqio tasks below a task or mixture, each once, in order of first mention.

    Args:
        rates_fn: children of a mixture of ours; None where none depends on a workspace.
    """
    seen: dict[str, None] = {}
    visited = set()
    stack = [name]
    while stack:
        current = stack.pop()
        if current in visited:
            continue
        visited.add(current)
        if current in _mixtures:
            rates = rates_fn(current) if rates_fn else _mixtures[current]
            stack.extend(reversed(() if callable(rates) else tuple(rates)))
        elif current in seqio.MixtureRegistry.names():
            tasks = seqio.MixtureRegistry.get(current).tasks
            seen.update(dict.fromkeys(task.name for task in tasks))
        else:
            seen[current] = None
    return list(seen)


class _Shares:
    """Shares of leaves in a workspace, every mixture worked out once."""

    def __init__(
        self, view: _View, split: str, declared: bool = False, left_out: Collection[str] = ()
    ) -> None:
        self._view = view
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
                mixture = seqio.MixtureRegistry.get(name)
                workspace = self._view.workspace
                self._memo[name] = plain_shares(workspace, mixture, self._without, _warned)
            else:
                self._memo[name] = {} if self._without(name) else {name: 1.0}
        return self._memo[name]

    def _without(self, name: str) -> bool:
        """Whether a task or leaf is left out, or a leaf's mode has no wording here."""
        if name in _leaves:
            return _leaves[name][0].name in self._left_out or not self._view.has(name)
        return name in self._left_out

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
        some_left_out = bool(self._left_out or self._view.workspace.flan_checkout)
        rates = {
            child: self._size(child, cap) if rate is None else rate
            for child, rate in self._view.rates(name).items()
            if not some_left_out or self.of(child)
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
            task = _leaves[name][0].name if name in _leaves else name
            if is_task(task):
                spec = self._view.spec(task)
                if task not in self._records:
                    self._records[task] = (
                        spec.num_examples.get(self._split)
                        if self._declared
                        else known_num_records(self._view.workspace, spec, self._split)
                    )
                size = float(_capped(self._records[task], cap or spec.cap))
                size = 0.0 if self._without(name) else size
            elif name in _mixtures:
                size = sum(self._size(child, cap) for child in self._view.rates(name))
            else:
                workspace = self._view.workspace
                size = float(plain_num_records(workspace, name, self._split, self._without))
            self._sizes[name, cap] = size
        return self._sizes[name, cap]


def _capped(records: int | None, cap: int | None) -> int:
    if records is None:
        return cap if cap is not None else UNKNOWN_RECORDS
    return records if cap is None else min(records, cap)


def resolve(
    workspace: Workspace, name: str, split: str = "train", left_out: Collection[str] = ()
) -> Resolved:
    """Takes a mixture, a task or one of its modes apart into leaves.

    Args:
        workspace: where stores are, whose sizes fix rates, and what words the tasks.
        name: anything registered here or with SeqIO.
        split: the split whose record numbers fix examples-proportional rates and `records`.
        left_out: tasks that take no part. The rest of each sub-mixture shares what it had; only a
            sub-mixture without any task left gives its share to the others.

    Raises:
        UserError: unknown name, a mixture of empty tasks, or all of them are left out.
    """
    view = _known_view(workspace, name)
    found = _Shares(view, split, left_out=left_out).of(name)
    if not found:
        raise UserError(f"every task of {name!r} is left out: {', '.join(sorted(left_out)[:5])}")
    leaves = (_make_leaf(view, n, share, split) for n, share in found.items())
    return Resolved(name, split, tuple(leaves), tuple(_tasks_among(view, name, left_out)))


def _known_view(workspace: Workspace, name: str) -> _View:
    """The view of a workspace that has the name; UserError if it has not."""
    view = _View(workspace)
    if not view.knows(name):
        raise unknown_name("task or mixture", name, view.names())
    return view


def _tasks_among(view: _View, name: str, tasks: Collection[str]) -> list[str]:
    """Those of `tasks` that are below `name`, in the mixture's order."""
    if not tasks:
        return []
    below = (_leaves[n][0].name if n in _leaves else n for n in view.leaf_names(name))
    return [task for task in dict.fromkeys(below) if task in tasks]


def shares(
    workspace: Workspace,
    name: str,
    split: str = "train",
    declared: bool = False,
    left_out: Collection[str] = (),
) -> dict[str, float]:
    """Leaf -> share of a mixture, task or mode, as `resolve` has it, without the rest.

    Args:
        declared: go by the sizes that the tasks declare, whatever the stores hold: what the rates
            ask for as they are written.
        left_out: as in `resolve`.
    """
    return _Shares(_known_view(workspace, name), split, declared, left_out).of(name)


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


def children(
    workspace: Workspace, name: str, split: str = "train", left_out: Collection[str] = ()
) -> tuple[Child, ...]:
    """The children of one of our mixtures or tasks, in the order written; () for anything else.

    Those without a task that is not left out are no children.
    """
    if name not in _mixtures:
        return ()
    cap = _caps.get(name)
    view = _View(workspace)
    parts = _Shares(view, split, left_out=left_out).parts(name)
    rates = {n: rate for n, rate in view.rates(name).items() if n in parts}
    return tuple(Child(n, rate, parts[n], cap) for n, rate in rates.items())


def task_vocabulary(workspace: Workspace, name: str) -> str | None:
    """The vocabulary that all plain seqio tasks of a mixture have; None if there is none to tell.

    Our own tasks take any. A vocabulary class that has no counterpart here tells nothing: its ids
    are taken as they are.

    Raises:
        UserError: unknown name, or two vocabularies.
    """
    view = _known_view(workspace, name)
    found: dict[str, str] = {}  # vocabulary -> the task and feature that has it
    for leaf in view.leaf_names(name):
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


def with_vocabulary(workspace: Workspace, config: DataConfig) -> DataConfig:
    """`config` with the vocabulary of its mixture's tasks for "auto"; "gym" where they have none.

    Raises:
        UserError: see `task_vocabulary`.
    """
    if config.vocabulary != AUTO_VOCABULARY:
        return config
    return dataclasses.replace(
        config, vocabulary=task_vocabulary(workspace, config.mixture) or "gym"
    )


def unprepared(workspace: Workspace, resolved: Resolved, config: DataConfig) -> list[str]:
    """Names of the leaves that have no store of `config.split` yet."""
    split = config.split
    return [
        leaf.name
        for leaf in resolved.leaves
        if leaf_manifest(workspace, leaf, split, config)[0] is None
    ]


def _make_leaf(view: _View, name: str, share: float, split: str) -> Leaf:
    if name in _leaves:
        mode = _leaves[name][1]
        spec = view.spec(_leaves[name][0].name)
        known = split in spec.splits
        records = known_num_records(view.workspace, spec, split) if known else 0
        own = (spec.name, mode, spec.family, spec.dataset, spec.category, spec.version)
        return Leaf(name, share, *own, records, tuple(spec.splits), spec)
    task = seqio.TaskRegistry.get(name)
    # A plain task has no family of its own; the first part of its name is the best guess.
    family = name.replace(":", ".").partition(".")[0]
    version = getattr(task.source, "version", "") or "0"
    own = (name, "", family, name, family, version)
    source_fn = functools.partial(PlainTaskSource, name)
    records = known_size(view.workspace, task, split)
    return Leaf(name, share, *own, records, tuple(task.splits), None, source_fn)
