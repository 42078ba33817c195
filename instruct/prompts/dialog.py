"""Styles of dialogs in prompts.

A record has a dialog as text, one turn a line, two alternating speakers (`dialog_text`). Flan draws
one of 13 headers, 50 markers and 3 endings per example, some of them twice in its tables. Here the
styles are products of a few short lists, so all differ. Headers are part of the templates.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from instruct.prompts.draws import Draws

# The first speaker asks; sources order the turns so.
SPEAKERS = (
    ("A", "B"),
    ("X", "Y"),
    ("1", "2"),
    ("P1", "P2"),
    ("Speaker 1", "Speaker 2"),
    ("Speaker A", "Speaker B"),
    ("Person 1", "Person 2"),
    ("Person A", "Person B"),
    ("Participant 1", "Participant 2"),
    ("Participant A", "Participant B"),
    ("Voice 1", "Voice 2"),
    ("User", "Assistant"),
    ("USER", "ASSISTANT"),
    ("User", "System"),
    ("Human", "Assistant"),
    ("Human", "AI"),
)
FRAMES = ("{}:", "[{}]", "({})", "<{}>", "{} -", "{} >", "[{}]:", "**{}:**")
# Not the frames of the speakers "1" and "2", or short dialogs of both kinds would look the same.
NUMBER_FRAMES = ("{}.", "{})", "#{}", "({}.)", "Turn {}:", "Turn {}.", "[turn {}]")
BULLETS = ("- ", "* ", "+ ", "\u2022 ", "> ", "-- ", "~ ", "\u2014 ")
QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("\u00ab", "\u00bb"))
# (text between a marker and its turn, text between turns)
LAYOUTS = ((" ", "\n"), (" ", "\n\n"), ("\n", "\n"), ("\n", "\n\n"), (" ", " "))
JOINTS = ("\n", "\n\n")
KINDS = ("speakers", "numbers", "bullets", "quotes", "plain")


@dataclasses.dataclass(frozen=True)
class DialogStyle:
    """One way to write a dialog.

    Attributes:
        kind: what separates the turns, one of KINDS.
        marks: the two speakers' markers, the frame of a turn's number, the bullet, the two quotes,
            or () for plain lines.
        gap: text between a marker and its turn, for speakers and numbers.
        joint: text between two turns.
        cue: whether the block ends with the marker of the turn that comes next.
    """

    kind: str = "plain"
    marks: tuple[str, ...] = ()
    gap: str = ""
    joint: str = "\n"
    cue: bool = False

    def marker(self, index: int) -> str:
        """The text before turn `index`, counted from 0; "" without markers."""
        if self.kind == "speakers":
            return self.marks[index % 2]
        if self.kind == "numbers":
            return self.marks[0].replace("{}", str(index + 1))
        return ""

    def render(self, turns: Sequence[str]) -> str:
        """The turns as a block of text, without a newline at its ends.

        >>> DialogStyle("speakers", ("A:", "B:"), " ", cue=True).render(["Hi!", "Hello."])
        'A: Hi!\\nB: Hello.\\nA:'
        """
        if self.kind in ("speakers", "numbers"):
            items = [f"{self.marker(i)}{self.gap}{turn}" for i, turn in enumerate(turns)]
            if self.cue:
                items.append(self.marker(len(turns)))
        elif self.kind == "quotes":
            items = [f"{self.marks[0]}{turn}{self.marks[1]}" for turn in turns]
        else:
            bullet = self.marks[0] if self.marks else ""
            items = [f"{bullet}{turn}" for turn in turns]
        return self.joint.join(items)


def _all_styles() -> dict[str, tuple[DialogStyle, ...]]:
    """Every style by its kind."""
    speakers = [
        tuple(frame.replace("{}", name) for name in names) for names in SPEAKERS for frame in FRAMES
    ]
    styles = {
        kind: tuple(
            DialogStyle(kind, marks, gap, joint, cue)
            for marks in choices
            for gap, joint in LAYOUTS
            # A dash points at the rest of its line.
            if gap == " " or not marks[0].endswith(("-", ">")) or marks[0].startswith("<")
            for cue in (False, True)
        )
        for kind, choices in (("speakers", speakers), ("numbers", [(n,) for n in NUMBER_FRAMES]))
    }
    for kind, choices in (
        ("bullets", [(b,) for b in BULLETS]),
        ("quotes", QUOTES),
        ("plain", [()]),
    ):
        styles[kind] = tuple(
            DialogStyle(kind, marks, joint=joint) for marks in choices for joint in JOINTS
        )
    return styles


STYLES = _all_styles()
# Cumulative shares of KINDS. Without names, a reader must count turns to know the speaker.
_KIND_EDGES = (0.7, 0.8, 0.9, 0.95, 1.0)


def draw_dialog_style(draws: Draws) -> DialogStyle:
    """A style: first its kind (7 of 10 name the speakers), then any of that kind."""
    return draws.choice(STYLES[KINDS[draws.weighted(_KIND_EDGES)]])


def dialog_text(turns: Iterable[str]) -> str:
    """The record field for `turns`: one a line, with runs of whitespace collapsed."""
    return "\n".join(" ".join(turn.split()) for turn in turns)


def show_dialog(text: str, draws: Draws, *, allow_cue: bool = True) -> str:
    """Writes a dialog in a drawn style.

    Draws again if a turn contains a marker of the style, which would look like another turn; after
    eight draws the turns stay plain.

    Args:
        text: the turns, one a line (`dialog_text`); blank lines are ignored.
        draws: fixes the style.
        allow_cue: False to end with the last turn, such as for a dialog as the target.
    """
    turns = [line.strip() for line in text.split("\n") if line.strip()]
    for _ in range(8):
        style = draw_dialog_style(draws)
        marks = {style.marker(index) for index in range(len(turns) + 1)} - {""}
        if not any(mark in turn for turn in turns for mark in marks):
            break
    else:
        style = DialogStyle()
    if not allow_cue:
        style = dataclasses.replace(style, cue=False)
    return style.render(turns)
