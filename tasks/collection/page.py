"""Writes docs/collection.md: prose from `page.md.jinja`, tables from the tasks.

    python -m tasks.collection.page          writes the page
    python -m tasks.collection.page --check  fails if the page is out of date

Opens no data and no store, so the page is the same on every machine.
"""

import collections
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from instruct.data.registry import find_spec, shares
from instruct.data.sources.alternates import Alternates
from instruct.data.sources.files import FileSource
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.promptsource import PromptSourceSource
from instruct.data.sources.tfds import TfdsSource
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.prompts.modes import FEW_SHOT_MODES, INVERTED_MODES
from instruct.workspace import Workspace
from tasks import cot_collection as _cot_collection  # noqa: F401 (registers)
from tasks import mixtures, published
from tasks import public as _public  # noqa: F401 (registers gsm8k.main)
from tasks.gym import mixtures as gym_mixtures
from tasks.lists import mixtures as lists_mixtures
from tasks.source_mixtures import tasks_of

PAGE = Path(__file__).parents[2] / "docs" / "collection.md"
TEMPLATE = Path(__file__).with_name("page.md.jinja")
WHOLE = "flan2022"
_WORKSPACE = Workspace()  # any: the page uses declared sizes and this project's wordings
# Family -> title, in the order of the page. The first six are the collection.
TITLES = {
    "flan2021": "Flan 2021",
    "t0": "T0 (P3 prompts)",
    "niv2": "Super-NaturalInstructions v2",
    "cot": "chain of thought",
    "dialog": "dialog",
    "program_synthesis": "program synthesis",
    "published": "the collection as published in finished prompts",
    "cot_collection": "rationales for tasks of the collection (Kim et al. 2023)",
    "gsm8k": "GSM8K as its authors publish it",
    "gym": "procedural reasoning (reasoning_gym)",
    "lists": "operations on short lists, made by program",
}
COLLECTION = tuple(TITLES)[:6]
_FEW_TASKS = 10  # categories with fewer tasks share a row, languages with fewer have none
_FEW_CHILDREN = 8

Rates = Mapping[str, float | None]

MIXTURE_TABLES: Mapping[str, Mapping[str, Rates]] = {
    "Sources (each half zero-, half few-shot)": {name: {} for name in mixtures.SOURCES},
    "For training": {
        **mixtures.TRAINING,
        **mixtures.NIV2_TRAINING,
        **gym_mixtures.TRAINING,
        **lists_mixtures.TRAINING,
    },
    "For evaluation": {
        **mixtures.EVALUATION,
        **gym_mixtures.EVALUATION,
        **lists_mixtures.EVALUATION,
    },
    "As published (few-shot prompts are in the texts)": {published.MIXTURE: published.RATES},
}


def page() -> str:
    """The whole page."""
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    specs = {name: tasks_of(name) for name in COLLECTION}
    everything = [find_spec(_WORKSPACE, leaf) for leaf in shares(_WORKSPACE, WHOLE, declared=True)]
    datasets = {name: _count(members, "dataset") for name, members in specs.items()}
    categories = {name: _count(members, "category") for name, members in specs.items()}
    languages = collections.Counter(lang for spec in specs["niv2"] for lang in spec.languages)
    frequent = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
    return template.render(
        families=_families,
        origins=_origins,
        fetched_by_hand=_fetched_by_hand,
        tasks_of=_tasks_of,
        t0=_t0,
        niv2_categories=_niv2_categories,
        niv2_tracks=_niv2_tracks,
        licenses=_licenses,
        groups=lambda: _table(("group", *(f"`{name}`" for name in COLLECTION)), _shared_groups()),
        mixtures=_mixtures,
        mixture_tables=MIXTURE_TABLES,
        tasks={name: len(members) for name, members in specs.items()},
        whole={
            "datasets": _count(everything, "dataset"),
            "categories": _count(everything, "category"),
            "groups": _count(everything, "group"),
        },
        sums={"datasets": sum(datasets.values()), "categories": sum(categories.values())},
        by_source=", ".join(f"`{n}` {datasets[n]} and {categories[n]}" for n in COLLECTION),
        datasets=datasets,
        shared_groups=len(_shared_groups()),
        few_tasks=_FEW_TASKS,
        languages={
            "total": len(languages),
            "frequent": ", ".join(f"{lang} {n:,}" for lang, n in frequent if n >= _FEW_TASKS),
        },
        v1_cap=f"{mixtures.V1_CAP:,}",
        num_draws=mixtures.NUM_DRAWS,
        random_tasks=", ".join(f"{count:,}" for count in mixtures.RANDOM_TASKS),
        clusters=", ".join(f"`{cluster.name}`" for cluster in mixtures.CLUSTERS),
    )


def _count(specs: Iterable[TaskSpec], field: str) -> int:
    return len({getattr(spec, field) for spec in specs})


def _grouped(
    specs: Iterable[TaskSpec], key: Callable[[TaskSpec], str]
) -> list[tuple[str, list[TaskSpec]]]:
    """(value of the key, its tasks), sorted by the value."""
    groups = itertools.groupby(sorted(specs, key=key), key)
    return [(value, list(members)) for value, members in groups]


def _largest_first(groups: list[tuple[str, list[TaskSpec]]]) -> list[tuple[str, list[TaskSpec]]]:
    return sorted(groups, key=lambda group: -len(group[1]))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers are aligned to the right."""
    texts = [[_cell(value) for value in row] for row in rows]
    rule = []
    for cells in zip(*texts):
        numeric = any(cells) and all(cell[:1].isdigit() or cell in ("", "?") for cell in cells)
        rule.append("---:" if numeric else "---")
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *texts))


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _license(spec: TaskSpec) -> str:
    return spec.license or "unknown"


def _records(specs: Sequence[TaskSpec]) -> int | str:
    """Declared training records; "?" if a task declares none."""
    sizes = [spec.num_examples.get("train") for spec in specs]
    return "?" if None in sizes else sum(size or 0 for size in sizes)


# ---------------------------------------------------------------- families


def _families() -> str:
    rows = []
    for name, title in TITLES.items():
        specs = tasks_of(name)
        languages = {language for spec in specs for language in spec.languages}
        caps = {"none" if spec.cap is None else f"{spec.cap:,}" for spec in specs}
        counts = [len(specs), _count(specs, "dataset"), _count(specs, "category"), len(languages)]
        rows.append([f"`{name}`", title, *counts, _records(specs), " ".join(sorted(caps))])
    columns = ("family", "", "tasks", "data sets", "categories", "languages")
    return _table((*columns, "training records", "cap a task"), rows)


def source_kind(source: Any) -> str:
    """The kind of source that a task's records come from."""
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


def _origins() -> str:
    rows = []
    for name in TITLES:
        kinds = collections.Counter(source_kind(spec.source) for spec in tasks_of(name))
        rows += [[f"`{name}`", kind, number] for kind, number in kinds.most_common()]
    return _table(("family", "records come from", "tasks"), rows)


def _fetched_by_hand() -> str:
    sources = {spec.name: spec.source for spec in tasks_of(*TITLES)}
    rows = [
        [f"`{name}`", source.manual]
        for name, source in sources.items()
        if isinstance(source, TfdsSource) and source.manual
    ]
    return _table(("task", "files"), rows)


def _tasks_of(name: str) -> str:
    rows = [
        [f"`{spec.name.removeprefix(name + '.')}`", spec.category, _records([spec])]
        + [_license(spec), _short_origin(spec.source)]
        for spec in tasks_of(name)
    ]
    return _table(("task", "category", "training records", "licence", "source"), rows)


def _short_origin(source: Any) -> str:
    if isinstance(source, TfdsSource):
        return f"`{source.builder}`"
    if isinstance(source, FileSource):
        return f"`{next(iter(source.parts.values())).path}`"
    return source_kind(source)


def _t0() -> str:
    rows = []
    for name, specs in _grouped(tasks_of("t0"), lambda spec: spec.dataset):
        sizes = sorted({spec.num_examples["train"] for spec in specs})
        span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        licenses = ", ".join(sorted({_license(spec) for spec in specs}))
        kinds = ", ".join(sorted({spec.category for spec in specs}))
        rows.append([f"`{name}`", len(specs), kinds, span, licenses])
    columns = ("data set", "prompts", "categories", "training records a prompt", "licence")
    return _table(columns, rows)


def _niv2_categories() -> str:
    categories = _largest_first(_grouped(tasks_of("niv2"), lambda spec: spec.category))
    many = [group for group in categories if len(group[1]) >= _FEW_TASKS]
    few = [spec for _, members in categories[len(many) :] for spec in members]
    rows = []
    for name, specs in [*many, (f"{len(categories) - len(many)} smaller categories", few)]:
        foreign = sum(tuple(spec.languages) != ("English",) for spec in specs)
        rows.append([name, len(specs), _count(specs, "dataset"), foreign])
    return _table(("category", "tasks", "data sets", "not English only"), rows)


def _niv2_tracks() -> str:
    tracks = mixtures.NIV2_TRAINING | mixtures.EVALUATION  # one leaf a task
    return _table(("track", "tasks"), [[f"`{n}`", len(leaves)] for n, leaves in tracks.items()])


def _licenses() -> str:
    of_license: dict[str, float] = collections.defaultdict(float)
    specs = {}
    for leaf, share in shares(_WORKSPACE, WHOLE, declared=True).items():
        spec = find_spec(_WORKSPACE, leaf)
        of_license[_license(spec)] += share
        specs[spec.name] = spec
    rows = [
        [name, len(members), _count(members, "dataset"), _percent(of_license[name])]
        for name, members in _largest_first(_grouped(specs.values(), _license))
    ]
    return _table(("licence", "tasks", "data sets", f"share of `{WHOLE}`"), rows)


def _shared_groups() -> list[list[str]]:
    """Rows of the contamination groups that span several families."""
    rows = []
    for group, members in _grouped(tasks_of(*COLLECTION), lambda spec: spec.group):
        names = [sorted({s.dataset for s in members if s.family == f}) for f in COLLECTION]
        if sum(map(bool, names)) > 1:
            rows.append([f"`{group}`", *map(", ".join, names)])
    return rows


# ---------------------------------------------------------------- mixtures


def _mixtures(table: Mapping[str, Rates]) -> str:
    columns = ["mixture", "tasks", "data sets", "categories", "leaves", "few-shot", "inverted"]
    if not any(table.values()):
        return _table(columns, [_mixture_row(name) for name in table])
    rows = [[*_mixture_row(name), _made_of(rates)] for name, rates in table.items()]
    return _table([*columns, "made of"], rows)


def _mixture_row(name: str) -> list[Any]:
    leaves = shares(_WORKSPACE, name, declared=True)
    specs = {leaf: find_spec(_WORKSPACE, leaf) for leaf in leaves}
    modes = {leaf: leaf.removeprefix(spec.name + ".") for leaf, spec in specs.items()}

    def share_of(chosen: Sequence[str]) -> str:
        return _percent(sum(share for leaf, share in leaves.items() if modes[leaf] in chosen))

    counts = [_count(specs.values(), field) for field in ("name", "dataset", "category")]
    return [f"`{name}`", *counts, len(leaves), share_of(FEW_SHOT_MODES), share_of(INVERTED_MODES)]


def _made_of(rates: Rates) -> str:
    numbers = [rate for rate in rates.values() if rate is not None]
    if len(rates) > _FEW_CHILDREN or len(numbers) < len(rates):
        how = "by records" if not numbers else "alike" if len(set(numbers)) == 1 else "by rates"
        return f"{len(rates):,} tasks, {how}"
    total = sum(numbers)
    return ", ".join(f"{name} {_percent(rate / total)}" for name, rate in zip(rates, numbers))


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or compares it (`--check`). Returns the exit status."""
    if list(arguments) not in ([], ["--check"]):
        raise UserError(f"unknown arguments {' '.join(arguments)!r}; allowed: --check")
    text = page()
    if not arguments:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE} is out of date: run `python -m tasks.collection.page`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
