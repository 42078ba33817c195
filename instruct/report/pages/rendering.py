"""Renders a document as one self-contained HTML page and as Markdown, by the templates beside it.

`page.*` is the frame, `blocks.*` has a macro for each class of block. Jinja escapes every text: for
HTML by its auto-escape, for Markdown by `_plain`, which runs on every expression of a template.
"""

import itertools
import math
import os
import pathlib
import re
from typing import Any

import jinja2
from markupsafe import Markup

from instruct.files import path_of, replace_file
from instruct.report import charts, wording
from instruct.report.blocks import Document, Matrix, Table

TEMPLATES = pathlib.Path(__file__).parent
# Pixels: of an average character and of a cell's padding at the tables' font size, of a column with
# wrapped text, of a phone's page, and of the widest page.
_CHARACTER, _PADDING, _WRAPPED, _PHONE, _WIDEST = 7.0, 14, 160, 362, 1080
_MARKDOWN_MARKS = str.maketrans({mark: "\\" + mark for mark in "\\`*_<>|#[]"})


def write_document(
    document: Document, out_dir: str | os.PathLike[str], name: str = "report"
) -> pathlib.Path:
    """Writes `<name>.html` and `<name>.md` into `out_dir`; returns the path of the page."""
    out = path_of(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for ending, text in (("md", to_markdown(document)), ("html", to_html(document))):
        replace_file(out / f"{name}.{ending}", text.encode("utf-8", errors="replace"))
    return out / f"{name}.html"


def to_html(document: Document) -> str:
    """The document as a page without scripts, links to other files, or anything to fetch."""
    return _HTML.get_template("page.html").render(document=document)


def to_markdown(document: Document) -> str:
    """The document as Markdown; curves become tables, folded blocks `<details>`."""
    return _MARKDOWN.get_template("page.md").render(document=document)


def _plain(value: Any) -> Any:
    """Text on one line with Markdown's special characters escaped; other values unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(" ".join(value.split()).translate(_MARKDOWN_MARKS))


def _fence(text: str) -> Markup:
    """Text as a code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence}text\n{text}\n{fence}")


def _cue(block: Table | Matrix) -> str:
    """CSS class of the hint that a table scrolls: on a phone, on any page, or "" for no hint.

    Estimates widths from text lengths; the style sheet draws the shadows from true widths.
    """
    if isinstance(block, Table):
        rows, texts = [block.columns, *(row.cells for row in block.rows)], block.text_columns
    else:
        rows = [(label, *(cell.text for cell in cells)) for label, cells in block.rows]
        rows, texts = [(block.corner, *block.columns), *rows], 1
    lengths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    widths = [_CHARACTER * length + _PADDING for length in lengths]
    for column in {0, len(widths) - 1} & set(range(texts)):
        widths[column] = min(widths[column], _WRAPPED)
    return "cue wide" if sum(widths) > _WIDEST else "cue" if sum(widths) > _PHONE else ""


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.globals |= {"charts": charts, "wording": wording, "cue": _cue}
    environment.tests["finite"] = lambda value: value is not None and math.isfinite(value)
    environment.filters["fence"] = _fence
    return environment


_HTML = _environment(finalize=lambda v: f"{v:.1f}" if isinstance(v, float) else v)
_MARKDOWN = _environment(finalize=_plain, keep_trailing_newline=True)
