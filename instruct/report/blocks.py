"""The content of a page as plain values, which the templates in `pages` draw.

Texts are plain; the templates escape them. Colors are indices of a palette (0, 1, ...): a run keeps
its index on the whole page.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

from instruct.files import read_package_toml

# Fixed paragraphs.
NOTES: Mapping[str, str] = read_package_toml("instruct.report.pages", "notes.toml")


class Text(NamedTuple):
    """A paragraph; `quiet` ones are remarks."""

    text: str
    quiet: bool = False


class Notices(NamedTuple):
    """Warnings, for the top of a page."""

    items: Sequence[str]


class Fact(NamedTuple):
    """One large number with its name and a remark."""

    name: str
    value: str
    note: str = ""


class Facts(NamedTuple):
    items: Sequence[Fact]


class Row(NamedTuple):
    """Cells of a table row; `strong` for totals."""

    cells: tuple[str, ...]
    strong: bool = False


class Table(NamedTuple):
    """A table whose first `text_columns` columns are left-aligned text, the others numbers.

    `fold` is the line to click that opens the table; "" shows the table open.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    text_columns: int = 1
    fold: str = ""


class Series(NamedTuple):
    """One curve: (x, y) in the order of x; a NaN y is a gap.

    In a chart over sizes, `errors` are the points' standard errors (None: unknown) or `intervals`
    the ends of their intervals, and `tag` is a short name at the end of the curve.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    color: int = 0
    dashed: bool = False
    errors: tuple[float | None, ...] = ()
    tag: str = ""
    intervals: tuple[tuple[float, float] | None, ...] = ()


class Chart(NamedTuple):
    """A line chart over training steps or, if `sizes` names them, over sizes.

    Sizes (parameters, tasks) have a logarithmic axis, which may start at 0, unless `linear`; dashed
    series are a paper's figures and have a tag. `ticks` are (x, label) instead of round numbers,
    `levels` (name, y) are horizontal lines, such as baselines. `percent` starts the y axis of a
    chart over steps at 0.
    """

    title: str
    series: tuple[Series, ...]
    percent: bool = False
    sizes: str = ""
    linear: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[str, float], ...] = ()


class Charts(NamedTuple):
    charts: Sequence[Chart]


class Bar(NamedTuple):
    """A bar from 0 to `value`, with its interval if known; `printed`: a paper's figure."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    color: int = 0
    note: str = ""
    printed: bool = False


class Bars(NamedTuple):
    """Groups of bars on a common axis: (heading, bars) each."""

    title: str
    groups: Sequence[tuple[str, tuple[Bar, ...]]]
    unit: str = ""


class Mark(NamedTuple):
    """A value with its standard error (None: unknown) in a dot plot."""

    value: float
    stderr: float | None = None
    color: int = 0


class DotRow(NamedTuple):
    """One line of a dot plot: marks on a common axis, and the baseline's tick."""

    label: str
    marks: tuple[Mark, ...]
    baseline: float | None = None
    strong: bool = False


class Dots(NamedTuple):
    """A dot plot; `legend` names the colors, `tick` the baselines.

    `tabled`: a table with the same numbers follows, so Markdown shows no table of its own.
    """

    title: str
    rows: Sequence[DotRow]
    legend: Sequence[tuple[int, str]]
    unit: str = ""
    tabled: bool = False
    tick: str = "baseline"


class Pair(NamedTuple):
    """A plot and the table of its numbers, side by side where there is room."""

    plot: Dots
    table: Table


class Samples(NamedTuple):
    """Example lines of results files under a heading."""

    title: str
    rows: Sequence[Mapping[str, Any]]


class Code(NamedTuple):
    """A file or command in full, folded if `fold`."""

    title: str
    text: str
    fold: bool = True


class Span(NamedTuple):
    """A part of a text; `mark` is "", "invented", "missed" or "known", `note` a remark."""

    text: str
    mark: str = ""
    note: str = ""


class Output(NamedTuple):
    name: str
    spans: Sequence[Span]
    color: int = 0
    notes: Sequence[str] = ()


class Comparison(NamedTuple):
    """One example with the output of each run."""

    title: str
    scores: str
    source: str
    references: Sequence[Sequence[Span]]
    outputs: Sequence[Output]


class SideBySide(NamedTuple):
    """Comparisons under a heading; those after the first `open_items` are folded."""

    title: str
    items: Sequence[Comparison]
    open_items: int = 6


class Cell(NamedTuple):
    """A matrix cell; `shade` from -1 (a loss) to 1 (a gain), `marked` with a dot."""

    text: str
    shade: float = 0.0
    note: str = ""
    marked: bool = False


class Matrix(NamedTuple):
    """A table of shaded cells: (label, cells) each row. `legend` explains shades and dots."""

    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    legend: str = ""


Figure = Charts | Bars | Dots | Pair | Matrix
Block = Text | Notices | Facts | Table | Figure | Samples | SideBySide | Code


class Section(NamedTuple):
    """A heading and its blocks; `name` is the anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


class Document(NamedTuple):
    title: str
    subtitle: str
    sections: Sequence[Section]


_P = ParamSpec("_P")


def section(
    name: str, title: str, otherwise: str = ""
) -> Callable[[Callable[_P, Iterable[Block]]], Callable[_P, Section]]:
    """Decorator of a function that yields blocks: the new function returns them as a section.

    Args:
        name: anchor. title: heading.
        otherwise: text of the section where the function yields nothing.
    """

    def decorate(blocks_of: Callable[_P, Iterable[Block]]) -> Callable[_P, Section]:
        @functools.wraps(blocks_of)
        def section_of(*args: _P.args, **kwargs: _P.kwargs) -> Section:
            blocks = tuple(blocks_of(*args, **kwargs))
            return Section(name, title, blocks or ((Text(otherwise),) if otherwise else ()))

        return section_of

    return decorate
