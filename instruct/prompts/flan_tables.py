"""Flan's own wordings, from a user's checkout of google-research/FLAN, as template sets.

Reads two tables of `flan/v2/templates.py` from its syntax tree, without importing it:

    PATTERNS            key -> [(inputs, targets), ...]             zero-shot
    FEWSHOT_PATTERNS    key -> [FewShotPattern(inputs=..., ...)]    few-shot, each with its layout

As in Flan, prompts without options come from `flan_templates_branched.py` if it has the key, else
from the same patterns with the options removed; so do inverted prompts, which show no options here.
Flan's defects (prompts that still mention options, show no field of the example, or are equal)
stay, to reproduce the original.

Few-shot layouts keep the id of their pattern, but are drawn independently of it.
"""

import ast
import collections
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instruct.errors import UserError
from instruct.files import local_path
from instruct.prompts.exemplars import STANDARD_FORMATS, FewShotFormat
from instruct.prompts.template import SPECIAL, Template, TemplateSet, parse, placeholders

TABLES_FILE = "flan/v2/templates.py"
NO_OPTIONS_FILE = "flan/v2/flan_templates_branched.py"
ZERO_SHOT, FEW_SHOT = "PATTERNS", "FEWSHOT_PATTERNS"

_DIALOG = "dialog"  # turns, one a line; both Flan and this project draw a style for them

# Flan's names with one meaning in all tables.
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


_log = logging.getLogger(__name__)


class _Pattern(NamedTuple):
    inputs: str
    targets: str
    layout: FewShotFormat | None = None
    instruction: str = ""

    @property
    def texts(self) -> dict[str, str]:
        return {"inputs": self.inputs, "targets": self.targets, "instruction": self.instruction}


# The patterns of one key by their number in Flan's list.
_Patterns = Mapping[int, _Pattern]


def load_flan_tables(
    checkout: str | Path, fields: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, TemplateSet]:
    """Reads the tables of a checkout: Flan's key -> template set of that name.

    Logs how many entries cannot be read, and why.

    Args:
        checkout: the repository's folder.
        fields: key -> Flan's field name -> ours, over `FIELDS`; key "" is for all keys. If neither
            the patterns of a key nor `fields` name `answer`, it is the field that is the whole of
            most targets (`subject` for "aeslc").

    Raises:
        UserError: no such file, not Python, or neither table in it.
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
    if skipped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        _log.warning("%s: %d entries cannot be read (%s)", root, skipped.total(), reasons)
    return sets


# ---------------------------------------------------------------- from the syntax tree


def _read_tables(
    path: Path, skipped: collections.Counter[str]
) -> dict[str, dict[str, dict[int, _Pattern]]]:
    """Both tables of a file: name -> key -> patterns. Counts unreadable entries in `skipped`.

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
    patterns = {}
    for number, item in enumerate(items):
        try:
            pattern = _read_pattern(item, number, defaults)
            for text in pattern.texts.values():
                parse(text)
            patterns[number] = pattern
        except ValueError as error:
            skipped["stray brace" if str(error).startswith("stray") else str(error)] += 1
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
    inputs, targets, *layout_texts, final_suffix, around = (
        _text(values.get(name, ast.Constant("")))
        for name in (
            *("inputs", "targets", "inputs_prefix", "targets_prefix", "x_y_delimiter"),
            *("example_separator", "final_suffix", "input_pattern"),
        )
    )
    around = (around or "{{inputs}}").replace("{final_suffix}", final_suffix)
    above, mark, below = around.replace("{{", "{").replace("}}", "}").partition("{inputs}")
    if not mark or below.strip():
        raise ValueError("few-shot pattern with text below its examples")
    instruction = above.rstrip()
    layout = FewShotFormat(
        f"fs_{number:02d}", *layout_texts, instruction="top" if instruction else "none"
    )
    return _Pattern(inputs, targets, layout, instruction)


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(text)):
            return text
    raise ValueError("pattern with something else than texts")


# ---------------------------------------------------------------- names of fields


def _answer_field(tables: Sequence[_Patterns], renaming: Mapping[str, str]) -> dict[str, str]:
    """{the field that is most often the whole target: "answer"}; {} if a field is so named."""
    targets: collections.Counter[str] = collections.Counter()
    for pattern in (pattern for table in tables for pattern in table.values()):
        names = placeholders(pattern.targets)
        if "answer" in {renaming.get(n, n) for n in (*names, *placeholders(pattern.inputs))}:
            return {}
        if len(names) == 1:
            targets[names[0]] += 1
    return {name: "answer" for name, _ in targets.most_common(1)}


def _rename_fields(patterns: _Patterns, renaming: Mapping[str, str]) -> dict[int, _Pattern]:
    shown_as = {name: f"{{{ours}}}" for name, ours in renaming.items()}
    return {
        number: pattern._replace(
            **{name: replace_fields(text, shown_as) for name, text in pattern.texts.items()}
        )
        for number, pattern in patterns.items()
    }


def replace_fields(text: str, shown_as: Mapping[str, str]) -> str:
    """Replaces some placeholders of a template by other text.

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
        for text in pattern.texts.values()
        for name in placeholders(text)
    ]
    sources = tuple(dict.fromkeys(name for name in names if name not in SPECIAL))
    lists: dict[str, list[Template]] = collections.defaultdict(list)

    def add(prefix: str, number: int, pattern: _Pattern) -> None:
        """Adds a pattern to the list of its kind."""
        kind = _kind(pattern, sources)
        name = "inv"
        if kind != "inv":
            has_options = "{options}" in pattern.inputs
            # A zero-shot pattern without options comes again in the table without options.
            if prefix == "zs" and not has_options:
                return
            kind = "fs" if prefix.startswith("fs") else kind or "zs"
            name = f"{kind}_opt" if has_options else f"{kind}_noopt"
        lists[name].append(Template(f"{prefix}_{number:02d}", pattern.inputs, pattern.targets))

    for number, pattern in zero_shot.items():
        if _kind(pattern, sources) == "inv":
            pattern = _inverted(pattern, no_options.get(number, pattern), sources)
        add("zs", number, pattern)
    for number, pattern in no_options.items():
        if _kind(pattern, sources) != "inv":
            add("zs_noopt", number, _without_options(pattern))
    straight = []
    for number, pattern in few_shot.items():
        if _kind(pattern, sources) == "inv":
            add("fs_inv", number, _alone(_without_options(pattern)))
            continue
        straight.append(pattern)
        # The chain-of-thought lists have targets with a rationale already.
        if "{rationale}" in pattern.targets:
            pattern = pattern._replace(targets="{answer}")
        add("fs", number, pattern)
        if "{options}" in pattern.inputs:
            add("fs_noopt", number, _without_options(pattern))
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
    """ "inv" if the prompt shows the answer or asks for another field, else "cot" or ""."""
    inputs, targets = set(placeholders(pattern.inputs)), set(placeholders(pattern.targets))
    if inputs & {"answer", "rationale"} or targets & set(sources) or "answer" not in targets:
        return "inv"
    return "cot" if "rationale" in targets else ""


def _without_options(pattern: _Pattern) -> _Pattern:
    options = _OPTIONS if pattern.layout is None else _FEW_SHOT_OPTIONS
    return pattern._replace(
        inputs=options.sub("", pattern.inputs), targets=_OPTIONS.sub("", pattern.targets)
    )


def _inverted(pattern: _Pattern, other: _Pattern, sources: Sequence[str]) -> _Pattern:
    """An inverted pattern without options: the other table's if it has any options."""
    shows = "{options}" in pattern.inputs + pattern.targets
    return _without_options(other if shows and _kind(other, sources) == "inv" else pattern)


def _alone(pattern: _Pattern) -> _Pattern:
    """A few-shot pattern as a prompt of its own, between the prefixes of its layout."""
    layout = pattern.layout
    if layout is None:
        return pattern
    # Flan does not format prefixes, so their braces are literal.
    before, after = (
        text.replace("{", "{{").replace("}", "}}")
        for text in (layout.input_prefix, layout.separator + layout.target_prefix)
    )
    return pattern._replace(inputs=f"{before}{pattern.inputs}{after}".rstrip())
