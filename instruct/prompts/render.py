"""From a record to (inputs, targets): text and tokens, fixed by one integer.

`render` is pure. Its draws (template, option style and order, few-shot layout) depend on `key`
alone, each kind with its own stream, so a prompt can be reproduced from the example's number and
does not change when another kind of draw gets more choices.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.errors import unknown_name
from instruct.prompts.denoising import DenoiserSet, choose_text
from instruct.prompts.exemplars import usable_exemplars
from instruct.prompts.frame import Frame
from instruct.prompts.modes import INVERTED_MODES, MODES, OBJECTIVES, TK_MODES
from instruct.prompts.record import Record
from instruct.prompts.template import TemplateSet
from instruct.prompts.writer import CannotRender, Prompt, Writer

MIN_SOURCE_TOKENS = 16  # a source field is not cut below this
_SPARE_TOKENS = 2  # concatenated texts may have a token more than the sum of their parts


@dataclasses.dataclass(slots=True)
class Rendered:
    """One rendered and tokenized example. Not frozen, which would double the time to make one.

    Attributes:
        input_ids, target_ids: tokens with their frame, such as EOS, within the requested lengths;
            some are array("i") where the frame has `arrays`.
        template_id: template, with "+" and the layout's id for a few-shot prompt.
        truncated: whether the source field was cut.
        inverted: whether the template asks for another field than the answer.
        options: answer options in the order shown, or in the record's order where only the question
            names them; () if the prompt shows none.
        markers: of the options; () if the style has none.
        answer_index: position of the correct answer in `options`, -1 without options.
        exemplar_ids: of the exemplars shown, in order.
        target_weights: loss weight (0 or 1) of each of `target_ids`; None for 1.
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
    target_weights: list[int] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A record that cannot become an example.

    Attributes:
        reason: a short phrase; reports count equal ones.
        row_fields: names of the fields of the source's row; () if unknown.
        lacking: names of required fields that are empty, if the reader reports them.
    """

    reason: str
    row_fields: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    lacking: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def of_row(self, row: Any) -> "Dropped":
        """The same with the names of a row's fields, if the row is a mapping."""
        if self.row_fields or not isinstance(row, Mapping):
            return self
        return dataclasses.replace(self, row_fields=tuple(map(str, row)))


def render(
    record: Record,
    template_set: TemplateSet,
    mode: str,
    key: int,
    exemplars: Sequence[Record] = (),
    *,
    frame: Frame,
    max_inputs_tokens: int,
    max_targets_tokens: int,
) -> Rendered | Dropped:
    """Renders one record.

    A prompt that is too long first loses exemplars (without any, it is zero-shot), then the end of
    its source field; the instruction and the answer are never cut.

    Args:
        record: the query.
        template_set: the wordings.
        mode: one of MODES. The `*_opt` modes need a record with options, the `*cot` modes a
            rationale.
        key: fixes every draw.
        exemplars: records to show with their answers, in this order, except the query and, unless
            the prompt is published, records with equal fields. For FEW_SHOT_MODES, `direct` and
            `cot`.
        frame: tokenizes; called once for each side unless the prompt is too long.
        max_inputs_tokens, max_targets_tokens: lengths with the frame.
    """
    if mode not in MODES:
        raise unknown_name("prompt mode", mode, MODES)
    if mode in OBJECTIVES:
        lengths = max_inputs_tokens, max_targets_tokens
        return _denoise(record, template_set, mode, key, frame, lengths)
    try:
        shots = usable_exemplars(record, exemplars, template_set.published) if exemplars else []
        writer = Writer(record, template_set, mode, key, shots)
        shots = writer.shots
        prompt = writer.few_shot(shots) if shots else writer.zero_shot(record.fields)
        prompt, input_ids, truncated = _fit_inputs(writer, prompt, shots, frame, max_inputs_tokens)
    except CannotRender as error:
        return Dropped(str(error))
    target_ids = frame.answer(prompt.targets)
    if not target_ids:
        return Dropped("empty target")
    if len(target_ids) > max_targets_tokens:
        return Dropped("targets too long")
    shown = prompt.shown
    named = template_set.options_in_question and mode not in INVERTED_MODES
    return Rendered(
        prompt.inputs,
        prompt.targets,
        input_ids,
        target_ids,
        prompt.template_id,
        len(prompt.exemplar_ids),
        truncated,
        mode in INVERTED_MODES,
        shown.options if shown else record.options if named else (),
        shown.markers if shown else (),
        shown.answer_index if shown else record.answer_index if named else -1,
        prompt.exemplar_ids,
    )


def _denoise(
    record: Record,
    denoisers: TemplateSet,
    objective: str,
    key: int,
    frame: Frame,
    lengths: tuple[int, int],
) -> Rendered | Dropped:
    """The answer of a record, a text, under a pretraining objective; a longer text loses its ends.

    Args:
        lengths: most tokens of inputs and targets with the frame.
    """
    if not isinstance(denoisers, DenoiserSet):
        return Dropped(f"no denoisers for {objective}")
    tokenizer = frame.tokenizer
    sentinels = denoisers.sentinels(objective, tokenizer)
    denoiser = denoisers.draw_denoiser(objective, key)
    mode_ids = list(tokenizer.encode(denoiser.mode_token)) if denoiser.mode_token else []
    room = lengths[0] - len(frame.continued(mode_ids)), lengths[1] - 1
    ids = list(tokenizer.encode(record.answer))
    chosen = choose_text(ids, denoiser.longest_text(*room, len(sentinels)), key)
    if len(chosen) < denoiser.least_tokens:
        return Dropped("text too short" if len(ids) < denoiser.least_tokens else "inputs too long")
    input_ids, target_ids = denoiser.divide(chosen, key, sentinels, room[1])
    input_ids = [*mode_ids, *input_ids]
    return Rendered(
        tokenizer.decode(input_ids),
        tokenizer.decode(target_ids),
        frame.continued(input_ids),
        [*target_ids, tokenizer.eos_id],
        denoiser.id,
        truncated=len(chosen) < len(ids),
    )


def _fit_inputs(
    writer: Writer, prompt: Prompt, shots: list[Record], frame: Frame, limit: int
) -> tuple[Prompt, list[int], bool]:
    """Shortens the inputs to at most `limit` tokens: (prompt, its tokens, whether cut)."""
    input_ids = frame.prompt(prompt.inputs)
    if len(input_ids) > limit and shots:
        prompt, input_ids = _fewer_exemplars(writer, shots, frame, limit, len(input_ids))
    if len(input_ids) > limit:
        return *_cut_source(writer, prompt, input_ids, frame, limit), True
    return prompt, input_ids, False


def _fewer_exemplars(
    writer: Writer, shots: list[Record], frame: Frame, limit: int, full_length: int
) -> tuple[Prompt, list[int]]:
    """Keeps the exemplars that fit, skipping long ones; the zero-shot prompt if none does."""
    kept: list[Record] = []
    if writer.mode in TK_MODES or writer.template_set.published:
        kept = shots[:-1]  # as the code of Tk-Instruct and MMLU does
    elif len(shots) > 1:
        costs = [len(frame.prompt(writer.few_shot([shot]).inputs)) for shot in shots]
        # n single-shot prompts have every exemplar once and the rest n times, the full prompt has
        # the rest once: the rest is (sum - full) / (n - 1) tokens.
        without = (sum(costs) - full_length) // (len(shots) - 1)
        budget = limit - without - _SPARE_TOKENS
        for shot, cost in zip(shots, costs):
            if cost - without <= budget:
                kept.append(shot)
                budget -= cost - without
    while kept:
        prompt = writer.few_shot(kept)
        input_ids = frame.prompt(prompt.inputs)
        if len(input_ids) <= limit:
            return prompt, input_ids
        kept.pop()
    prompt = writer.zero_shot(writer.record.fields)
    return prompt, frame.prompt(prompt.inputs)


def _cut_source(
    writer: Writer, prompt: Prompt, input_ids: list[int], frame: Frame, limit: int
) -> tuple[Prompt, list[int]]:
    """Shortens the source field at its end until the prompt fits."""
    name = writer.template_set.truncate_field
    source = writer.record.fields.get(name, "").rstrip()  # a prompt never ends in blanks
    if name and name == writer.template_set.dialog_field:
        return _drop_turns(writer, source.split("\n"), frame, limit)
    if not source or source not in prompt.inputs:
        raise CannotRender("inputs too long")
    source_ids = list(frame.tokenizer.encode(source))
    keep = len(source_ids)
    for _ in range(4):
        keep -= len(input_ids) - limit
        if keep < MIN_SOURCE_TOKENS:
            break
        # Decoding may normalize text, so it only gives the number of characters to keep.
        head = frame.tokenizer.decode(source_ids[:keep]).rstrip("\ufffd")
        cut = source[: len(head)]
        if source[len(cut) : len(cut) + 1].isalnum():
            cut = cut[: max(cut.rfind(" "), cut.rfind("\n"), len(cut) - 20) + 1]
        prompt = writer.zero_shot({**writer.record.fields, name: cut.rstrip()})
        input_ids = frame.prompt(prompt.inputs)
        if len(input_ids) <= limit:
            return prompt, input_ids
        keep -= 1
    raise CannotRender("inputs too long")


def _drop_turns(
    writer: Writer, turns: list[str], frame: Frame, limit: int
) -> tuple[Prompt, list[int]]:
    """Drops the oldest turns of a dialog, in pairs so that the speakers keep their roles."""
    name = writer.template_set.truncate_field
    for first in range(2, len(turns), 2):
        prompt = writer.zero_shot({**writer.record.fields, name: "\n".join(turns[first:])})
        input_ids = frame.prompt(prompt.inputs)
        if len(input_ids) <= limit:
            return prompt, input_ids
    raise CannotRender("inputs too long")
