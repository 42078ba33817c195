"""Writes docs/collection.md: what the collection consists of, as tables made from the tasks.

    python -m tasks.collection_doc          writes the page
    python -m tasks.collection_doc --check  fails if the page is not what would be written

Opens no data and no store, so that the page is the same everywhere.
"""

import collections
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.registry import find_spec, registered_specs, shares
from instruct.data.sources.alternates import Alternates
from instruct.data.sources.files import FileSource
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.promptsource import PromptSourceSource
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.prompts.modes import FEW_SHOT_MODES, INVERTED_MODES
from instruct.workspace import Workspace
from tasks import collection_notes as notes
from tasks import mixtures, published
from tasks import public as _public  # noqa: F401 (registers gsm8k.main)
from tasks.gym import mixtures as gym_mixtures

PAGE = Path(__file__).parents[1] / "docs" / "collection.md"
WHOLE = "flan2022"
_WORKSPACE = Workspace()  # of no consequence: declared sizes and this project's wordings count
_FEW_TASKS = 10  # categories and languages with fewer are summed up
_FEW_CHILDREN = 8

Rates = Mapping[str, float | None]


def family(name: str) -> list[TaskSpec]:
    """The tasks of a family, in the order they were registered."""
    return [spec for spec in registered_specs().values() if spec.family == name]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are set to the right."""
    texts = [[_cell(value) for value in row] for row in rows]
    numeric = [
        any(row[n] for row in texts)
        and all(row[n][:1].isdigit() or row[n] in ("", "?") for row in texts)
        for n in range(len(columns))
    ]
    rule = ["---:" if right else "---" for right in numeric]
    lines = [columns, rule, *texts]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _datasets(specs: Iterable[TaskSpec]) -> set[str]:
    return {spec.dataset for spec in specs}


def _categories(specs: Iterable[TaskSpec]) -> set[str]:
    return {spec.category for spec in specs}


def _license(spec: TaskSpec) -> str:
    return spec.license or "unknown"


def _records(specs: Sequence[TaskSpec]) -> int | str:
    """Declared training records; "?" if a task declares none."""
    sizes = [spec.num_examples.get("train") for spec in specs]
    return "?" if None in sizes else sum(size or 0 for size in sizes)


# ---------------------------------------------------------------- sections


def _families() -> str:
    rows = []
    for name, title in notes.TITLES.items():
        specs = family(name)
        languages = {language for spec in specs for language in spec.languages}
        caps = {spec.cap for spec in specs}
        rows.append(
            [
                f"`{name}`",
                title,
                len(specs),
                len(_datasets(specs)),
                len(_categories(specs)),
                len(languages),
                _records(specs),
                " ".join(sorted("none" if cap is None else f"{cap:,}" for cap in caps)),
            ]
        )
    columns = ("family", "", "tasks", "data sets", "categories", "languages")
    return _table((*columns, "training records", "cap a task"), rows)


def _counting() -> str:
    by_family = {name: family(name) for name in notes.COLLECTION}
    everything = [find_spec(_WORKSPACE, leaf) for leaf in shares(_WORKSPACE, WHOLE, declared=True)]
    datasets = {name: len(_datasets(specs)) for name, specs in by_family.items()}
    categories = {name: len(_categories(specs)) for name, specs in by_family.items()}
    sums = ", ".join(f"`{n}` {datasets[n]} and {categories[n]}" for n in by_family)
    num_datasets, num_categories = len(_datasets(everything)), len(_categories(everything))
    return notes.COUNTING.format(
        flan2021=len(by_family["flan2021"]),
        dialog=len(by_family["dialog"]),
        program_synthesis=len(by_family["program_synthesis"]),
        num_datasets=num_datasets,
        num_categories=num_categories,
        sums=sums,
        sum_datasets=sum(datasets.values()),
        sum_categories=sum(categories.values()),
        shared_datasets=sum(datasets.values()) - num_datasets,
        shared_categories=sum(categories.values()) - num_categories,
        t0_datasets=datasets["t0"],
        niv2_datasets=datasets["niv2"],
        groups=len({spec.group for spec in everything}),
    )


def source_kind(source: Any) -> str:
    """Where a task's records come from, as a kind of place."""
    if isinstance(source, Alternates):
        return ", else ".join(source_kind(one) for one in source.sources)
    if isinstance(source, TfdsSource):
        return "TFDS, from files fetched by hand" if source.manual else "TFDS"
    if isinstance(source, PromptSourceSource):
        return f"`{source.templates_path}/` over the hub's raw data set"
    if isinstance(source, HuggingFaceSource):
        return f"hub `{source.path}`"
    if isinstance(source, FileSource):
        folder = next(iter(source.parts.values())).path.split("/")[0]
        return f"`{folder}/`, files of {source.origin}"
    return "generated, nothing to fetch"


def _availability() -> str:
    rows = []
    for name in notes.TITLES:
        kinds = collections.Counter(source_kind(spec.source) for spec in family(name))
        rows += [[f"`{name}`", kind, number] for kind, number in kinds.most_common()]
    text = _table(("family", "records come from", "tasks"), rows)
    by_hand = [
        [f"`{spec.name}`", spec.source.manual]
        for name in notes.TITLES
        for spec in family(name)
        if isinstance(spec.source, TfdsSource) and spec.source.manual
    ]
    return (
        f"{notes.PLACES}\n"
        f"{text}\nTo be fetched by hand before TFDS can prepare them:\n\n"
        + _table(("task", "files"), by_hand)
    )


def _task_rows(name: str) -> str:
    """A table of a family's tasks."""
    rows = [
        [
            f"`{spec.name.removeprefix(name + '.')}`",
            spec.category,
            _records([spec]),
            _license(spec),
            _place(spec),
        ]
        for spec in family(name)
    ]
    return _table(("task", "category", "training records", "licence", "source"), rows)


def _place(spec: TaskSpec) -> str:
    source = spec.source
    if isinstance(source, TfdsSource):
        return f"`{source.builder}`"
    if isinstance(source, FileSource):
        return f"`{next(iter(source.parts.values())).path}`"
    return source_kind(source)


def _t0() -> str:
    by_dataset: dict[str, list[TaskSpec]] = {}
    for spec in family("t0"):
        by_dataset.setdefault(spec.dataset, []).append(spec)
    rows = []
    for name, specs in sorted(by_dataset.items()):
        sizes = sorted({spec.num_examples["train"] for spec in specs})
        span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        licenses = sorted({_license(spec) for spec in specs})
        kinds = ", ".join(sorted(_categories(specs)))
        rows.append([f"`{name}`", len(specs), kinds, span, ", ".join(licenses)])
    columns = ("data set", "prompts", "categories", "training records a prompt", "licence")
    return _table(columns, rows)


def _niv2() -> str:
    specs = family("niv2")
    groups: dict[str, list[TaskSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.category, []).append(spec)
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    many = [item for item in order if len(item[1]) >= _FEW_TASKS]
    few = [spec for _, members in order[len(many) :] for spec in members]
    rows: list[list[Any]] = [_niv2_row(name, members) for name, members in many]
    rows.append(_niv2_row(f"{len(order) - len(many)} smaller categories", few))
    languages = collections.Counter(lang for spec in specs for lang in spec.languages)
    frequent = [(lang, n) for lang, n in languages.most_common() if n >= _FEW_TASKS]
    named = ", ".join(f"{lang} {n:,}" for lang, n in sorted(frequent, key=lambda x: (-x[1], x[0])))
    tracks = _table(
        ("track", "tasks"),
        [
            [f"`{name}`", len({find_spec(_WORKSPACE, leaf).name for leaf in rates})]
            for name, rates in (mixtures.NIV2_TRAINING | mixtures.EVALUATION).items()
        ],
    )
    return (
        _table(("category", "tasks", "data sets", "not English only"), rows)
        + f"\nTasks by language ({len(languages)} in all, those with fewer than {_FEW_TASKS} tasks "
        + f"left out): {named}.\n\nOfficial tracks:\n\n{tracks}"
    )


def _niv2_row(name: str, specs: Sequence[TaskSpec]) -> list[Any]:
    foreign = sum(tuple(spec.languages) != ("English",) for spec in specs)
    return [name, len(specs), len(_datasets(specs)), foreign]


def _licenses() -> str:
    by_license: dict[str, float] = collections.defaultdict(float)
    specs: dict[str, dict[str, TaskSpec]] = collections.defaultdict(dict)
    for leaf, share in shares(_WORKSPACE, WHOLE, declared=True).items():
        spec = find_spec(_WORKSPACE, leaf)
        by_license[_license(spec)] += share
        specs[_license(spec)][spec.name] = spec
    order = sorted(specs, key=lambda name: (-len(specs[name]), name))
    rows = [
        [
            name,
            len(specs[name]),
            len(_datasets(specs[name].values())),
            _percent(by_license[name]),
        ]
        for name in order
    ]
    return _table(("licence", "tasks", "data sets", f"share of `{WHOLE}`"), rows)


def _groups() -> str:
    groups: dict[str, dict[str, set[str]]] = {}
    for name in notes.COLLECTION:
        for spec in family(name):
            groups.setdefault(spec.group, {}).setdefault(name, set()).add(spec.dataset)
    rows = [
        [f"`{group}`", *(", ".join(sorted(found.get(name, ()))) for name in notes.COLLECTION)]
        for group, found in sorted(groups.items())
        if len(found) > 1
    ]
    head = (
        f"{len(groups)} groups in all; these {len(rows)} reach over several families. What is held "
        "out with one task is held out with its group.\n"
        "What prepared tasks really share: `run.py show --overlap --mixture=M --against=E`.\n\n"
    )
    return head + _table(("group", *(f"`{name}`" for name in notes.COLLECTION)), rows)


def _mixture_tables() -> dict[str, dict[str, Rates]]:
    """Title -> mixture -> its rates as written."""
    return {
        "Sources (each half zero-, half few-shot)": {name: {} for name in mixtures.SOURCES},
        "For training": {**mixtures.TRAINING, **mixtures.NIV2_TRAINING, **gym_mixtures.TRAINING},
        "For evaluation": {**mixtures.EVALUATION, **gym_mixtures.EVALUATION},
        "As published (few-shot prompts are in the texts)": {
            published.MIXTURE: {
                f"{published.FAMILY}.{name}": row.rate
                for name, row in published.SUBMIXTURES.items()
            }
        },
    }


def _mixtures() -> str:
    parts = []
    for title, table in _mixture_tables().items():
        with_rates = any(table.values())
        columns = ["mixture", "tasks", "data sets", "categories", "leaves", "few-shot", "inverted"]
        rows = []
        for name, rates in table.items():
            row = _mixture_row(name)
            rows.append([*row, _made_of(rates)] if with_rates else row)
        parts.append(f"### {title}\n\n" + _table([*columns, *["made of"] * with_rates], rows))
    clusters = ", ".join(f"`{cluster.name}`" for cluster in mixtures.CLUSTERS)
    parts.append(
        "### Flan 2021's inter-cluster splits\n\n`flan2021_v1.without_X` trains on all clusters "
        "but X, `flan2021_v1.X` is what is held out; every task in one\nzero-shot mode, at most "
        f"{mixtures.V1_CAP:,} records a task in training. X is one of {clusters}.\n"
    )
    return "\n".join(parts)


def _mixture_row(name: str) -> list[Any]:
    found = shares(_WORKSPACE, name, declared=True)
    specs = {leaf: find_spec(_WORKSPACE, leaf) for leaf in found}
    modes = {leaf: leaf.removeprefix(spec.name + ".") for leaf, spec in specs.items()}

    def share_of(chosen: Sequence[str]) -> str:
        return _percent(sum(share for leaf, share in found.items() if modes[leaf] in chosen))

    tasks = {spec.name: spec for spec in specs.values()}.values()
    counts = [len(tasks), len(_datasets(tasks)), len(_categories(tasks)), len(found)]
    return [f"`{name}`", *counts, share_of(FEW_SHOT_MODES), share_of(INVERTED_MODES)]


def _made_of(rates: Rates) -> str:
    numbers = [rate for rate in rates.values() if rate is not None]
    if len(rates) > _FEW_CHILDREN or len(numbers) < len(rates):
        how = "by records" if not numbers else "alike" if len(set(numbers)) == 1 else "by rates"
        return f"{len(rates):,} tasks, {how}"
    total = sum(numbers)
    return ", ".join(f"{name} {_percent(rate / total)}" for name, rate in zip(rates, numbers))


def _checks() -> str:
    rows = [
        [f"`{name}`", check.tasks, check.how, check.what, f"`{check.test}`"]
        for name, checks in notes.CHECKS.items()
        for check in checks
    ]
    columns = ("family", "tasks", "checked with", "what", "test")
    return _table(columns, rows) + "\n" + notes.UNCHECKED


SECTIONS: Mapping[str, Callable[[], str]] = {
    "Families": _families,
    "What counts as a task, a data set, a category": _counting,
    "Where the records come from": _availability,
    "Flan 2021": lambda: _task_rows("flan2021"),
    "T0": _t0,
    "Super-NaturalInstructions": _niv2,
    "Chain of thought": lambda: _task_rows("cot"),
    "Dialog": lambda: _task_rows("dialog"),
    "Program synthesis": lambda: _task_rows("program_synthesis"),
    "Published prompts": lambda: _task_rows("published"),
    "Licences": _licenses,
    "Contamination groups": _groups,
    "Mixtures": _mixtures,
    "What was checked, and how": _checks,
}


def page() -> str:
    """The whole page."""
    return "\n".join([notes.HEAD, *(f"## {title}\n\n{make()}" for title, make in SECTIONS.items())])


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or compares it (`--check`). Returns the exit status."""
    if list(arguments) not in ([], ["--check"]):
        raise UserError(f"unknown arguments {' '.join(arguments)!r}; allowed: --check")
    text = page()
    if arguments:
        if PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is out of date: run `python -m tasks.collection_doc`", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
