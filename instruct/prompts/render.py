"""From a record to (inputs, targets): text and tokens, fixed by one integer.

`render` is pure. What it draws (template, option style and order, few-shot layout) depends on
`key` alone, each kind from a stream of its own, so a prompt can be made again from the example's
number and does not change when another kind of draw gets more choices.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from instruct.errors import unknown_name
from instruct.prompts.draws import Draws
from instruct.prompts.exemplars import FewShotFormat, fitting, usable_exemplars
from instruct.prompts.options import OptionStyle, ShownOptions, draw_style, show_options
from instruct.prompts.record import Record
from instruct.prompts.template import Template, TemplateSet, fill

MODES = ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt", "direct", "cot")
MIN_SOURCE_TOKENS = 16  # a source field cut to less than this says too little to answer from

_TEMPLATE, _STYLE, _ORDER, _FORMAT, _INSTRUCTION = range(5)
_SPARE_TOKENS = 2  # joins of separately encoded texts may cost a token more than their sum


class Tokenizer(Protocol):
    """What rendering needs of a vocabulary (instruct/data/vocab.py)."""

    @property
    def eos_id(self) -> int: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """One example as the model gets it.

    Attributes:
        inputs, targets: the two texts.
        input_ids, target_ids: their tokens, each with EOS at its end, within the lengths asked.
        template_id: template, with "+" and the layout's id for a few-shot prompt.
        num_exemplars: how many exemplars the prompt shows.
        truncated: whether the source field was cut.
        inverted: whether the template asks for something else than the answer.
        options: answer options in the order shown; () where the prompt shows none.
        markers: their markers; () where the style has none.
        answer_index: position of the right answer in `options`, -1 without options.
        exemplar_ids: ids of the exemplars shown, in order.
    """

    inputs: str
    targets: str
    input_ids: list[int]
    target_ids: list[int]
    template_id: str
    num_exemplars: int = 0
    truncated: bool = False
    inverted: bool = False
    options: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    answer_index: int = -1
    exemplar_ids: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A record that cannot become an example, and why (a short phrase that can be counted)."""

    reason: str


class _CannotRender(Exception):
    """Carries the reason of a `Dropped` out of nested calls."""


@dataclasses.dataclass(slots=True)
class _Prompt:
    """A prompt before its lengths are checked."""

    inputs: str
    targets: str
    template_id: str
    inverted: bool
    shown: ShownOptions | None
    exemplar_ids: tuple[str, ...] = ()


def render(
    record: Record,
    template_set: TemplateSet,
    mode: str,
    key: int,
    exemplars: Sequence[Record] = (),
    *,
    tokenizer: Tokenizer,
    max_inputs_tokens: int,
    max_targets_tokens: int,
    allow_inverted: bool = True,
) -> Rendered | Dropped:
    """Renders one record.

    A prompt that is too long first loses exemplars (all of them gone, a zero-shot template takes
    over), then the end of its source field; the instruction and the answer are never cut.

    Args:
        record: what to ask.
        template_set: the wordings.
        mode: one of MODES. The `*_opt` modes need a record with options; `direct` and `cot` show
            options where there are any; `cot` needs a rationale.
        key: fixes every draw.
        exemplars: records to show with their answers, in this order; those that are the query
            itself or ask the same are left out. Used by `fs_*`, and by `direct` and `cot` if given.
        tokenizer: text to tokens; called once for each side unless the prompt is too long.
        max_inputs_tokens, max_targets_tokens: lengths with EOS.
        allow_inverted: False for evaluation: only templates that ask for the answer.

    Returns:
        The example, or why there is none.
    """
    if mode not in MODES:
        raise unknown_name("prompt mode", mode, MODES)
    try:
        shots = usable_exemplars(record, exemplars) if exemplars else []
        writer = _Writer(record, template_set, mode, key, allow_inverted, shots)
        shots = writer.shots
        prompt = writer.few_shot(shots) if shots else writer.zero_shot(record.fields)
        # The shown answer may differ between the few-shot and the zero-shot template, so the
        # targets are encoded after the inputs have settled.
        prompt, input_ids, truncated = _fit_inputs(
            writer, prompt, shots, tokenizer, max_inputs_tokens - 1
        )
    except _CannotRender as error:
        return Dropped(str(error))
    target_ids = list(tokenizer.encode(prompt.targets))
    if not target_ids:
        return Dropped("empty target")
    if len(target_ids) >= max_targets_tokens:
        return Dropped("targets too long")
    input_ids.append(tokenizer.eos_id)
    target_ids.append(tokenizer.eos_id)
    shown = prompt.shown
    return Rendered(
        prompt.inputs,
        prompt.targets,
        input_ids,
        target_ids,
        prompt.template_id,
        len(prompt.exemplar_ids),
        truncated,
        prompt.inverted,
        shown.options if shown else (),
        shown.markers if shown else (),
        shown.answer_index if shown else -1,
        prompt.exemplar_ids,
    )


class _Writer:
    """Text of one record's prompt: all draws, no tokens."""

    __slots__ = (
        "allow_inverted",
        "key",
        "kind",
        "mode",
        "record",
        "shots",
        "style",
        "template_set",
    )

    def __init__(
        self,
        record: Record,
        template_set: TemplateSet,
        mode: str,
        key: int,
        allow_inverted: bool,
        shots: list[Record],
    ) -> None:
        self.record = record
        self.template_set = template_set
        self.mode = mode
        self.key = key
        self.allow_inverted = allow_inverted
        if mode in ("zs_opt", "fs_opt"):
            if not record.options:
                raise _CannotRender("no options")
            self.kind = "opt"
        elif mode in ("zs_noopt", "fs_noopt"):
            self.kind = "noopt"
        else:
            self.kind = "opt" if record.options else "noopt"
        if mode == "cot" and not record.rationale:
            raise _CannotRender("no rationale")
        if mode == "cot":
            shots = [shot for shot in shots if shot.rationale]
        self.style: OptionStyle | None = None
        if self.kind == "opt":
            shots = [shot for shot in shots if shot.options]
            questions = [record.options, *(shot.options for shot in shots)]
            self.style = draw_style(questions, Draws(key, _STYLE))
        self.shots = shots

    def _draw(self, list_name: str, allow_inverted: bool) -> Template:
        templates, weights = self.template_set.drawable(list_name, allow_inverted)
        if not templates:
            raise _CannotRender(f"no {list_name} templates")
        return templates[Draws(self.key, _TEMPLATE).weighted(weights)]

    def _values(
        self, record: Record, fields, order_key: int
    ) -> tuple[dict[str, str], ShownOptions | None]:
        """Placeholder values of one record, and its options as shown."""
        values = dict(fields)
        values["answer"] = record.answer
        if record.rationale:
            values["rationale"] = record.rationale
        if self.style is None:
            return values, None
        count = len(record.options)
        order: Sequence[int] = range(count)
        if self.template_set.shuffle_options:
            order = Draws(order_key, _ORDER).permutation(count)
        shown = show_options(record.options, record.answer_index, self.style, order)
        values["answer"] = shown.answer
        values["options"] = shown.text
        return values, shown

    def zero_shot(self, fields) -> _Prompt:
        """The record alone, with `fields` in place of its own (cut ones, for example)."""
        list_name = f"cot_{self.kind}" if self.mode == "cot" else f"zs_{self.kind}"
        template = self._draw(list_name, self.allow_inverted)
        values, shown = self._values(self.record, fields, self.key)
        return _Prompt(
            _tidy(_fill(template.input_parts, values)),
            _tidy(_fill(template.target_parts, values)),
            template.id,
            template.inverted,
            shown,
        )

    def few_shot(self, shots: Sequence[Record]) -> _Prompt:
        """The record after `shots`, all in one layout."""
        template = self._draw(f"fs_{self.kind}", False)
        target_parts, name = template.target_parts, template.id
        if self.mode == "cot":
            reasoned = self._draw(f"cot_{self.kind}", False)
            target_parts, name = reasoned.target_parts, reasoned.id
        layout, instruction = self._layout()
        blocks = []
        for number, shot in enumerate(shots, start=1):
            values, _ = self._values(shot, shot.fields, self.key + number)
            inputs = _tidy(_fill(template.input_parts, values))
            blocks.append(layout.block(inputs, _tidy(_fill(target_parts, values))))
        values, shown = self._values(self.record, self.record.fields, self.key)
        query = layout.block(_tidy(_fill(template.input_parts, values)), "")
        if instruction:
            if layout.instruction == "each":
                blocks = [f"{instruction}\n{block}" for block in blocks]
            if layout.instruction in ("each", "query"):
                query = f"{instruction}\n{query}"
            else:
                blocks.insert(0, instruction)
        return _Prompt(
            _tidy(layout.example_separator.join([*blocks, query])),
            _tidy(_fill(target_parts, values)),
            f"{name}+{layout.id}",
            False,
            shown,
            tuple(shot.id for shot in shots),
        )

    def _layout(self) -> tuple[FewShotFormat, str]:
        """The drawn layout and its instruction, "" for none."""
        chosen = self.template_set
        layout = chosen.formats[Draws(self.key, _FORMAT).weighted(chosen.format_weights)]
        cot = self.mode == "cot"
        wordings = chosen.cot_instruction_parts if cot else chosen.instruction_parts
        if chosen.instruction_required and layout.instruction in ("none", "each"):
            # It is the task itself, often long: said once, and never left out.
            layout = dataclasses.replace(layout, instruction="top")
        if layout.instruction == "none":
            return layout, ""
        if not wordings:
            return layout, ""
        parts = Draws(self.key, _INSTRUCTION).choice(wordings)
        return layout, _fill(parts, self.record.fields)


def _fill(parts: tuple[str, ...], values) -> str:
    try:
        return fill(parts, values)
    except KeyError as error:
        name = error.args[0]
        raise _CannotRender(
            "no rationale" if name == "rationale" else f"no field {name!r}"
        ) from None


def _tidy(text: str) -> str:
    """No blank ends; indentation of the first line stays (grids and code need it)."""
    return text.lstrip("\n").rstrip()


def _fit_inputs(
    writer: _Writer, prompt: _Prompt, shots: list[Record], tokenizer: Tokenizer, limit: int
) -> tuple[_Prompt, list[int], bool]:
    """Makes the inputs at most `limit` tokens: (prompt, tokens without EOS, whether cut)."""
    input_ids = list(tokenizer.encode(prompt.inputs))
    if len(input_ids) <= limit:
        return prompt, input_ids, False
    if shots:
        prompt, input_ids = _fewer_exemplars(writer, shots, tokenizer, limit, len(input_ids))
        if len(input_ids) <= limit:
            return prompt, input_ids, False
    return _cut_source(writer, prompt, input_ids, tokenizer, limit)


def _fewer_exemplars(
    writer: _Writer, shots: list[Record], tokenizer: Tokenizer, limit: int, full_length: int
) -> tuple[_Prompt, list[int]]:
    """Keeps the exemplars that fit, long ones skipped; the zero-shot prompt if none does.

    The cost of an exemplar is what the rendered prompt grows by when it is added.
    """
    kept: list[Record] = []
    if len(shots) > 1:
        costs = [len(tokenizer.encode(writer.few_shot([shot]).inputs)) for shot in shots]
        # n single-shot prompts hold the rest n times and every exemplar once; the full prompt
        # holds the rest once: so the rest is (sum - full) / (n - 1) tokens.
        without = (sum(costs) - full_length) // (len(shots) - 1)
        budget = limit - without - _SPARE_TOKENS
        kept = [shots[i] for i in fitting([cost - without for cost in costs], budget)]
    while kept:
        prompt = writer.few_shot(kept)
        input_ids = list(tokenizer.encode(prompt.inputs))
        if len(input_ids) <= limit:
            return prompt, input_ids
        kept.pop()
    prompt = writer.zero_shot(writer.record.fields)
    return prompt, list(tokenizer.encode(prompt.inputs))


def _cut_source(
    writer: _Writer, prompt: _Prompt, input_ids: list[int], tokenizer: Tokenizer, limit: int
) -> tuple[_Prompt, list[int], bool]:
    """Shortens the source field at its end until the prompt fits."""
    name = writer.template_set.truncate_field
    source = writer.record.fields.get(name, "")
    if not source or source not in prompt.inputs:
        raise _CannotRender("inputs too long")
    source_ids = list(tokenizer.encode(source))
    keep = len(source_ids)
    for _ in range(4):
        keep -= len(input_ids) - limit
        if keep < MIN_SOURCE_TOKENS:
            break
        # Decoding may normalise text, so it only says how many characters to keep.
        head = tokenizer.decode(source_ids[:keep]).rstrip("\ufffd")
        cut = source[: len(head)]
        if source[len(cut) : len(cut) + 1].isalnum():
            cut = cut[: max(cut.rfind(" "), cut.rfind("\n"), len(cut) - 20) + 1]
        prompt = writer.zero_shot({**writer.record.fields, name: cut.rstrip()})
        input_ids = list(tokenizer.encode(prompt.inputs))
        if len(input_ids) <= limit:
            return prompt, input_ids, True
        keep -= 1
    raise _CannotRender("inputs too long")
