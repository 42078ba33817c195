"""The box in which a wide table scrolls, with a cue that there is more of it."""

from collections.abc import Collection, Iterable, Sequence

CUE = "scroll sideways for all columns →"
# Pixels of an average character and of a cell's padding at the size of the tables.
_CHARACTER, _PADDING = 7.0, 14
# Room on a phone 390 pixels wide, and on the widest page.
_NARROW, _WIDE = 362, 1080
_WRAPPED = 160


def scroll_box(table: str, rows: Iterable[Sequence[str]], wrapped: Collection[int] = ()) -> str:
    """HTML of a table in a box of its own.

    Args:
        table: the HTML.
        rows: its texts, heading included.
        wrapped: columns whose text is broken into lines.

    Where the table is wider than the box, shadows stand at its edges (the style sheet draws them
    from the true widths), and words above it where the texts are too long for a phone or for any
    page. The box takes the focus, so that it scrolls by keyboard too.
    """
    widths = [_CHARACTER * length + _PADDING for length in _longest(rows)]
    widths = [min(w, _WRAPPED) if place in wrapped else w for place, w in enumerate(widths)]
    width = sum(widths)
    kind = "cue wide" if width > _WIDE else "cue" if width > _NARROW else ""
    cue = f'<p class="{kind}" aria-hidden="true">{CUE}</p>' if kind else ""
    return f'{cue}<div class="scroll" tabindex="0">{table}</div>'


def _longest(rows: Iterable[Sequence[str]]) -> list[int]:
    longest: list[int] = []
    for row in rows:
        longest += [0] * (len(row) - len(longest))
        for place, text in enumerate(row):
            longest[place] = max(longest[place], len(text))
    return longest
