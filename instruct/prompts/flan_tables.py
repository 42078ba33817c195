"""Flan's own wordings, from a user's checkout of google-research/FLAN, as template sets.

The tables of `flan/v2/templates.py` are read as data (instruct/prompts/python_literals.py):

    PATTERNS            key -> [(inputs, targets), ...]             zero-shot
    FEWSHOT_PATTERNS    key -> [FewShotPattern(inputs=..., ...)]    few-shot, each with its layout

As there, prompts without options come from `flan_templates_branched.py` where that has the key,
and from the same patterns otherwise, the place of the options taken out. So do inverted prompts,
which show no options here. What this leaves behind (prompts that still speak of options, show
nothing of the example, or became alike) stays in, so that the original can be reproduced, and is
told as a warning.

Few-shot layouts keep the id of the pattern they came with; here they are drawn independently of it.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instruct.errors import UserError
from instruct.local_paths import local_path
from instruct.prompts.exemplars import STANDARD_FORMATS, FewShotFormat
from instruct.prompts.lint import lint
from instruct.prompts.python_literals import FieldsOf, read_constants
from instruct.prompts.template import SPECIAL, Template, TemplateSet, parse

TABLES_FILE = "flan/v2/templates.py"
NO_OPTIONS_FILE = "flan/v2/flan_templates_branched.py"
ZERO_SHOT, FEW_SHOT = "PATTERNS", "FEWSHOT_PATTERNS"

_DIALOG = "dialog"  # turns, one a line; both there and here a style is drawn for them

# Flan's names that mean the same in every table.
FIELDS: Mapping[str, str] = {
    "options_": "options",
    "options_str": "options",
    "chain_of_thought": "rationale",
    "cot": "rationale",
    "dialog_": _DIALOG,
    "Definition": "definition",
    "output": "answer",
}

_OPTIONS = re.compile(r"\n{0,2}\{options\}")
_FEW_SHOT_OPTIONS = re.compile(r"(\n{1,2}| \| | )?\{options\}| \(\{options\}\)")
_EXAMPLES = "{inputs}"


@dataclasses.dataclass(frozen=True)
class FlanTables:
    """What a checkout's tables became.

    Attributes:
        sets: Flan's key -> template set of that name.
        warnings: what the lint finds in them, one sentence each.
        skipped: reason -> entries that could not be read.
    """

    sets: Mapping[str, TemplateSet]
    warnings: tuple[str, ...]
    skipped: Mapping[str, int]


class _Pattern(NamedTuple):
    """One pattern with our placeholders."""

    inputs: str
    targets: str
    layout: FewShotFormat | None = None
    instruction: str = ""


class _Patterns(NamedTuple):
    """The patterns of one key, each with its number in Flan's list."""

    zero_shot: dict[int, _Pattern]
    no_options: dict[int, _Pattern]
    few_shot: dict[int, _Pattern]

    @property
    def every(self) -> list[_Pattern]:
        tables = (self.zero_shot, self.no_options, self.few_shot)
        return [pattern for table in tables for pattern in table.values()]


def load_flan_tables(
    checkout: str | Path,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    tables_file: str = TABLES_FILE,
    no_options_file: str = NO_OPTIONS_FILE,
) -> FlanTables:
    """Reads the tables of a checkout.

    Args:
        checkout: the repository's folder.
        fields: key -> Flan's field name -> ours, over `FIELDS`; key "" is for all. One of ours is
            `answer`: where a key never names it and nothing is given, it is the field that most
            targets consist of (`subject` for "aeslc").
        tables_file, no_options_file: where the tables are; without a second file, all prompts
            without options come from the first.

    Raises:
        UserError: no such file, not Python, or no table of that form in it.
    """
    root = local_path("FLAN_CHECKOUT", checkout, "~/FLAN")
    constants = read_constants(root / tables_file, root)
    skipped: collections.Counter[str] = collections.Counter()
    for name in (ZERO_SHOT, FEW_SHOT):
        skipped.update(constants.skipped.get(name, {}))
    zero_shot = _table(constants.values.get(ZERO_SHOT), skipped)
    few_shot = _table(constants.values.get(FEW_SHOT), skipped)
    if not zero_shot and not few_shot:
        raise UserError(
            f"{root / tables_file} has neither {ZERO_SHOT} nor {FEW_SHOT} as a table of patterns; "
            "the folder must be a checkout of google-research/FLAN"
        )
    branched: dict[str, list[Any]] = {}
    if no_options_file and (root / no_options_file).is_file():
        other = read_constants(root / no_options_file, root)
        skipped.update(other.skipped.get(ZERO_SHOT, {}))
        branched = _table(other.values.get(ZERO_SHOT), skipped)
    sets = {}
    for key in dict.fromkeys([*zero_shot, *few_shot]):
        first = _read(zero_shot.get(key, ()), skipped)
        second = _read(branched[key], skipped) if key in branched else first
        raw = [first, second, _read(few_shot.get(key, ()), skipped)]
        given = {**(fields or {}).get("", {}), **(fields or {}).get(key, {})}
        renaming = {**FIELDS, **given}
        if "answer" not in given.values():
            renaming |= _answer_field(raw, renaming)
        patterns = _Patterns(*(_rename_all(table, renaming) for table in raw))
        sets[key] = _template_set(key, patterns)
    warnings = tuple(problem for found in sets.values() for problem in lint(found))
    return FlanTables(sets, warnings, dict(skipped))


def _table(value: Any, skipped: collections.Counter[str]) -> dict[str, list[Any]]:
    """The entries of a table whose values are lists."""
    found = {}
    for key, patterns in value.items() if isinstance(value, dict) else ():
        if isinstance(key, str) and isinstance(patterns, list | tuple):
            found[key] = list(patterns)
        else:
            skipped["entry that is no list of patterns"] += 1
    return found


def _read(patterns: Iterable[Any], skipped: collections.Counter[str]) -> dict[int, _Pattern]:
    """Patterns with Flan's names, by number; the others are counted."""
    found = {}
    for number, pattern in enumerate(patterns):
        try:
            read = _read_one(pattern, number)
            for text in (read.inputs, read.targets, read.instruction):
                parse(text)
            found[number] = read
        except ValueError as error:
            reason = "stray brace" if str(error).startswith("stray") else str(error)
            skipped[reason] += 1
    return found


def _read_one(pattern: Any, number: int) -> _Pattern:
    if isinstance(pattern, tuple) and len(pattern) == 2:
        values: Mapping[str, Any] = {"inputs": pattern[0], "targets": pattern[1]}
        layout, instruction = None, ""
    elif isinstance(pattern, FieldsOf):
        values = pattern.values
        layout, instruction = _layout(values, number)
    else:
        raise ValueError("pattern that is neither a pair nor a few-shot pattern")
    inputs, targets = values.get("inputs"), values.get("targets")
    if not isinstance(inputs, str) or not isinstance(targets, str):
        raise ValueError("pattern whose inputs or targets are no text")
    return _Pattern(inputs, targets, layout, instruction)


def _layout(values: Mapping[str, Any], number: int) -> tuple[FewShotFormat, str]:
    """The layout of a few-shot pattern, and what stands above all its examples."""
    names = ("inputs_prefix", "targets_prefix", "x_y_delimiter", "example_separator")
    texts = [values.get(name, "") for name in names]
    around = values.get("input_pattern", "{{inputs}}")
    suffix = values.get("final_suffix", "")
    if not all(isinstance(text, str) for text in (*texts, around, suffix)):
        raise ValueError("few-shot pattern whose layout is no text")
    around = around.replace("{final_suffix}", suffix).replace("{{", "{").replace("}}", "}")
    above, found, below = around.partition(_EXAMPLES)
    if not found or below.strip():
        raise ValueError("few-shot pattern with text below its examples")
    instruction = above.rstrip()
    placement = "top" if instruction else "none"
    prefix, target_prefix, separator, example_separator = texts
    layout = FewShotFormat(
        _id("fs", number), prefix, target_prefix, separator, example_separator, placement
    )
    return layout, instruction


def _id(prefix: str, number: int) -> str:
    return f"{prefix}_{number:02d}"


# ---------------------------------------------------------------- names of fields


def _answer_field(
    tables: Sequence[Mapping[int, _Pattern]], renaming: Mapping[str, str]
) -> dict[str, str]:
    """The field that is the answer by how often it is the whole target; {} if one is named so."""
    targets: collections.Counter[str] = collections.Counter()
    for pattern in (p for table in tables for p in table.values()):
        names = parse(pattern.targets)[1::2]
        if "answer" in {renaming.get(n, n) for n in (*names, *parse(pattern.inputs)[1::2])}:
            return {}
        if len(names) == 1:
            targets[names[0]] += 1
    return {name: "answer" for name, _ in targets.most_common(1)}


def _rename_all(table: Mapping[int, _Pattern], renaming: Mapping[str, str]) -> dict[int, _Pattern]:
    return {
        number: _Pattern(
            _rename(pattern.inputs, renaming),
            _rename(pattern.targets, renaming),
            pattern.layout,
            _rename(pattern.instruction, renaming),
        )
        for number, pattern in table.items()
    }


def _rename(text: str, renaming: Mapping[str, str]) -> str:
    parts = list(parse(text))
    parts[::2] = [literal.replace("{", "{{").replace("}", "}}") for literal in parts[::2]]
    parts[1::2] = ["{" + renaming.get(name, name) + "}" for name in parts[1::2]]
    return "".join(parts)


# ---------------------------------------------------------------- template sets


def _template_set(key: str, patterns: _Patterns) -> TemplateSet:
    names = [
        name
        for pattern in patterns.every
        for text in (pattern.inputs, pattern.targets, pattern.instruction)
        for name in parse(text)[1::2]
    ]
    sources = tuple(dict.fromkeys(name for name in names if name not in SPECIAL))
    lists: dict[str, list[Template]] = collections.defaultdict(list)
    for number, pattern in patterns.zero_shot.items():
        if _kind(pattern, sources) == "inv":
            pattern = _inverted(pattern, patterns.no_options.get(number, pattern), sources)
        _place(lists, "zs", number, pattern, sources)
    for number, pattern in patterns.no_options.items():
        if _kind(pattern, sources) != "inv":
            _place(lists, "zs_noopt", number, _without_options(pattern), sources)
    for number, pattern in patterns.few_shot.items():
        if _kind(pattern, sources) == "inv":
            _place(lists, "fs_inv", number, _alone(_without_options(pattern)), sources)
            continue
        # With a rationale in the targets, the chain-of-thought lists have such targets already.
        shot = pattern._replace(targets=_direct(pattern))
        _place(lists, "fs", number, shot, sources)
        if "{options}" in pattern.inputs:
            _place(lists, "fs_noopt", number, _without_options(shot), sources)
    straight = [p for p in patterns.few_shot.values() if _kind(p, sources) != "inv"]
    layouts = [p.layout for p in straight if p.layout is not None]
    shown = [p.instruction for p in straight if p.instruction]
    wordings: dict[str, Any] = {name: tuple(found) for name, found in lists.items()}
    return TemplateSet(
        key,
        sources,
        instructions=tuple(dict.fromkeys(shown)),
        formats=tuple(layouts) or STANDARD_FORMATS,
        dialog_field=_DIALOG if _DIALOG in sources else "",
        **wordings,
    )


def _kind(pattern: _Pattern, sources: Sequence[str]) -> str:
    """ "inv" if the prompt gives the answer away or asks for something else, else "cot" or ""."""
    inputs, targets = set(parse(pattern.inputs)[1::2]), set(parse(pattern.targets)[1::2])
    if inputs & {"answer", "rationale"} or targets & set(sources) or "answer" not in targets:
        return "inv"
    return "cot" if "rationale" in targets else ""


def _place(
    lists: dict[str, list[Template]],
    prefix: str,
    number: int,
    pattern: _Pattern,
    sources: Sequence[str],
) -> None:
    """Adds a pattern to the list where it belongs."""
    kind = _kind(pattern, sources)
    options = "opt" if "{options}" in pattern.inputs else "noopt"
    if kind == "inv":
        name = "inv"
    elif prefix.startswith("fs"):
        name = f"fs_{options}"
    else:
        name = f"{kind or 'zs'}_{options}"
        # A zero-shot pattern without options comes again in the table without options.
        if options == "noopt" and prefix == "zs":
            return
    lists[name].append(Template(_id(prefix, number), pattern.inputs, pattern.targets))


def _without_options(pattern: _Pattern) -> _Pattern:
    place = _OPTIONS if pattern.layout is None else _FEW_SHOT_OPTIONS
    return pattern._replace(
        inputs=place.sub("", pattern.inputs), targets=_OPTIONS.sub("", pattern.targets)
    )


def _inverted(pattern: _Pattern, other: _Pattern, sources: Sequence[str]) -> _Pattern:
    """An inverted pattern without options: as the other table has it, if it shows any."""
    shows = "{options}" in pattern.inputs + pattern.targets
    return _without_options(other if shows and _kind(other, sources) == "inv" else pattern)


def _direct(pattern: _Pattern) -> str:
    return "{answer}" if "{rationale}" in pattern.targets else pattern.targets


def _alone(pattern: _Pattern) -> _Pattern:
    """A few-shot pattern as a prompt of its own: with its layout's prefixes around it."""
    layout = pattern.layout
    if layout is None:
        return pattern
    # Flan fills prefixes in as they are, so a brace in one is a brace.
    before, after = (
        text.replace("{", "{{").replace("}", "}}")
        for text in (layout.input_prefix, layout.separator + layout.target_prefix)
    )
    return pattern._replace(inputs=f"{before}{pattern.inputs}{after}".rstrip())
