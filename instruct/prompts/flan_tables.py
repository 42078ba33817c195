"""Flan's own wordings, from a user's checkout of google-research/FLAN, as template sets.

Two tables of `flan/v2/templates.py` are read from its syntax tree; nothing is imported or executed:

    PATTERNS            key -> [(inputs, targets), ...]             zero-shot
    FEWSHOT_PATTERNS    key -> [FewShotPattern(inputs=..., ...)]    few-shot, each with its layout

As in Flan, prompts without options come from `flan_templates_branched.py` where that has the key,
and otherwise from the same patterns with the options removed. So do inverted prompts, which show
no options here. Defects that this leaves (prompts that still speak of options, show nothing of the
example, or became alike) stay in, so that the original can be reproduced; the lint warns of them.

Few-shot layouts keep the id of their pattern; here they are drawn independently of it.
"""

import ast
import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instruct.errors import UserError
from instruct.files import local_path
from instruct.prompts.exemplars import STANDARD_FORMATS, FewShotFormat
from instruct.prompts.lint import lint
from instruct.prompts.template import SPECIAL, Template, TemplateSet, parse

TABLES_FILE = "flan/v2/templates.py"
NO_OPTIONS_FILE = "flan/v2/flan_templates_branched.py"
ZERO_SHOT, FEW_SHOT = "PATTERNS", "FEWSHOT_PATTERNS"

_DIALOG = "dialog"  # turns, one a line; both Flan and this project draw a style for them

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
    """The tables of a checkout as template sets.

    Attributes:
        sets: Flan's key -> template set of that name.
        warnings: what the lint finds in the sets, one sentence each.
        skipped: reason -> entries that could not be read.
    """

    sets: Mapping[str, TemplateSet]
    warnings: tuple[str, ...]
    skipped: Mapping[str, int]


class _Pattern(NamedTuple):
    inputs: str
    targets: str
    layout: FewShotFormat | None = None
    instruction: str = ""


# The patterns of one key by their number in Flan's list.
_Patterns = Mapping[int, _Pattern]


def load_flan_tables(
    checkout: str | Path, fields: Mapping[str, Mapping[str, str]] | None = None
) -> FlanTables:
    """Reads the tables of a checkout.

    Args:
        checkout: the repository's folder.
        fields: key -> Flan's field name -> ours, over `FIELDS`; key "" is for all. One of ours is
            `answer`: where a key never names it and `fields` does not either, it is the field that
            most targets consist of (`subject` for "aeslc").

    Raises:
        UserError: no such file, not Python, or no table of that form in it.
    """
    root = local_path("FLAN_CHECKOUT", checkout, "~/FLAN")
    skipped: collections.Counter[str] = collections.Counter()
    tables = _read_tables(root / TABLES_FILE, skipped)
    zero_shot, few_shot = tables[ZERO_SHOT], tables[FEW_SHOT]
    if not zero_shot and not few_shot:
        raise UserError(
            f"{root / TABLES_FILE} has neither {ZERO_SHOT} nor {FEW_SHOT} as a table of patterns; "
            "the folder must be a checkout of google-research/FLAN"
        )
    branched: Mapping[str, _Patterns] = {}
    if (root / NO_OPTIONS_FILE).is_file():
        branched = _read_tables(root / NO_OPTIONS_FILE, skipped)[ZERO_SHOT]
    sets = {}
    for key in dict.fromkeys([*zero_shot, *few_shot]):
        straight = zero_shot.get(key, {})
        raw = [straight, branched.get(key, straight), few_shot.get(key, {})]
        declared = {**(fields or {}).get("", {}), **(fields or {}).get(key, {})}
        renaming = {**FIELDS, **declared}
        if "answer" not in declared.values():
            renaming |= _answer_field(raw, renaming)
        sets[key] = _template_set(key, *(_rename_fields(patterns, renaming) for patterns in raw))
    warnings = tuple(problem for template_set in sets.values() for problem in lint(template_set))
    return FlanTables(sets, warnings, dict(skipped))


# ---------------------------------------------------------------- from the syntax tree


def _read_tables(
    path: Path, skipped: collections.Counter[str]
) -> dict[str, dict[str, dict[int, _Pattern]]]:
    """Both tables of a file: name -> key -> patterns. Counts entries that cannot be read.

    Reads `TABLE = {key: [...]}`, `TABLE[key] = [...]` and `TABLE[key] = TABLE[other]`.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not a Python file that can be read: {error}") from error
    tables: dict[str, dict[str, dict[int, _Pattern]]] = {ZERO_SHOT: {}, FEW_SHOT: {}}
    defaults: dict[str, ast.expr] = {}
    for statement in tree.body:
        entries: Iterable[tuple[ast.expr | None, ast.expr]] = ()
        table = ""
        match statement:
            case ast.ClassDef(name="FewShotPattern", body=body):
                for item in body:
                    match item:
                        case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as default):
                            defaults[name] = default
            case ast.Assign([ast.Name(table)], ast.Dict(keys, values)):
                entries = zip(keys, values)
            case ast.Assign([ast.Subscript(ast.Name(table), key)], value):
                entries = [(key, value)]
        for entry in entries if table in tables else ():
            match entry:
                case ast.Constant(str(key)), ast.List(items):
                    tables[table][key] = _read_patterns(items, defaults, skipped)
                case (
                    ast.Constant(str(key)),
                    ast.Subscript(ast.Name(other_table), ast.Constant(other)),
                ) if other in tables.get(other_table, {}):
                    tables[table][key] = tables[other_table][other]
                case _:
                    skipped["entry that is no list of patterns"] += 1
    return tables


def _read_patterns(
    items: Sequence[ast.expr], defaults: Mapping[str, ast.expr], skipped: collections.Counter[str]
) -> dict[int, _Pattern]:
    """Patterns with Flan's names of fields, by number; counts those that cannot be read."""
    patterns = {}
    for number, item in enumerate(items):
        try:
            pattern = _read_pattern(item, number, defaults)
            for text in (pattern.inputs, pattern.targets, pattern.instruction):
                parse(text)
            patterns[number] = pattern
        except ValueError as error:
            reason = "stray brace" if str(error).startswith("stray") else str(error)
            skipped[reason] += 1
    return patterns


def _read_pattern(node: ast.expr, number: int, defaults: Mapping[str, ast.expr]) -> _Pattern:
    match node:
        case ast.Tuple([inputs, targets]):
            return _Pattern(_text(inputs), _text(targets))
        case ast.Call(ast.Name("FewShotPattern"), [], keywords):
            values = {**defaults, **{str(keyword.arg): keyword.value for keyword in keywords}}
        case _:
            raise ValueError("pattern that is neither a pair nor a FewShotPattern")
    if not {"inputs", "targets"} <= values.keys():
        raise ValueError("FewShotPattern without inputs or targets")
    texts = {
        name: _text(values[name]) if name in values else ""
        for name in (
            *("inputs", "targets", "inputs_prefix", "targets_prefix", "x_y_delimiter"),
            *("example_separator", "final_suffix"),
        )
    }
    around = _text(values["input_pattern"]) if "input_pattern" in values else "{{inputs}}"
    around = around.replace("{final_suffix}", texts["final_suffix"])
    above, mark, below = around.replace("{{", "{").replace("}}", "}").partition(_EXAMPLES)
    if not mark or below.strip():
        raise ValueError("few-shot pattern with text below its examples")
    instruction = above.rstrip()
    layout = FewShotFormat(
        _id("fs", number),
        texts["inputs_prefix"],
        texts["targets_prefix"],
        texts["x_y_delimiter"],
        texts["example_separator"],
        "top" if instruction else "none",
    )
    return _Pattern(texts["inputs"], texts["targets"], layout, instruction)


def _text(node: ast.expr) -> str:
    """A text literal; adjacent literals are one already."""
    match node:
        case ast.Constant(str(text)):
            return text
    raise ValueError("pattern with something else than texts")


def _id(prefix: str, number: int) -> str:
    return f"{prefix}_{number:02d}"


# ---------------------------------------------------------------- names of fields


def _answer_field(tables: Sequence[_Patterns], renaming: Mapping[str, str]) -> dict[str, str]:
    """The field that is most often the whole target, as the answer; {} if one is named so."""
    targets: collections.Counter[str] = collections.Counter()
    for pattern in (pattern for table in tables for pattern in table.values()):
        names = parse(pattern.targets)[1::2]
        if "answer" in {renaming.get(n, n) for n in (*names, *parse(pattern.inputs)[1::2])}:
            return {}
        if len(names) == 1:
            targets[names[0]] += 1
    return {name: "answer" for name, _ in targets.most_common(1)}


def _rename_fields(patterns: _Patterns, renaming: Mapping[str, str]) -> dict[int, _Pattern]:
    shown_as = {name: f"{{{ours}}}" for name, ours in renaming.items()}
    return {
        number: pattern._replace(
            inputs=replace_fields(pattern.inputs, shown_as),
            targets=replace_fields(pattern.targets, shown_as),
            instruction=replace_fields(pattern.instruction, shown_as),
        )
        for number, pattern in patterns.items()
    }


def replace_fields(text: str, shown_as: Mapping[str, str]) -> str:
    """A template's text with other text for some of its fields.

    >>> replace_fields("{a} {{and}} {b}", {"a": "{code}: {error}"})
    '{code}: {error} {{and}} {b}'
    """
    parts = list(parse(text))
    parts[::2] = [literal.replace("{", "{{").replace("}", "}}") for literal in parts[::2]]
    parts[1::2] = [shown_as.get(name, f"{{{name}}}") for name in parts[1::2]]
    return "".join(parts)


# ---------------------------------------------------------------- template sets


def _template_set(
    key: str, zero_shot: _Patterns, no_options: _Patterns, few_shot: _Patterns
) -> TemplateSet:
    names = [
        name
        for pattern in (*zero_shot.values(), *no_options.values(), *few_shot.values())
        for text in (pattern.inputs, pattern.targets, pattern.instruction)
        for name in parse(text)[1::2]
    ]
    sources = tuple(dict.fromkeys(name for name in names if name not in SPECIAL))
    lists: dict[str, list[Template]] = collections.defaultdict(list)
    for number, pattern in zero_shot.items():
        if _kind(pattern, sources) == "inv":
            pattern = _inverted(pattern, no_options.get(number, pattern), sources)
        _place(lists, "zs", number, pattern, sources)
    for number, pattern in no_options.items():
        if _kind(pattern, sources) != "inv":
            _place(lists, "zs_noopt", number, _without_options(pattern), sources)
    straight = []
    for number, pattern in few_shot.items():
        if _kind(pattern, sources) == "inv":
            _place(lists, "fs_inv", number, _alone(_without_options(pattern)), sources)
            continue
        straight.append(pattern)
        # With a rationale in the targets, the chain-of-thought lists have such targets already.
        if "{rationale}" in pattern.targets:
            pattern = pattern._replace(targets="{answer}")
        _place(lists, "fs", number, pattern, sources)
        if "{options}" in pattern.inputs:
            _place(lists, "fs_noopt", number, _without_options(pattern), sources)
    layouts = tuple(pattern.layout for pattern in straight if pattern.layout is not None)
    shown = [pattern.instruction for pattern in straight if pattern.instruction]
    wordings: dict[str, Any] = {name: tuple(templates) for name, templates in lists.items()}
    return TemplateSet(
        key,
        sources,
        instructions=tuple(dict.fromkeys(shown)),
        formats=layouts or STANDARD_FORMATS,
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
