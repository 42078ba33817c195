"""Styles of answer options in prompts, and matching of a written answer to an option.

Flan draws one of 16 x 87 x 3 styles per example and makes the option's marker the target if the
style has distinct ones (flan/v2, see docs/data_path.md). Here the styles are products of a few
short lists, so all differ, any number of options works, and the order may be shuffled.
"""

import dataclasses
import functools
import re
import string
import unicodedata
from collections.abc import Sequence

from instruct.prompts.draws import Draws

HEADERS = (
    "",
    "Options:",
    "OPTIONS:",
    "Choices:",
    "Answer choices:",
    "Possible answers:",
    "Pick one:",
    "Choose from:",
    "Choose your answer from:",
    "The options are:",
    "Select one of these:",
    "These are the options:",
    "Available answers:",
    "Your answer must be one of:",
    "Candidates:",
    "Possible replies:",
)
BULLETS = ("", "- ", "* ", "+ ", "• ", "> ", "-- ", "=> ", "~ ")
ALPHABETS = ("upper", "lower", "digit", "roman", "ROMAN")
FRAMES = ("({})", "[{}]", "<{}>", "{})", "{}.", "{}:", "{} -")
LAYOUTS = ("lines", "inline")
ENDINGS = ("", ";", ".")

_ROMAN = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
    (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip


def _letters(number: int) -> str:
    """Spreadsheet columns: 1 -> A, 26 -> Z, 27 -> AA, distinct for any number of options."""
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def _roman(number: int) -> str:
    text = ""
    for value, numeral in _ROMAN:
        count, number = divmod(number, value)
        text += numeral * count
    return text


@functools.cache
def symbol(alphabet: str, index: int) -> str:
    """The label of option `index`, from 0: symbol("upper", 1) is "B", symbol("roman", 3) "iv"."""
    number = index + 1
    if alphabet == "digit":
        return str(number)
    text = _letters(number) if alphabet in ("upper", "lower") else _roman(number)
    return text if alphabet in ("upper", "ROMAN") else text.lower()


@dataclasses.dataclass(frozen=True)
class OptionStyle:
    """One way to write options.

    Attributes:
        header: a line above the options, or "".
        bullet: text before every option without an alphabet.
        alphabet: of the labels, one of ALPHABETS; "" for bullets.
        frame: around a label, one of FRAMES, or "".
        layout: "lines" (one option a line) or "inline" (all on one line).
        ending: text after every option.
    """

    header: str = ""
    bullet: str = ""
    alphabet: str = ""
    frame: str = ""
    layout: str = "lines"
    ending: str = ""

    def markers(self, count: int) -> tuple[str, ...]:
        """The answers that name each of `count` options; () without labels.

        They keep brackets, but not punctuation between a label and its text: "(B)" and "[ii]",
        but "B" for "B." and "B)".
        """
        if not self.alphabet:
            return ()
        frame = self.frame if self.frame in ("({})", "[{}]", "<{}>") else "{}"
        return tuple(frame.replace("{}", symbol(self.alphabet, i)) for i in range(count))

    def render(self, options: Sequence[str]) -> str:
        """The options as a block of text, without a newline at its ends.

        >>> OptionStyle("Choices:", alphabet="upper", frame="({})").render(["yes", "no"])
        'Choices:\\n(A) yes\\n(B) no'
        """
        items = []
        for index, option in enumerate(options):
            lead = self.bullet
            if self.alphabet:
                lead = self.frame.replace("{}", symbol(self.alphabet, index)) + " "
            ending = "" if self.ending and option.endswith((".", "!", "?", ";")) else self.ending
            items.append(f"{lead}{option}{ending}")
        if self.layout == "lines":
            return "\n".join([self.header, *items] if self.header else items)
        # On one line, labels, endings or commas separate the options.
        joint = " " if self.alphabet or self.ending else ", "
        line = joint.join(items)
        return f"{self.header} {line}" if self.header else line


def _all_styles() -> tuple[OptionStyle, ...]:
    """Every style, except plain items on one line, which read like prose."""
    styles = []
    for header in HEADERS:
        for ending in ENDINGS:
            for bullet in BULLETS:
                styles.append(OptionStyle(header, bullet=bullet, ending=ending))
            if header:
                styles.append(OptionStyle(header, layout="inline", ending=ending))
            for alphabet in ALPHABETS:
                for frame in FRAMES:
                    for layout in LAYOUTS:
                        styles.append(OptionStyle(header, "", alphabet, frame, layout, ending))
    return tuple(styles)


STYLES = _all_styles()
_LABELLED = tuple(style for style in STYLES if style.alphabet)
_UNLABELLED = tuple(style for style in STYLES if not style.alphabet)
LABELLED_SHARE = 0.7  # near Flan's 64 of 87 marker styles (flan/v2, measured 73.5 %)


@dataclasses.dataclass(frozen=True)
class ShownOptions:
    """Options as one prompt shows them.

    Attributes:
        text: the block that replaces `{options}`.
        options: the option texts in the order shown.
        markers: of the options, in the same order; () if the style has none.
        answer: replaces `{answer}`: the marker, else the option's text.
        answer_index: position of the right answer in `options`.
    """

    text: str
    options: tuple[str, ...]
    markers: tuple[str, ...]
    answer: str
    answer_index: int


def draw_style(questions: Sequence[Sequence[str]], draws: Draws) -> OptionStyle:
    """A style for the options of all questions of one prompt.

    Avoids labels that could be read as the text of an option (digits before numbers, letters
    before letters), and puts options with commas or newlines on lines of their own.
    """
    texts = {plain(option) for options in questions for option in options}
    count = max(map(len, questions))
    labelled = draws.unit() < LABELLED_SHARE
    tries = (draws.choice(_LABELLED) for _ in range(8 if labelled else 0))
    clear = (s for s in tries if texts.isdisjoint(plain(m) for m in s.markers(count)))
    style = next(clear, None) or draws.choice(_UNLABELLED)
    if style.layout == "inline" and any(
        "\n" in option or "," in option for options in questions for option in options
    ):
        style = dataclasses.replace(style, layout="lines")
    return style


def show_options(
    options: Sequence[str], answer_index: int, style: OptionStyle, order: Sequence[int]
) -> ShownOptions:
    """Writes `options` in `order` (a permutation of their indices) with `style`."""
    shown = tuple(options[i] for i in order)
    position = list(order).index(answer_index)
    markers = style.markers(len(shown))
    answer = markers[position] if markers else shown[position]
    return ShownOptions(style.render(shown), shown, markers, answer, position)


_SENTENCE = " .,;:!?\"'`"
_OUTER = " \t\n\r.,;:!?\"'`*()[]<>{}"
_LEAD = re.compile(
    r"^\s*(?:\(([^()\s]{1,6})\)|\[([^\[\]\s]{1,6})\]|<([^<>\s]{1,6})>|(\w{1,6})[.):])"
)


def plain(text: str) -> str:
    """Text for comparison: case folded, whitespace collapsed, outer punctuation removed.

    A text of ASCII punctuation only ("?", "<=") stays but for quotes and ends of sentences.
    """
    folded = _folded(text)
    stripped = folded.strip(_OUTER)
    if stripped.strip(string.punctuation + " "):
        return stripped
    return folded.strip(_SENTENCE) or folded


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def match_option(
    prediction: str, options: Sequence[str], markers: Sequence[str] = ()
) -> int | None:
    """Index of the option that a written answer names, or None.

    Accepted, in this order: a marker exactly as shown; an option's text (of several that match,
    the one that is written most alike); a marker without its brackets or with others ("b", "B.",
    "(b)"); a marker with its option ("(B) Paris", "B. Paris"); a marker in brackets at the start.
    Case, whitespace and outer punctuation are ignored. A lone letter at the start of a sentence
    ("A dog barks") is not a marker. If nothing is named so, all texts are compared in Unicode's
    compatibility form (NFKC), the only one that T5's vocabularies write.

    Args:
        prediction: the answer, cut out of any longer text.
        options: option texts in the order shown.
        markers: of the options; () if the style had none.
    """
    index = _match(prediction, options, markers)
    if index is None and not all(map(str.isascii, (prediction, *options))):
        forms = [unicodedata.normalize("NFKC", text) for text in (prediction, *options)]
        index = _match(forms[0], forms[1:], markers)
    return index


def _match(prediction: str, options: Sequence[str], markers: Sequence[str]) -> int | None:
    stripped = prediction.strip()
    if stripped in markers:
        return list(markers).index(stripped)
    # Options may differ in case or outer punctuation only: "<" and "<=", "He left." and "He left?".
    for form in (str.strip, _folded):
        written = [form(option) for option in options]
        if form(prediction) in written:
            return written.index(form(prediction))
    wanted = plain(prediction)
    texts = [plain(option) for option in options]
    if wanted in texts:
        return texts.index(wanted)
    labels = [plain(marker) for marker in markers]
    if wanted in labels:
        return labels.index(wanted)
    lead = _LEAD.match(prediction)
    if lead is None or not labels:
        return None
    label = plain(next(group for group in lead.groups() if group is not None))
    if label not in labels:
        return None
    index = labels.index(label)
    rest = plain(prediction[lead.end() :])
    bracketed = lead.group(4) is None
    return index if not rest or bracketed or rest.startswith(texts[index]) else None
