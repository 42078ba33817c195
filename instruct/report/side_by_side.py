"""HTML of comparisons and matrices: what `page` writes for `SideBySide` and `Matrix`."""

import html
import math
from collections.abc import Sequence

from instruct.report import blocks
from instruct.report.figures import PALETTE_SIZE
from instruct.report.scroll_box import scroll_box


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def _spans(spans: Sequence[blocks.Span]) -> str:
    made = []
    for span in spans:
        if span.mark:
            note = f' title="{_e(span.note)}"' if span.note else ""
            made.append(f'<mark class="{_e(span.mark)}"{note}>{_e(span.text)}</mark>')
        else:
            made.append(_e(span.text))
    return "".join(made)


def _comparison(item: blocks.Comparison) -> str:
    references = "".join(
        f'<h4 class="ref">reference{f" {place}" if len(item.references) > 1 else ""}</h4>'
        f"<p>{_spans(reference)}</p>"
        for place, reference in enumerate(item.references, start=1)
    )
    outputs = []
    for output in item.outputs:
        notes = "".join(f'<div class="note">{_e(note)}</div>' for note in output.notes)
        shown = _spans(output.spans) or "<em>(empty)</em>"
        outputs.append(
            f'<div><h4 class="s{output.color % PALETTE_SIZE}">{_e(output.name)}</h4>'
            f"<p>{shown}</p>{notes}</div>"
        )
    return (
        f'<article><div class="from"><b>{_e(item.title)}</b> · {_e(item.scores)}</div>'
        f'<div class="two">{"".join(outputs)}</div>{references}'
        f'<details><summary>Input</summary><pre class="wrap">{_e(item.source)}</pre></details>'
        "</article>"
    )


def comparisons_html(block: blocks.SideBySide) -> str:
    """Cards one below the other; inside, the runs stand side by side where there is room."""
    made = [_comparison(item) for item in block.items]
    shown = f'<div class="compared">{"".join(made[: block.open_items])}</div>'
    rest = made[block.open_items :]
    if rest:
        summary = f"{len(rest):,} more"
        shown += (
            f'<details><summary>{summary}</summary><div class="compared">{"".join(rest)}</div>'
            "</details>"
        )
    return f"<h3>{_e(block.title)}</h3>{shown}"


def matrix_html(block: blocks.Matrix) -> str:
    """A table with shaded cells: blue for gains, orange for losses, the sign in the text."""
    head = "".join(f"<th>{_e(name)}</th>" for name in block.columns)
    rows = []
    for name, cells in block.rows:
        label = _e(name).replace("_", "_<wbr>").replace(".", ".<wbr>")
        rows.append(f'<tr><td class="t">{label}</td>{"".join(map(_cell, cells))}</tr>')
    legend = f'<p class="quiet">{_e(block.legend)}</p>' if block.legend else ""
    table = (
        f'<table class="matrix"><thead><tr><th class="t">{_e(block.corner)}</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    texts = [(name, *(cell.text for cell in cells)) for name, cells in block.rows]
    return scroll_box(table, [(block.corner, *block.columns), *texts], {0}) + legend


def _cell(cell: blocks.Cell) -> str:
    step = min(3, math.ceil(3 * abs(cell.shade) - 0.5)) if math.isfinite(cell.shade) else 0
    shade = f' class="{"up" if cell.shade > 0 else "down"}{step}"' if step > 0 else ""
    mark = " •" if cell.marked else ""
    note = f"<small>{_e(cell.note)}</small>" if cell.note else ""
    return f"<td{shade}>{_e(cell.text)}{mark}{note}</td>"
