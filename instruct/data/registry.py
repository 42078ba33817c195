"""Tasks and mixtures by name. Definitions are SeqIO's; registration does no I/O.

    add_task(spec)             one seqio.Task per mode: `gym.chain_sum.zs_noopt`, and
                               `gym.chain_sum`, the mixture of its modes
    add_mixture(name, ...)     a seqio.Mixture over tasks, task specs and mixtures, ours or a user's
    add_discovery(find_specs)  tasks that depend on the files of a workspace
    add_on_demand(modules)     modules that are imported when a name of their families is looked up
    resolve(workspace, name)   its leaves with their shares; linear in their number
    children(workspace, name)  its children, one level down

Rates nest: each mixture divides its share among its children. `None` stands for a rate
proportional to the number of records, at most `cap` of each task (T5, Raffel et al. 2020, 3.5.2).

This module does not import SeqIO. Whoever imports SeqIO, before or after, finds every task and
mixture in its registries (`_join_seqio`), and a plain seqio task is known from then on.
"""

import contextlib
import dataclasses
import fnmatch
import functools
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from instruct.data.config import AUTO_VOCABULARY, DataConfig
from instruct.data.feed.records import UNKNOWN_RECORDS, known_num_records
from instruct.data.feed.window import Window
from instruct.data.scored_task import ScoredTask
from instruct.data.spec import Leaf, Resolved, TaskSpec
from instruct.data.stores.store import leaf_manifest, store_key
from instruct.data.task_file import FAMILY
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.import_hook import after_import
from instruct.workspace import Workspace

Rates = Mapping[str, float | None]
RatesFn = Callable[[Workspace], Rates]
FindSpecs = Callable[[Workspace], Iterable[TaskSpec]]

_specs: dict[str, TaskSpec] = {}
_discoveries: dict[FindSpecs, str | None] = {}  # -> its module, as in `_modules`
_discovered: dict[str, TaskSpec] = {}  # in any workspace
_leaves: dict[str, tuple[TaskSpec, str]] = {}
_mixtures: dict[str, Rates | RatesFn] = {}
_caps: dict[str, int] = {}  # of mixtures that set their own
_descriptions: dict[str, str] = {}  # of mixtures that say what they are
_warned: set[str] = set()  # users' mixtures with a logged warning about provisional rates
_on_demand: dict[str, Sequence[str]] = {}  # module that is not imported yet -> its families
_modules: dict[str, str | None] = {}  # name -> module whose body registered it
_joined_seqio: list[bool] = []  # not empty: tasks and mixtures go into SeqIO's registries at once

_VALID_NAME = re.compile(r"[\w.:#]+")  # SeqIO's rule


def add_task(spec: TaskSpec) -> TaskSpec:
    """Registers a task: one seqio task per mode, and the mixture of the modes.

    Raises:
        UserError: the name is taken, or SeqIO does not allow it.
    """
    _add_spec(spec, _specs)
    return spec


def _add_spec(spec: TaskSpec, registered: dict[str, TaskSpec]) -> None:
    """Registers the modes of a task, their mixture, and the task in `registered`, or nothing."""
    leaves = {spec.leaf_name(mode): (spec, mode) for mode in spec.all_modes}
    for name in (spec.name, *leaves):  # all of them before the first is registered
        _check_free(name)
        if not _VALID_NAME.fullmatch(name):
            raise UserError(
                f"the task name {name!r} contains invalid characters; use letters, digits, "
                "'_', '.', ':' and '#'"
            )
    try:
        for name, leaf in leaves.items():
            _modules[name] = _executing_module()
            _leaves[name] = leaf
            if _joined_seqio:
                _add_seqio_task(name)
        _register_mixture(spec.name, {spec.leaf_name(m): rate for m, rate in spec.modes.items()})
        registered[spec.name] = spec
    except BaseException:  # Ctrl-C as well
        for name in (spec.name, *leaves):
            _forget(name)
        raise


def add_discovery(find_specs: FindSpecs) -> None:
    """Registers a function that finds tasks in a workspace, once.

    Args:
        find_specs: workspace -> tasks. It is called when tasks are listed or looked up; a task
            must be the same in every workspace that has it.
    """
    _discoveries[find_specs] = _executing_module()


def add_mixture(
    name: str, rates: Rates | RatesFn, cap: int | None = None, description: str = ""
) -> None:
    """Registers a mixture.

    Args:
        rates: child -> rate, relative to its siblings; None for the number of its records,
            capped per task. A child is a mixture, a task (all its modes), one mode of a task,
            or any seqio task or mixture; it must be registered before. Or a function that returns
            these for a workspace, called when the mixture is resolved.
        cap: most records that a task counts for where a rate is None, instead of its own cap.
        description: what it asks of a model, in a few words; reports show it.

    Raises:
        UserError: the name is taken, a child is unknown, a rate is not above 0, or no child.
    """
    _check_free(name)
    if cap is not None and cap <= 0:
        raise UserError(f"mixture {name!r}: cap is {cap}; use a number above 0 or None")
    if not callable(rates):
        _check_rates(name, rates)
        rates = dict(rates)
    _register_mixture(name, rates)
    if cap is not None:
        _caps[name] = cap
    if description:
        _descriptions[name] = description


def _check_rates(name: str, rates: Rates) -> None:
    if not rates:
        raise UserError(f"mixture {name!r} is empty; it needs at least one task or mixture")
    for child, rate in rates.items():
        if not _is_registered(child):
            raise unknown_name(f"task or mixture (in mixture {name!r})", child, _all_names())
        if rate is not None and not (rate > 0 and rate < float("inf")):
            raise UserError(
                f"mixture {name!r}: the rate of {child!r} is {rate}; it must be above 0. "
                "Leave out what should not be mixed in"
            )


def _register_mixture(name: str, rates: Rates | RatesFn) -> None:
    _modules[name] = _executing_module()
    _mixtures[name] = rates
    if _joined_seqio:
        _add_seqio_mixture(name)


def add_on_demand(modules: Mapping[str, Sequence[str]]) -> None:
    """Declares modules that register tasks and mixtures when they are imported.

    A module is imported when a name of its families is looked up that is not registered yet, when
    all names are asked for, and when this process imports SeqIO, whose registries have them all.
    Modules of one family are imported in this order until one registers the name.

    Args:
        modules: module -> its families: the first parts of all names that it registers ("gym" of
            "gym.chain_sum"); `*` stands for anything.
    """
    _on_demand.update({name: own for name, own in modules.items() if name not in sys.modules})
    if _joined_seqio:
        import_all()


def import_modules_of(name: str) -> None:
    """Imports the modules declared for the family of a name, until one registers the name."""
    family = name.partition(".")[0]
    for module, families in list(_on_demand.items()):
        if _is_known(name):
            return
        if any(fnmatch.fnmatchcase(family, pattern) for pattern in families):
            _import_on_demand(module)


def import_all() -> None:
    """Imports every module that was declared on demand, in the order of their declaration."""
    for module in list(_on_demand):
        _import_on_demand(module)


def _import_on_demand(module: str) -> None:
    with forgetting_failed_imports():
        importlib.import_module(module)
    _on_demand.pop(module, None)


@contextlib.contextmanager
def forgetting_failed_imports() -> Iterator[None]:
    """Context of an import: if it raises, names of modules that were not imported to their end go.

    Python forgets such a module, and executes it again at the next import. Modules that it imported
    whole stay imported, and their tasks and mixtures stay registered.
    """
    earlier = {*_modules, *_discoveries}
    try:
        yield
    except BaseException:  # Ctrl-C as well
        for registered in (_modules, _discoveries):
            for key, module in list(registered.items()):
                if key not in earlier and module is not None and module not in sys.modules:
                    _forget(key)
        raise


def _forget(key: Any) -> None:
    """Removes a name, or a function of `add_discovery`."""
    named = (_specs, _discovered, _leaves, _mixtures, _caps, _descriptions, _modules)
    for registered in (*named, _discoveries):
        registered.pop(key, None)
    if _is_seqio_task(key):
        _seqio().TaskRegistry.remove(key)
    if _is_seqio_mixture(key):
        _seqio().MixtureRegistry.remove(key)


def _executing_module() -> str | None:
    """The module whose body called this, through functions of any module; None without one."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return None if frame is None else frame.f_globals.get("__name__")


# ------------------------------------------------------------------ SeqIO's registries


def _seqio() -> Any:
    """SeqIO where this process has imported it, else None: then nobody registered a plain task."""
    return sys.modules.get("seqio")


def _join_seqio() -> None:
    """Adds all tasks and mixtures to SeqIO's registries, and from now on those that follow."""
    import_all()
    for name in _leaves:
        if not _is_seqio_task(name):  # else an interrupted import of SeqIO added it
            _add_seqio_task(name)
    for name in _mixtures:
        if not _is_seqio_mixture(name):
            _add_seqio_mixture(name)
    _joined_seqio.append(True)


def _add_seqio_task(name: str) -> None:
    from instruct.data.seqio import bridge

    _seqio().TaskRegistry.add_provider(name, bridge.registered_task(*_leaves[name]))


def _add_seqio_mixture(name: str) -> None:
    from instruct.data.seqio import bridge

    # SeqIO gets the leaves flat: its own rates of nested mixtures take quadratic time, and its
    # rates of sub-mixtures must be numbers.
    leaves_fn = functools.partial(_seqio_leaves, name)
    mixture = bridge.WorkspaceMixture(name, leaves_fn, functools.partial(_seqio_shares, name))
    _seqio().MixtureRegistry.add_provider(name, mixture)


def _is_seqio_task(name: str) -> bool:
    return _seqio() is not None and name in _seqio().TaskRegistry.names()


def _is_seqio_mixture(name: str) -> bool:
    return _seqio() is not None and name in _seqio().MixtureRegistry.names()


def _seqio_leaves(mixture: str, workspace: Workspace) -> list[str]:
    return sorted(View(workspace).leaf_names(mixture))


def _seqio_shares(mixture: str, workspace: Workspace) -> dict[str, float]:
    """Leaf -> share, recomputed after a change of the stores, which may change the rates."""
    try:
        stores_mtime_ns = workspace.store_dir.stat().st_mtime_ns
    except OSError:
        stores_mtime_ns = 0
    return _cached_shares(mixture, workspace, stores_mtime_ns)


@functools.lru_cache(maxsize=4096)  # SeqIO asks for the rate of one leaf at a time
def _cached_shares(mixture: str, workspace: Workspace, stores_mtime_ns: int) -> dict[str, float]:
    del stores_mtime_ns
    return shares(workspace, mixture)


# ------------------------------------------------------------------ names


def _all_names(workspace: Workspace | None = None) -> set[str]:
    """Every name, those that the files of a workspace define included."""
    import_all()
    if workspace is not None:
        View(workspace).discovered  # noqa: B018 (registers)
    names = {*_leaves, *_mixtures}
    if _seqio() is not None:
        names |= {*_seqio().TaskRegistry.names(), *_seqio().MixtureRegistry.names()}
    return names


def _is_known(name: str) -> bool:
    """Whether a name is registered by now; imports nothing."""
    ours = name in _leaves or name in _mixtures
    return ours or _is_seqio_task(name) or _is_seqio_mixture(name)


def _is_registered(name: str) -> bool:
    """Whether a name is registered, also by a module on demand of its family."""
    import_modules_of(name)
    return _is_known(name)


def _check_free(name: str) -> None:
    if _is_known(name):
        raise UserError(f"the name {name!r} is registered already; names must be unique")


def _task_of(name: str) -> str:
    """The task of one of our leaves; any other name unchanged."""
    return _leaves[name][0].name if name in _leaves else name


class View:
    """The registered tasks and mixtures in one workspace, and the shares of their leaves.

    It reads every store's size once, which `shares` and `children` do anew in each call.

    Args:
        split, declared, left_out: see `shares`.
    """

    def __init__(
        self,
        workspace: Workspace,
        split: str = "train",
        declared: bool = False,
        left_out: Collection[str] = (),
    ) -> None:
        self.workspace = workspace
        self.split = split
        self._declared = declared
        self._left_out = frozenset(left_out)
        self._specs: dict[str, TaskSpec] = {}
        self._shares: dict[str, dict[str, float]] = {}
        self._records: dict[str, int | None] = {}

    @functools.cached_property
    def discovered(self) -> dict[str, TaskSpec]:
        """The tasks that this workspace's files define; registers them."""
        specs = {}
        for find_specs in _discoveries:
            for spec in find_specs(self.workspace):
                if spec.name not in _discovered:
                    _add_spec(spec, _discovered)
                specs[spec.name] = _discovered[spec.name]
        return specs

    def knows(self, name: str) -> bool:
        """Whether this workspace has a task, mode or mixture of that name."""
        if not _is_registered(name):
            self.discovered  # noqa: B018 (registers)
        if name in _leaves:
            return self.has(name)
        return _is_registered(name) and (name not in _discovered or name in self.discovered)

    def has(self, leaf: str) -> bool:
        """Whether the workspace has the task of one of our leaves, and a wording of its mode."""
        spec, mode = _leaves[leaf]
        if spec.name in _discovered and spec.name not in self.discovered:
            return False
        return spec.within_fn is None or mode in self.spec(spec.name).all_modes

    def check(self, name: str) -> None:
        """Raises UserError unless the workspace has the name."""
        if not self.knows(name):
            known = filter(self.knows, _all_names(self.workspace))
            error = unknown_name("task or mixture", name, known)
            if name.startswith(f"{FAMILY}."):
                error = UserError(
                    f"{error} A task of your own file is known with --data=FILE, such as "
                    "--data=MODEL_DIR/task.toml."
                )
            raise error

    def spec(self, task: str) -> TaskSpec:
        """A task as the workspace words and scores it."""
        if task not in self._specs:
            spec = _specs[task] if task in _specs else self.discovered[task]
            self._specs[task] = spec.within(self.workspace)
        return self._specs[task]

    def rates(self, name: str) -> Rates:
        """The children of one of our mixtures or tasks."""
        rates = _mixtures[name]
        if callable(rates):
            rates = rates(self.workspace)
            _check_rates(name, rates)
            self._check_is_no_part_of_itself(name, rates)
        elif name in _specs:
            spec = self.spec(name)
            return {spec.leaf_name(mode): rate for mode, rate in spec.modes.items()}
        return rates

    def _check_is_no_part_of_itself(self, name: str, rates: Rates) -> None:
        """Only rates that a function reads can name a mixture that was registered later."""
        below, seen = list(rates), set()
        while below:
            child = below.pop()
            if child == name:
                named = ", ".join(sorted(repr(one) for one in seen if one in _mixtures))
                raise UserError(
                    f"the mixture {name!r} is a part of itself: its table names {named}, which "
                    f"names {name!r}. Remove one of the rows."
                )
            if child not in seen and child in _mixtures:
                rates_below = _mixtures[child]
                below += rates_below(self.workspace) if callable(rates_below) else rates_below
            seen.add(child)

    def leaf_names(self, name: str) -> list[str]:
        """Seqio tasks below a name, each once, in order of first mention."""
        if name in _mixtures:
            leaves = [leaf for child in self.rates(name) for leaf in self.leaf_names(child)]
        elif _is_seqio_mixture(name):
            leaves = [task.name for task in _seqio().MixtureRegistry.get(name).tasks]
        else:
            leaves = [name]
        return [leaf for leaf in dict.fromkeys(leaves) if leaf not in _leaves or self.has(leaf)]

    def shares(self, name: str) -> dict[str, float]:
        """Leaf -> share of a mixture, task or mode; they add up to 1."""
        if name not in self._shares:
            shares: dict[str, float] = {}
            if name in _mixtures:
                for child, part in self.parts(name).items():
                    for leaf, share in self.shares(child).items():
                        shares[leaf] = shares.get(leaf, 0.0) + share * part
            elif _is_seqio_mixture(name):
                from instruct.data.seqio.mixtures import plain_shares

                mixture = _seqio().MixtureRegistry.get(name)
                shares = plain_shares(self.workspace, mixture, self._excludes, _warned)
            elif not self._excludes(name):
                shares = {name: 1.0}
            self._shares[name] = shares
        return self._shares[name]

    def parts(self, name: str) -> dict[str, float]:
        """Child -> its share of one of our mixtures; they add up to 1.

        Children whose tasks are all left out are missing; the others keep their proportions.
        """
        cap = _caps.get(name)
        some_excluded = bool(self._left_out or self.workspace.flan_checkout)
        rates = {
            child: self._size(child, cap) if rate is None else rate
            for child, rate in self.rates(name).items()
            if not some_excluded or self.shares(child)
        }
        total = sum(rates.values())
        if rates and not total > 0:
            raise UserError(f"mixture {name!r}: all of its tasks are empty")
        return {child: rate / total for child, rate in rates.items()}

    def children(self, name: str) -> "tuple[Child, ...]":
        """See the function `children`."""
        if name not in _mixtures:
            return ()
        rates, cap = self.rates(name), _caps.get(name)
        return tuple(Child(n, rates[n], share, cap) for n, share in self.parts(name).items())

    def _excludes(self, name: str) -> bool:
        """Whether a task or leaf is left out, or the workspace lacks a leaf's mode."""
        return _task_of(name) in self._left_out or (name in _leaves and not self.has(name))

    def _size(self, name: str, cap: int | None) -> float:
        """Records below `name`, at most `cap` (or its own cap) of each task.

        Two modes of a task are two leaves over the same records, so a single mode counts as much
        as the whole task.
        """
        task = _task_of(name)
        if is_task(task):
            spec = self.spec(task)
            records, limit = self.records(spec), cap or spec.cap
            if records is None:
                records = limit or UNKNOWN_RECORDS
            return 0.0 if self._excludes(name) else float(min(records, limit or records))
        if name in _mixtures:
            return sum(self._size(child, cap) for child in self.rates(name))
        from instruct.data.seqio.mixtures import plain_num_records

        return float(plain_num_records(self.workspace, name, self.split, self._excludes))

    def records(self, spec: TaskSpec) -> int | None:
        """Records of a task's split; None if unknown."""
        if spec.name not in self._records:
            self._records[spec.name] = (
                spec.num_examples.get(self.split)
                if self._declared
                else known_num_records(self.workspace, spec, self.split)
            )
        return self._records[spec.name]

    def leaf(self, name: str, share: float) -> Leaf:
        """A leaf with its share of a mixture."""
        if name in _leaves:
            mode = _leaves[name][1]
            spec = self.spec(_task_of(name))
            records = self.records(spec) if self.split in spec.splits else 0
            own = (spec.name, mode, spec.family, spec.dataset, spec.category, spec.version)
            return Leaf(name, share, *own, records, tuple(spec.splits), spec)
        from instruct.data.seqio.mixtures import known_size
        from instruct.data.seqio.reading import PlainTaskSource

        task = _seqio().TaskRegistry.get(name)
        # A plain task has no family; the first part of its name is the best guess.
        family = name.replace(":", ".").partition(".")[0]
        version = getattr(task.source, "version", "") or "0"
        own = (name, "", family, name, family, version)
        source_fn = functools.partial(PlainTaskSource, name)
        records = known_size(self.workspace, task, self.split)
        return Leaf(name, share, *own, records, tuple(task.splits), None, source_fn)


def mixture_names() -> list[str]:
    """Mixtures registered by `add_mixture` or through SeqIO, sorted."""
    import_all()
    plain = () if _seqio() is None else _seqio().MixtureRegistry.names()
    return sorted(name for name in {*_mixtures, *plain} if not is_task(name))


def registered_specs() -> Mapping[str, TaskSpec]:
    """Tasks that were passed to `add_task` so far, in that order, without a workspace's changes."""
    return dict(_specs)


def task_specs(workspace: Workspace, families: Collection[str] = ()) -> Mapping[str, TaskSpec]:
    """Tasks by name in a workspace: those of `add_task` in their order, then discovered ones.

    Args:
        families: only tasks of these, whose modules the caller has imported; () for all families.
    """
    if not families:
        import_all()
    view = View(workspace)
    specs = {name: spec for own in (_specs, view.discovered) for name, spec in own.items()}
    return {
        name: view.spec(name)
        for name, spec in specs.items()
        if not families or spec.family in families
    }


def known_specs(workspace: Workspace, names: Iterable[str]) -> Mapping[str, TaskSpec]:
    """Those of the names that are tasks in a workspace."""
    view = View(workspace)
    return {name: view.spec(name) for name in names if view.knows(name) and is_task(name)}


def find_spec(workspace: Workspace, name: str) -> TaskSpec:
    """The task of that name, or of that mode."""
    view = View(workspace)
    if view.knows(name) and is_task(_task_of(name)):
        return view.spec(_task_of(name))
    task, _, mode = name.rpartition(".")
    if task in _specs or task in view.discovered:
        raise unknown_name(f"prompt mode of task {task!r}", mode, view.spec(task).all_modes)
    raise unknown_name("task", name, task_specs(workspace))


def is_task(name: str) -> bool:
    """Whether a name is one of our tasks, not a mode or mixture."""
    return name in _specs or name in _discovered


def is_mixture(name: str) -> bool:
    """Whether a name is one of our mixtures of tasks."""
    return name in _mixtures and not is_task(name)


def description_of(name: str) -> str:
    """What `add_mixture` got as the description of a mixture; "" without one."""
    return _descriptions.get(name, "")


def rates_of(name: str) -> Rates | RatesFn | None:
    """What `add_mixture` got as the rates of a mixture; None without a mixture of that name."""
    return _mixtures[name] if is_mixture(name) else None


def check_name(workspace: Workspace, name: str) -> None:
    """Raises UserError unless a task, a mode or a mixture has the name; reads no store."""
    View(workspace).check(name)


def is_plain_task(name: str) -> bool:
    """Whether a name is a user's seqio task."""
    return name not in _leaves and _is_seqio_task(name)


def plain_task(name: str) -> Any:
    """A user's `seqio.Task`. Raises UserError without one of that name."""
    if not is_plain_task(name):
        raise unknown_name("seqio task", name, filter(is_plain_task, _all_names()))
    return _seqio().TaskRegistry.get(name)


def scored_task(workspace: Workspace, name: str) -> ScoredTask | Any:
    """The `postprocess_fn` and `metric_fns` of a leaf, as the workspace has them.

    Of a plain task the `seqio.Task` itself.
    """
    if _is_registered(name) and name in _leaves:
        return ScoredTask(View(workspace).spec(_task_of(name)), _leaves[name][1])
    return plain_task(name)


def resolve(
    workspace: Workspace, name: str, split: str = "train", left_out: Collection[str] = ()
) -> Resolved:
    """Resolves a mixture, a task or one of its modes into leaves.

    Args:
        workspace: holds the stores, whose sizes fix rates, and the tasks' wordings.
        name: any name registered here or with SeqIO.
        split: the split whose record numbers fix examples-proportional rates and `records`.
        left_out: tasks to leave out. The other tasks of a sub-mixture divide its share; a
            sub-mixture without any task gives its share to its siblings.

    Raises:
        UserError: unknown name, a mixture of empty tasks, or all tasks are left out.
    """
    view = View(workspace, split, left_out=left_out)
    view.check(name)
    shares = view.shares(name)
    if not shares:
        raise UserError(f"every task of {name!r} is left out: {', '.join(sorted(left_out)[:5])}")
    below = dict.fromkeys(map(_task_of, view.leaf_names(name))) if left_out else ()
    leaves = tuple(view.leaf(leaf, share) for leaf, share in shares.items())
    return Resolved(name, split, leaves, tuple(task for task in below if task in left_out))


def shares(
    workspace: Workspace,
    name: str,
    split: str = "train",
    declared: bool = False,
    left_out: Collection[str] = (),
) -> dict[str, float]:
    """Leaf -> share of a mixture, task or mode, as in `resolve`.

    Args:
        declared: use the sizes that the tasks declare instead of those of the stores: the shares
            that the rates ask for as written.
        left_out: see `resolve`.
    """
    view = View(workspace, split, declared, left_out)
    view.check(name)
    return view.shares(name)


@dataclasses.dataclass(frozen=True)
class Child:
    """A direct child of a mixture.

    Attributes:
        name: a mixture, a task or a leaf.
        rate: as written; None for the number of its records.
        share: of the mixture's examples.
        cap: most records that the mixture lets a task count for where the rate is None; None for
            the tasks' own caps.
    """

    name: str
    rate: float | None
    share: float
    cap: int | None


def children(
    workspace: Workspace, name: str, split: str = "train", left_out: Collection[str] = ()
) -> tuple[Child, ...]:
    """The children of one of our mixtures or tasks, in the order written; () for anything else.

    Children whose tasks are all left out are missing.
    """
    return View(workspace, split, left_out=left_out).children(name)


def task_vocabulary(workspace: Workspace, name: str) -> str | None:
    """The vocabulary of all plain seqio tasks of a mixture; None without one that we know.

    Our own tasks accept any vocabulary. A user's own vocabulary class is ignored: its ids are
    used as they are.

    Raises:
        UserError: unknown name, or two vocabularies.
    """
    view = View(workspace)
    view.check(name)
    owners: dict[str, str] = {}  # vocabulary -> the first task and feature that has it
    for leaf in filter(is_plain_task, view.leaf_names(name)):
        from instruct.data.seqio import bridge

        for feature, settings in _seqio().TaskRegistry.get(leaf).output_features.items():
            spec = bridge.from_seqio(getattr(settings, "vocabulary", None))
            if feature in bridge.FEATURES and spec is not None:
                owners.setdefault(spec, f"{feature!r} of {leaf!r}")
    if len(owners) > 1 and len({load_vocabulary(spec).fingerprint for spec in owners}) > 1:
        listed = "; ".join(f"{owner}: {spec}" for spec, owner in owners.items())
        raise UserError(
            f"the tasks of {name!r} have different vocabularies ({listed}), but a model has one. "
            "Give them the same features, or train on those of one vocabulary"
        )
    return next(iter(owners), None)


def with_vocabulary(workspace: Workspace, config: DataConfig) -> DataConfig:
    """Replaces the vocabulary "auto" by that of the mixture's tasks, or "gym" if they have none.

    Raises:
        UserError: see `task_vocabulary`.
    """
    if config.vocabulary != AUTO_VOCABULARY:
        return config
    vocabulary = task_vocabulary(workspace, config.mixture) or "gym"
    return dataclasses.replace(config, vocabulary=vocabulary)


def seqio_windows_fn(config: DataConfig) -> Callable[..., Iterator[Window]] | None:
    """Rows of SeqIO's own pipeline for `TrainFeed`; None, without an import, unless asked for."""
    if config.feed != "seqio":
        return None
    from instruct.data.seqio.reading import seqio_windows

    return seqio_windows


def unprepared(workspace: Workspace, resolved: Resolved, config: DataConfig) -> list[str]:
    """Names of the leaves that have no store of `config.split` yet."""
    has_store: dict[str, bool] = {}  # the modes of a task share one
    names = []
    for leaf in resolved.leaves:
        key = store_key(leaf, config)
        if key not in has_store:
            manifest, _ = leaf_manifest(workspace, leaf, config.split, config)
            has_store[key] = manifest is not None
        if not has_store[key]:
            names.append(leaf.name)
    return names


def _import_bridge() -> None:
    from instruct.data.seqio import bridge  # noqa: F401 (its import calls `_join_seqio`)


after_import("instruct.data.seqio.bridge", _join_seqio)
after_import("seqio", _import_bridge)
