"""What a report is made of: plain content, built once, written as HTML (`page`) and as Markdown.

Texts are plain text; each writer escapes them. Colours are numbers of a palette (0, 1, ...):
a run keeps its number through the whole page.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `quiet` ones are remarks."""

    text: str
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class Notices:
    """Things the reader must know before believing the rest."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fact:
    """One large number with its name and a remark."""

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """A strip of facts."""

    items: tuple[Fact, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """Cells of a table line; `strong` for totals."""

    cells: tuple[str, ...]
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. The first `text_columns` columns are text, the others numbers (right-aligned).

    `fold` is the line one clicks to open it; "" shows the table open.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    text_columns: int = 1
    fold: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve: (x, y) in the order of x; a NaN y is a gap.

    In a `Scaling` chart, `errors` are standard errors of the points (None: not known), and `tag` is
    a short name at the end of the curve.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    color: int = 0
    dashed: bool = False
    errors: tuple[float | None, ...] = ()
    tag: str = ""


@dataclasses.dataclass(frozen=True)
class Lines:
    """A line chart over training steps."""

    title: str
    series: tuple[Series, ...]
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Curves over `x`, which grows by factors (parameters, tasks) and may start at 0.

    Dashed series are what a paper printed; theirs is the tag.
    """

    title: str
    x: str
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts side by side."""

    charts: tuple[Lines | Scaling, ...]


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar from 0 to `value`, with its interval if that is known; `printed`: a paper's figure."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    color: int = 0
    note: str = ""
    printed: bool = False


@dataclasses.dataclass(frozen=True)
class Bars:
    """Groups of bars on a common axis: (heading, bars) each."""

    title: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value with its standard error (None: not known) in a dot plot."""

    value: float
    stderr: float | None = None
    color: int = 0


@dataclasses.dataclass(frozen=True)
class DotRow:
    """One line of a dot plot: marks on a common axis, and the baseline's tick."""

    label: str
    marks: tuple[Mark, ...]
    baseline: float | None = None
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Dots:
    """A dot plot; `legend` names the colours, `tick` the baselines.

    `tabled`: a table with the same numbers follows, so that Markdown can do without.
    """

    title: str
    rows: tuple[DotRow, ...]
    legend: tuple[tuple[int, str], ...]
    unit: str = ""
    tabled: bool = False
    tick: str = "baseline"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A plot and the table of its numbers, side by side where there is room."""

    plot: Dots
    table: Table


@dataclasses.dataclass(frozen=True)
class Sample:
    """One evaluated example. `correct` None: no metric says yes or no."""

    source: str
    prompt: str
    target: str
    prediction: str
    correct: bool | None
    scores: str


@dataclasses.dataclass(frozen=True)
class Samples:
    """Examples under a heading of their own."""

    title: str
    items: tuple[Sample, ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """A file or command shown as it is; folded if `fold`."""

    title: str
    text: str
    fold: bool = True


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of a text; `mark` is "", "invented", "missed" or "known", `note` a remark."""

    text: str
    mark: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Output:
    """What one run gave, with remarks below it."""

    name: str
    spans: tuple[Span, ...]
    color: int = 0
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One example: its source, how people answered, and what each run gave."""

    title: str
    scores: str
    source: str
    references: tuple[tuple[Span, ...], ...]
    outputs: tuple[Output, ...]


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """Comparisons under a heading; beyond `open_items`, they are folded."""

    title: str
    items: tuple[Comparison, ...]
    open_items: int = 6


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a matrix; `shade` from -1 (a loss) to 1 (a gain), `marked` with a dot."""

    text: str
    shade: float = 0.0
    note: str = ""
    marked: bool = False


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A table whose cells are shaded by what they say. `legend` says what the dot means."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    legend: str = ""


Block = (
    Text
    | Notices
    | Facts
    | Table
    | Charts
    | Bars
    | Dots
    | Pair
    | Samples
    | SideBySide
    | Matrix
    | Code
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its blocks; `name` is the anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
