"""Programs as records of the family `program_synthesis`.

This module imports no TensorFlow, since worker processes that read records import it.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.sources.files import FileSource, Part, Row, hash_unit, hashed_parts
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

FINGERPRINT_MODULE = "tasks.synthesis_sources"  # fingerprints of stores name functions so

# ---------------------------------------------------------------- DrRepair

VARIANTS = ("plain_code", "line_numbers", "error_comments", "no_errors")
MAX_LINES = 120  # of a program; one in some hundred student programs is longer
_INDENT = "    "
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')


@dataclasses.dataclass(frozen=True)
class DrRepairSource(FileSource):
    """DrRepair's programs that do not compile, with the correct programs.

    Reads the preprocessed DeepFix files of the release of Yasunaga and Liang (2020), unzipped:

        dr_repair/err-data-compiler--auto-corrupt--orig-deepfix/**/*.json     (bin0/prob11/...)

    one file a program: `lines` [{"code": tokens with blanks between, "indent": level}] of the
    correct program and `errors` [{"mod_line": [line], "mod_code": [its faulty text], "err_line":
    line, "err_msg": first error of the compiler}], lines counted from 0. They are C, by students.
    The release's spoc-style folders are not read: they leave most braces to the indentation.

    A program gives one record, with one of its up to 100 corruptions. A hash of the program and the
    variant draws it, so that the variants differ in more than their layout. Splits are cut by the
    programming problem, since solutions of one problem resemble each other.

    Attributes:
        variant: how errors are shown: "plain_code" the faulty program alone; "line_numbers" the
            program with its lines numbered, and the compiler's message with the line's number;
            "error_comments" the program with the message as a comment at its line; "no_errors" the
            numbered program without any message. How the Flan Collection lays them out is not
            public.
        folder: of the files (every *.json below it), relative to the data folder.
    """

    name: str = "dr_repair"
    parts: Mapping[str, Part] = dataclasses.field(default_factory=lambda: hashed_parts("dr_repair"))
    origin: str = "https://github.com/michiyasunaga/DrRepair (download_preprocessed_data.sh)"
    variant: str = "plain_code"
    folder: str = "dr_repair/err-data-compiler--auto-corrupt--orig-deepfix"

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The existing files, sorted; the folder itself where there are none."""
        root = workspace.data_dir / self.folder
        return tuple(sorted(root.glob("**/*.json"))) or (root,)

    def rows(self, path: Path) -> Iterator[Row]:
        """Every program of every file; `path` is only the common name of the parts."""
        for file in self.paths(Workspace(data_dir=path.parent)):
            relative = file.relative_to(path.parent / self.folder).with_suffix("").as_posix()
            try:
                program = json.loads(file.read_bytes().decode("utf-8"))
                problem = str(program["meta"]["probid"])
            except (ValueError, KeyError, TypeError, RecursionError):
                yield Dropped("file is not a program of the release"), relative
                continue
            yield repair_record(program, f"{self.name}-{relative}", self.variant), problem


def repair_record(program: Mapping[str, Any], identity: str, variant: str) -> Record | Dropped:
    """A record from one program of DrRepair.

    Args:
        program: a file's JSON.
        identity: id of the record; draws the corruption.
        variant: one of VARIANTS.
    """
    try:
        correct = [_code_line(line["code"]) for line in program["lines"]]
        indents = [int(line["indent"]) for line in program["lines"]]
        errors = program["errors"]
        if not errors:
            return Dropped("program has no errors")
        if len(correct) > MAX_LINES:
            return Dropped("program is too long")
        error = errors[int(hash_unit(f"{variant} of {identity}") * len(errors))]
        faulty = list(correct)
        for number, code in zip(error["mod_line"], error["mod_code"], strict=True):
            faulty[number] = _code_line(code)
        position, message = int(error["err_line"]), str(error["err_msg"]).strip()
    except (KeyError, TypeError, IndexError, ValueError):
        return Dropped("program is not laid out as in the release")
    if faulty == correct:
        return Dropped("the errors change nothing")
    # Some messages point past the end of the program, at a missing brace.
    position = min(max(position, 0), len(correct) - 1)
    lines = [f"{_INDENT * indent}{code}".rstrip() for indent, code in zip(indents, faulty)]
    if variant == "error_comments":
        lines[position] = f"{lines[position]}  // error: {message}"
    if variant in ("line_numbers", "no_errors"):
        lines = [f"{number:>3} {line}".rstrip() for number, line in enumerate(lines, 1)]
    fields = {"code": "\n".join(lines)}
    if variant == "line_numbers":
        fields["error"] = f"line {position + 1}: error: {message}"
    repaired = [f"{_INDENT * indent}{code}".rstrip() for indent, code in zip(indents, correct)]
    answer = "\n".join(repaired).strip("\n")
    if not answer.strip():
        return Dropped("program is empty")
    return Record(f"{identity}-{variant}", fields, answer)


def _code_line(code: str) -> str:
    """A line of tokens without the blanks that the release puts inside quotes.

    >>> _code_line("printf ( \\" %d \\" , ' x ' ) ;")
    'printf ( "%d" , \\'x\\' ) ;'
    """
    return _QUOTED.sub(_without_padding, code.strip())


def _without_padding(match: re.Match[str]) -> str:
    quote, inner = match.group()[0], match.group()[1:-1]
    if len(inner) > 2 and inner[0] == inner[-1] == " ":
        inner = inner[1:-1]
    return f"{quote}{inner}{quote}"


# ---------------------------------------------------------------- CodeContests

PYTHON3 = 3  # of the data set's languages: 1 Python 2, 2 C++, 4 Java
MAX_SOLUTION = 4_000  # characters
MAX_DESCRIPTION = 12_000
CODE_CONTESTS_COLUMNS = ("name", "description", "source", "solutions")


def code_contests_record(row: Mapping[str, Any], default_id: str) -> Record | Dropped:
    """A row of DeepMind's CodeContests: the statement, and one right solution in Python 3.

    The solution is drawn by a hash of the problem's name among the right ones of at most
    `MAX_SOLUTION` characters. Statements with images are dropped, since the images are lost.
    """
    description = str(row.get("description") or "").strip()
    if not description:
        return Dropped("no description")
    if "<image>" in description.lower():
        return Dropped("the statement shows images")
    if len(description) > MAX_DESCRIPTION:
        return Dropped("statement is too long")
    solutions = [text for text in _python_solutions(row.get("solutions")) if text.strip()]
    if not solutions:
        return Dropped("no solution in Python 3")
    short = sorted({text for text in solutions if len(text) <= MAX_SOLUTION})
    if not short:
        return Dropped("solutions are too long")
    name = str(row.get("name") or default_id)
    source = row.get("source")
    identity = f"code_contests-{source}-{name}" if source is not None else f"code_contests-{name}"
    answer = short[int(hash_unit(f"solution of {name}") * len(short))]
    fields = {"description": description, "language": "Python 3"}
    return Record(identity, fields, _tidy_code(answer))


def _python_solutions(solutions: Any) -> list[str]:
    """The solutions in Python 3 from a struct of two lists or a list of structs."""
    if isinstance(solutions, Mapping):
        pairs = zip(solutions.get("language") or (), solutions.get("solution") or ())
    else:
        structs = (s for s in solutions or () if isinstance(s, Mapping))
        pairs = ((struct.get("language"), struct.get("solution")) for struct in structs)
    return [str(text) for language, text in pairs if language in (PYTHON3, "PYTHON3")]


def _tidy_code(code: str) -> str:
    """Code with newlines of one kind, no blanks at line ends, no blank lines around it."""
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(map(str.rstrip, lines)).strip("\n")
