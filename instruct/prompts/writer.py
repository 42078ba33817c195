"""Draws and writes the text of one record's prompt, whatever its length in tokens."""

import dataclasses
from collections.abc import Sequence

from instruct.prompts.dialog import show_dialog
from instruct.prompts.draws import Draws
from instruct.prompts.exemplars import INVERTED_FORMATS, FewShotFormat
from instruct.prompts.modes import COT_MODES, INVERTED_MODES, TK_MODES
from instruct.prompts.options import OptionStyle, ShownOptions, draw_style, show_options
from instruct.prompts.record import Record
from instruct.prompts.template import Template, TemplateSet, fill, parse, placeholders
from instruct.prompts.tk_instruct import DEFAULT_ENCODING, ENCODINGS

_SHOW_OPTIONS = frozenset(("zs_opt", "fs_opt", "direct", "zs_direct", *COT_MODES))
_TEMPLATE, _STYLE, _ORDER, _FORMAT, _INSTRUCTION, _NOTE, _DIALOG, _ENCODING = range(8)


class CannotRender(Exception):
    """Carries the reason of a `Dropped` out of nested calls."""


@dataclasses.dataclass(slots=True)
class Prompt:
    """A prompt before its lengths are checked."""

    inputs: str
    targets: str
    template_id: str
    shown: ShownOptions | None
    exemplar_ids: tuple[str, ...] = ()


class Writer:
    """Writes one record's prompt: draws template, options, layout and instruction."""

    __slots__ = ("_wording", "key", "kind", "mode", "record", "shots", "style", "template_set")

    def __init__(
        self, record: Record, template_set: TemplateSet, mode: str, key: int, shots: list[Record]
    ) -> None:
        self.record = record
        self.template_set = template_set
        self.mode = mode
        self.key = key
        if mode in ("zs_opt", "fs_opt") and not record.options:
            raise CannotRender("no options")
        self.kind = "opt" if record.options and mode in _SHOW_OPTIONS else "noopt"
        if mode in COT_MODES and not record.rationale and not template_set.published:
            raise CannotRender("no rationale")
        if mode in COT_MODES or (mode in INVERTED_MODES and record.rationale):
            shots = [shot for shot in shots if shot.rationale]
        self.style: OptionStyle | None = None
        if self.kind == "opt":
            shots = [shot for shot in shots if shot.options]
            questions = [record.options, *(shot.options for shot in shots)]
            self.style = template_set.option_style or draw_style(questions, Draws(key, _STYLE))
        self.shots = shots
        self._wording: tuple[Template, Template, FewShotFormat, str] | None = None

    def _draw(self, list_name: str) -> Template:
        if not getattr(self.template_set, list_name):
            raise CannotRender(f"no {list_name} templates")
        return self.template_set.draw(list_name, Draws(self.key, _TEMPLATE))

    def _values(
        self, record: Record, fields, order_key: int
    ) -> tuple[dict[str, str], ShownOptions | None]:
        """Placeholder values of one record, and its options as shown."""
        values = dict(fields)
        dialog = self.template_set.dialog_field
        if dialog in values:
            values[dialog] = show_dialog(
                values[dialog],
                Draws(self.key, _DIALOG),
                allow_cue=self.mode not in INVERTED_MODES,  # a dialog as the target just ends
            )
        values["answer"] = record.answer
        if record.rationale:
            values["rationale"] = record.rationale
        if self.style is None:
            return values, None
        order: Sequence[int] = range(len(record.options))
        if self.template_set.shuffle_options:
            order = Draws(order_key, _ORDER).permutation(len(order))
        shown = show_options(record.options, record.answer_index, self.style, order)
        values["answer"] = shown.answer
        values["options"] = shown.text
        return values, shown

    def zero_shot(self, fields) -> Prompt:
        """The record alone, with `fields` (such as cut ones) in place of its own."""
        if self.mode in TK_MODES:
            return self._tk_instruct((), fields)
        kind = "cot" if self.mode in COT_MODES else "zs"
        template = self._draw("inv" if self.mode in INVERTED_MODES else f"{kind}_{self.kind}")
        values, shown = self._values(self.record, fields, self.key)
        inputs = _tidy(_fill(template.inputs, values))
        return Prompt(inputs, self._targets(template.targets, values), template.id, shown)

    def _targets(self, template: str, values: dict[str, str]) -> str:
        """The target text: the answer alone if only exemplars have a rationale."""
        if self.template_set.published:
            unreasoned = "rationale" in placeholders(template) and "rationale" not in values
            return (values["answer"] if unreasoned else _fill(template, values)).strip()
        return _tidy(_fill(template, values))

    def _tk_instruct(self, shots: Sequence[Record], fields) -> Prompt:
        encoding = DEFAULT_ENCODING
        if self.mode == "tk_instruct_mixed":
            encoding = Draws(self.key, _ENCODING).choice(ENCODINGS)
        inputs, used = encoding.prompt(fields, shots)
        answer = self.record.answer
        return Prompt(inputs, answer, encoding.id, None, tuple(shot.id for shot in used))

    def few_shot(self, shots: Sequence[Record]) -> Prompt:
        """The record after `shots`, all in one layout."""
        if self.mode in TK_MODES:
            return self._tk_instruct(shots, self.record.fields)
        if self._wording is None:  # drawn once, however many exemplars are tried
            self._wording = (*self._few_shot_templates(), *self._layout())
        template, wording, layout, instruction = self._wording
        tidy = str if self.template_set.published else _tidy
        blocks = []
        for number, shot in enumerate(shots, start=1):
            values, _ = self._values(shot, shot.fields, self.key + number)
            targets = tidy(_fill(wording.targets, values)) + self._note(shot)
            blocks.append(layout.block(tidy(_fill(template.inputs, values)), targets))
        values, shown = self._values(self.record, self.record.fields, self.key)
        query = layout.block(tidy(_fill(template.inputs, values)), "")
        if instruction:
            if layout.instruction == "each":
                blocks = [f"{instruction}\n{block}" for block in blocks]
            if layout.instruction in ("each", "query"):
                query = f"{instruction}\n{query}"
            else:
                blocks.insert(0, instruction)
        return Prompt(
            _tidy(layout.example_separator.join([*blocks, query])),
            self._targets(wording.targets, values),
            f"{wording.id}+{layout.id}",
            shown,
            tuple(shot.id for shot in shots),
        )

    def _few_shot_templates(self) -> tuple[Template, Template]:
        """The templates of inputs and of targets."""
        inverted = self.mode in INVERTED_MODES
        reasoned = f"fs_cot_{self.kind}" if self.mode in COT_MODES else ""
        own = bool(reasoned) and bool(getattr(self.template_set, reasoned))
        template = self._draw("inv" if inverted else reasoned if own else f"fs_{self.kind}")
        return template, self._draw(f"cot_{self.kind}") if reasoned and not own else template

    def _note(self, shot: Record) -> str:
        """The text after an exemplar's answer, such as an explanation."""
        notes = self.template_set.exemplar_notes
        if not notes or not shot.rationale or self.mode in (*INVERTED_MODES, *COT_MODES):
            return ""
        return fill(parse(Draws(self.key, _NOTE).choice(notes)), {"rationale": shot.rationale})

    def _layout(self) -> tuple[FewShotFormat, str]:
        """The drawn layout and its instruction, "" for none."""
        template_set = self.template_set
        if self.mode in INVERTED_MODES:  # each example states its question itself
            return Draws(self.key, _FORMAT).choice(INVERTED_FORMATS), ""
        layout = template_set.draw("formats", Draws(self.key, _FORMAT))
        cot = self.mode in COT_MODES and not template_set.published
        wordings = template_set.cot_instructions if cot else template_set.instructions
        if template_set.instruction_required and layout.instruction in ("none", "each"):
            # The instruction is the task, and often long: show it once.
            layout = dataclasses.replace(layout, instruction="top")
        if layout.instruction == "none" or not wordings:
            return layout, ""
        return layout, _fill(Draws(self.key, _INSTRUCTION).choice(wordings), self.record.fields)


def _fill(template: str, values) -> str:
    try:
        return fill(parse(template), values)
    except KeyError as error:
        name = error.args[0]
        raise CannotRender(
            "no rationale" if name == "rationale" else f"no field {name!r}"
        ) from None


def _tidy(text: str) -> str:
    """Strips outer newlines and trailing whitespace; grids and code keep their indentation."""
    return text.lstrip("\n").rstrip()
