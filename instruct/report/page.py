"""`report.html`: a document as one self-contained page, and the entry point that writes it.

No scripts, no links to other files, nothing fetched. Every text from a run is escaped.
"""

import html
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from instruct.errors import naming_file
from instruct.report import (
    blocks,
    comparison_figures,
    figures,
    markdown,
    read,
    sections,
    side_by_side,
)
from instruct.report.scroll_box import scroll_box
from instruct.report.stylesheet import STYLE
from instruct.report.wording import signed

MOST_NUMBERS = 3
# Nothing may be fetched, from anywhere, even if a prompt's markup slipped through.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    model_dirs: Sequence[str | os.PathLike[str]], out_dir: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes `report.html` and `report.md` about one or more runs into `out_dir`.

    Returns the path of `report.html`. Raises UserError if a run's folder does not exist.
    """
    runs = read.read_runs([pathlib.Path(folder) for folder in model_dirs])
    return write_document(sections.document(runs), out_dir)


def write_document(
    document: blocks.Document, out_dir: str | os.PathLike[str], name: str = "report"
) -> pathlib.Path:
    """Writes `<name>.html` and `<name>.md` into `out_dir`; returns the path of the page."""
    out = pathlib.Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for ending, text in (("md", markdown.render(document)), ("html", render(document))):
        temporary = out / f".{name}.{ending}.tmp"
        path = out / f"{name}.{ending}"
        with naming_file(path):
            temporary.write_text(text, encoding="utf-8", errors="replace")
            temporary.replace(path)
    return out / f"{name}.html"


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def _name(text: str) -> str:
    """A name of parts, which may break after them: `gym.chain_sum zs_noopt`."""
    return _e(text).replace("_", "_<wbr>").replace(".", ".<wbr>")


def render(document: blocks.Document) -> str:
    """The page as text."""
    links = "".join(f'<a href="#{s.name}">{_e(s.title)}</a>' for s in document.sections)
    body = "".join(
        f'<section id="{s.name}"><h2>{_e(s.title)}</h2>'
        f"{''.join(_block(block) for block in s.blocks)}</section>\n"
        for s in document.sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{_e(document.title)} · instruct report</title>"
        f"<style>{STYLE}</style></head>\n<body>"
        f'<header><p class="kicker">Instruction tuning report</p><h1>{_e(document.title)}</h1>'
        f'<p class="quiet">{_e(document.subtitle)}</p><nav>{links}</nav></header>\n'
        f"<main>{body}</main>\n"
        "<footer>Written by <code>run.py report</code> from the files of the run.</footer>"
        "</body></html>\n"
    )


def _block(block: blocks.Block) -> str:
    return WRITERS[type(block)](block)


def _text(block: blocks.Text) -> str:
    kind = ' class="quiet"' if block.quiet else ""
    return f"<p{kind}>{_e(block.text)}</p>"


def _notices(block: blocks.Notices) -> str:
    shown = "".join(f"<li>{_e(item)}</li>" for item in block.items[:8])
    rest = "".join(f"<li>{_e(item)}</li>" for item in block.items[8:])
    if rest:
        count = len(block.items) - 8
        rest = f"<details><summary>{count:,} more</summary><ul>{rest}</ul></details>"
    title = "<strong>Mind when reading</strong>"
    return f'<div class="notices" role="note">{title}<ul>{shown}</ul>{rest}</div>'


def _facts(block: blocks.Facts) -> str:
    items = "".join(
        f"<div><dt>{_e(f.name)}</dt><dd>{_e(f.value)}</dd>"
        + (f'<dd class="note">{_e(f.note)}</dd>' if f.note else "")
        + "</div>"
        for f in block.items
    )
    return f'<dl class="facts">{items}</dl>'


def _fold(title: str, inner: str) -> str:
    return f"<details><summary>{_e(title)}</summary>{inner}</details>" if title else inner


def _table(block: blocks.Table) -> str:
    texts = block.text_columns

    def cells(values: Sequence[str], tag: str) -> str:
        last = len(values) - 1
        made = []
        for place, value in enumerate(values):
            kind = "t" if place < texts else ""
            kind += " wide" if tag == "td" and place == last and place < texts else ""
            mark = f' class="{kind}"' if kind else ""
            shown = _name(value) if place == 0 and tag == "td" else _e(value)
            made.append(f"<{tag}{mark}>{shown}</{tag}>")
        return "".join(made)

    rows = "".join(
        f"<tr{' class=strong' if row.strong else ''}>{cells(row.cells, 'td')}</tr>"
        for row in block.rows
    )
    head = f"<thead><tr>{cells(block.columns, 'th')}</tr></thead>"
    table = f"<table>{head}<tbody>{rows}</tbody></table>"
    texts_of_rows = (block.columns, *(row.cells for row in block.rows))
    wrapped = {0, len(block.columns) - 1} & set(range(texts))
    return _fold(block.fold, scroll_box(table, texts_of_rows, wrapped))


def _charts(block: blocks.Charts) -> str:
    made = []
    for chart in block.charts:
        legend = "".join(
            f'<li><i class="s{s.color % figures.PALETTE_SIZE}{" dashed" if s.dashed else ""}"></i>'
            f"{_e(s.name)}</li>"
            for s in chart.series
            if not s.tag  # it stands in the chart
        )
        legend = f'<ul class="legend">{legend}</ul>' if len(chart.series) > 1 else ""
        caption = f"<figcaption>{_e(chart.title)}</figcaption>"
        drawn = (
            comparison_figures.scaling_chart(chart)
            if isinstance(chart, blocks.Scaling)
            else figures.line_chart(chart)
        )
        made.append(f"<figure>{caption}{drawn}{legend}</figure>")
    return f'<div class="charts">{"".join(made)}</div>'


def _bars(block: blocks.Bars) -> str:
    low, high = comparison_figures.bar_range([bar for _, bars in block.groups for bar in bars])
    made = []
    for heading, bars in block.groups:
        made.append(f'<span class="l strong">{_e(heading)}</span><span></span><span></span>')
        for bar in bars:
            value = signed(bar.value) if math.isfinite(bar.value) else "–"
            note = f" <small>{_e(bar.note)}</small>" if bar.note else ""
            made.append(
                f'<span class="l">{_name(bar.label)}</span>'
                f"{comparison_figures.bar(bar, low, high)}"
                f'<span class="v">{value}{note}</span>'
            )
    made.append(f"<span></span>{figures.scale(low, high)}<span></span>")
    every = [bar for _, bars in block.groups for bar in bars]
    legend = "<li>line: 95 % interval</li>" if any(bar.low is not None for bar in every) else ""
    if any(bar.printed for bar in every):
        legend += "<li>hollow: as a paper printed it</li>"
    caption = f"<figcaption>{_e(block.title)} <small>{_e(block.unit)}</small></figcaption>"
    return (
        f'<figure>{caption}<div class="dotplot bars">{"".join(made)}</div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _dots(block: blocks.Dots) -> str:
    low, high = figures.axis_range(block.rows)
    made = []
    for row in block.rows:
        strong = " strong" if row.strong else ""
        # More numbers than these would leave the dots no room; they stand in the table.
        few = row.marks if len(row.marks) <= MOST_NUMBERS else ()
        values = " / ".join(f"{m.value:.1f}" for m in few if math.isfinite(m.value))
        made.append(
            f'<span class="l{strong}">{_name(row.label)}</span>{figures.dot_row(row, low, high)}'
            f'<span class="v{strong}">{values or ("" if row.marks else "–")}</span>'
        )
    made.append(f"<span></span>{figures.scale(low, high)}<span></span>")
    legend = "".join(
        f'<li><i class="dot s{color % figures.PALETTE_SIZE}"></i>{_e(name)}</li>'
        for color, name in block.legend
    )
    if any(mark.stderr is not None for row in block.rows for mark in row.marks):
        legend += "<li>bar: one standard error</li>"
    if any(row.baseline is not None for row in block.rows):
        legend += f'<li><i class="tick"></i>{_e(block.tick)}</li>'
    caption = f"<figcaption>{_e(block.title)} <small>{_e(block.unit)}</small></figcaption>"
    return (
        f'<figure>{caption}<div class="dotplot">{"".join(made)}</div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _pair(block: blocks.Pair) -> str:
    return f'<div class="pair">{_dots(block.plot)}<div>{_table(block.table)}</div></div>'


_VERDICTS = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("", "not judged")}


def _samples(block: blocks.Samples) -> str:
    made = []
    for sample in block.items:
        kind, verdict = _VERDICTS[sample.correct]
        scores = f" · {_e(sample.scores)}" if sample.scores else ""
        made.append(
            f'<article class="sample"><div class="from">'
            f'<span class="verdict {kind}">{verdict}</span>'
            f" · {_e(sample.source)}{scores}</div>"
            f"<dl><dt>expected</dt><dd>{_e(sample.target)}</dd>"
            f"<dt>predicted</dt><dd>{_e(sample.prediction) or '<em>(empty)</em>'}</dd></dl>"
            "<details><summary>Prompt</summary>"
            f'<pre class="wrap">{_e(sample.prompt)}</pre></details>'
            "</article>"
        )
    return f'<h3>{_e(block.title)}</h3><div class="samples">{"".join(made)}</div>'


def _code(block: blocks.Code) -> str:
    if block.fold:
        return _fold(block.title, f"<pre>{_e(block.text)}</pre>")
    return f'<h3>{_e(block.title)}</h3><pre class="wrap">{_e(block.text)}</pre>'


WRITERS: dict[type, Callable[[Any], str]] = {
    blocks.Text: _text,
    blocks.Notices: _notices,
    blocks.Facts: _facts,
    blocks.Table: _table,
    blocks.Charts: _charts,
    blocks.Bars: _bars,
    blocks.Dots: _dots,
    blocks.Pair: _pair,
    blocks.Samples: _samples,
    blocks.SideBySide: side_by_side.comparisons_html,
    blocks.Matrix: side_by_side.matrix_html,
    blocks.Code: _code,
}
