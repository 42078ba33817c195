"""What a page is made of: plain content, which the templates of `pages` draw.

Texts are plain; the templates escape them. Colours are numbers of a palette (0, 1, ...): a run
keeps its number through the whole page.
"""

from typing import NamedTuple


class Text(NamedTuple):
    """A paragraph; `quiet` ones are remarks."""

    text: str
    quiet: bool = False


class Notices(NamedTuple):
    """Warnings: what the reader must know before believing the rest."""

    items: tuple[str, ...]


class Fact(NamedTuple):
    """One large number with its name and a remark."""

    name: str
    value: str
    note: str = ""


class Facts(NamedTuple):
    """A strip of facts."""

    items: tuple[Fact, ...]


class Row(NamedTuple):
    """Cells of a table line; `strong` for totals."""

    cells: tuple[str, ...]
    strong: bool = False


class Table(NamedTuple):
    """A table. The first `text_columns` columns are text, the others numbers (right-aligned).

    `fold` is the line one clicks to open it; "" shows the table open.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    text_columns: int = 1
    fold: str = ""


class Series(NamedTuple):
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


class Lines(NamedTuple):
    """A line chart over training steps."""

    title: str
    series: tuple[Series, ...]
    percent: bool = False


class Scaling(NamedTuple):
    """Curves over `x`, which grows by factors (parameters, tasks) and may start at 0.

    Dashed series are what a paper printed; theirs is the tag.
    """

    title: str
    x: str
    series: tuple[Series, ...]


class Charts(NamedTuple):
    """Charts side by side."""

    charts: tuple[Lines | Scaling, ...]


class Bar(NamedTuple):
    """A bar from 0 to `value`, with its interval if that is known; `printed`: a paper's figure."""

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
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    unit: str = ""


class Mark(NamedTuple):
    """A value with its standard error (None: not known) in a dot plot."""

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
    """A dot plot; `legend` names the colours, `tick` the baselines.

    `tabled`: a table with the same numbers follows, so that Markdown can do without.
    """

    title: str
    rows: tuple[DotRow, ...]
    legend: tuple[tuple[int, str], ...]
    unit: str = ""
    tabled: bool = False
    tick: str = "baseline"


class Pair(NamedTuple):
    """A plot and the table of its numbers, side by side where there is room."""

    plot: Dots
    table: Table


class Sample(NamedTuple):
    """One evaluated example. `correct` None: no metric says yes or no."""

    source: str
    prompt: str
    target: str
    prediction: str
    correct: bool | None
    scores: str


class Samples(NamedTuple):
    """Examples under a heading of their own."""

    title: str
    items: tuple[Sample, ...]


class Code(NamedTuple):
    """A file or command shown as it is; folded if `fold`."""

    title: str
    text: str
    fold: bool = True


class Span(NamedTuple):
    """A part of a text; `mark` is "", "invented", "missed" or "known", `note` a remark."""

    text: str
    mark: str = ""
    note: str = ""


class Output(NamedTuple):
    """The output of one run, with remarks below it."""

    name: str
    spans: tuple[Span, ...]
    color: int = 0
    notes: tuple[str, ...] = ()


class Comparison(NamedTuple):
    """One example: its source, its references, and the output of each run."""

    title: str
    scores: str
    source: str
    references: tuple[tuple[Span, ...], ...]
    outputs: tuple[Output, ...]


class SideBySide(NamedTuple):
    """Comparisons under a heading; beyond `open_items`, they are folded."""

    title: str
    items: tuple[Comparison, ...]
    open_items: int = 6


class Cell(NamedTuple):
    """A cell of a matrix; `shade` from -1 (a loss) to 1 (a gain), `marked` with a dot."""

    text: str
    shade: float = 0.0
    note: str = ""
    marked: bool = False


class Matrix(NamedTuple):
    """A table whose cells are shaded by what they say. `legend` says what the dot means."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    legend: str = ""


Figure = Charts | Bars | Dots | Pair | Matrix
Block = Text | Notices | Facts | Table | Figure | Samples | SideBySide | Code


class Section(NamedTuple):
    """A heading and its blocks; `name` is the anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]


class Document(NamedTuple):
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
