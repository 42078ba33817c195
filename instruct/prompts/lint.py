"""Lint rules for the wordings of a template set.

They look for defects that the Flan Collection has: prompts without any input, no-option
prompts that speak of options, inversions that copy their input, duplicates.
"""

import re

from instruct.prompts.exemplars import INVERTED_FORMATS
from instruct.prompts.template import LISTS, Template, TemplateSet, parse, placeholders

MIN_TEMPLATES = 10
MIN_INVERTED = 2
_OPTION_WORDS = re.compile(
    r"\b(options?|choices?|choose|candidates?|alternatives?|multiple[- ]choice|pick|select"
    r"|(which|one|any|none) of (these|the following|the above)|listed (above|below))\b",
    re.IGNORECASE,
)


def lint(template_set: TemplateSet) -> list[str]:
    """Lists defects in the wordings of a set, one sentence each."""
    problems = [f"{template_set.name}: {problem}" for problem in _lint_set(template_set)]
    for name in LISTS:
        for template in getattr(template_set, name):
            where = f"{template_set.name}.{name} {template.id!r}"
            problems += [f"{where}: {p}" for p in _lint_template(template, name, template_set)]
    return problems


def doubled_labels(template_set: TemplateSet) -> list[str]:
    """Lists few-shot templates that repeat a label of a layout, one sentence each.

    A layout's "Task: " before a template's "Task: " prints the word twice, and so does an "Answer:"
    that ends a template before a layout's own.
    """
    problems = []
    for name in ("fs_opt", "fs_noopt", "inv"):
        formats = INVERTED_FORMATS if name == "inv" else template_set.formats
        for template in getattr(template_set, name):
            parts = parse(template.inputs)
            first, last = parts[0], parts[-1]
            for layout in formats:
                before, after = _words(layout.input_prefix), _words(layout.target_prefix)
                if before and re.match(rf"\W*{re.escape(before)}\b", first, re.IGNORECASE):
                    doubled = before
                elif after and re.search(rf"\b{re.escape(after)}\]?:?\s*$", last, re.IGNORECASE):
                    doubled = after
                else:
                    continue
                where = f"{template_set.name}.{name} {template.id!r}"
                problems.append(f"{where}: layout {layout.id!r} says {doubled!r} as well")
    return problems


def _words(prefix: str) -> str:
    """A layout's prefix without its signs: "Input" for "[Input]\\n", "" for "=> "."""
    return re.sub(r"^\W+|\W+$", "", prefix)


def _lint_set(template_set: TemplateSet) -> list[str]:
    problems = []
    for name in LISTS:
        templates = getattr(template_set, name)
        one = template_set.finished or template_set.published or name.startswith("fs_")
        least = 1 if one else MIN_TEMPLATES
        least = MIN_INVERTED if name == "inv" else least
        if templates and len(templates) < least:
            problems.append(f"{name} has {len(templates)} templates, {least} are wanted")
    if len(template_set.formats) < MIN_TEMPLATES and not template_set.published:
        problems.append(f"{len(template_set.formats)} few-shot formats, {MIN_TEMPLATES} are wanted")
    for kind, ids in (
        ("template", [template.id for template in template_set.templates]),
        ("format", [layout.id for layout in template_set.formats]),
    ):
        problems += [
            f"{kind} id {i!r} occurs {ids.count(i)} times"
            for i in sorted(set(ids))
            if ids.count(i) > 1
        ]
    seen: dict[tuple[str, ...], str] = {}
    for name in () if template_set.published else LISTS:
        for template in getattr(template_set, name):
            # Two zero-shot prompts that read the same must not ask for different targets either.
            sides = (template.inputs,)
            if name.startswith("fs_") or name == "inv":
                sides = (name, template.inputs, template.targets)
            text = tuple(" ".join(side.casefold().split()) for side in sides)
            if text in seen:
                problems.append(f"templates {seen[text]!r} and {template.id!r} read the same")
            seen[text] = template.id
    instructions = template_set.instructions + template_set.cot_instructions
    if len(set(instructions)) < len(instructions):
        problems.append("an instruction occurs twice")
    # Prompts with and without options share the instructions.
    if template_set.fs_noopt and not template_set.published:
        for text in template_set.instructions:
            if _OPTION_WORDS.search(text):
                problems.append(f"no-option instruction mentions options: {text!r}")
    return problems


def _lint_template(template: Template, name: str, template_set: TemplateSet) -> list[str]:
    problems = []
    sources = {*template_set.input_fields, *template_set.context_fields}
    inputs, targets = set(placeholders(template.inputs)), set(placeholders(template.targets))
    literals = " ".join(parse(template.inputs)[::2] + parse(template.targets)[::2])
    if template_set.published:  # a published benchmark's wording is kept as it is
        return problems
    if name.endswith("_opt"):
        if "options" not in inputs:
            problems.append("an option template must show {options} in its inputs")
    elif "options" in inputs | targets:
        problems.append("only an option template may show {options}")
    elif name != "inv" and _OPTION_WORDS.search(literals):
        problems.append("a no-option template must not mention options")
    if "options" in targets:
        problems.append("{options} stands in the targets")
    if name == "inv":
        return problems + _lint_inversion(template, sources)
    if targets & sources or inputs & {"answer", "rationale"}:
        problems.append(
            "shows the answer in its inputs or a source in its targets; it belongs in inv"
        )
    if not inputs & set(template_set.input_fields):
        problems.append(f"the inputs show none of {', '.join(template_set.input_fields)}")
    if "answer" not in targets:
        problems.append("the targets do not show {answer}")
    if name.startswith("cot_") and "rationale" not in targets:
        problems.append("the targets do not show {rationale}")
    return problems


def _lint_inversion(template: Template, sources: set[str]) -> list[str]:
    """An inversion gives something away that a straight prompt asks for, and asks for the rest."""
    inputs, targets = set(placeholders(template.inputs)), set(placeholders(template.targets))
    problems = []
    if not inputs:
        problems.append("the inputs show nothing of the example")
    if targets <= inputs:
        problems.append("the targets only repeat the inputs")
    if targets & inputs:
        problems.append(f"{', '.join(sorted(targets & inputs))} stands on both sides")
    if not (inputs & {"answer", "rationale"} or targets & sources):
        problems.append("asks for the answer; it is no inversion")
    if not targets & (sources | {"rationale"}):
        problems.append("asks for nothing of the source")
    return problems
