"""Equal code has one fingerprint in every process; any change of what it does has another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instruct.data.seqio.code_fingerprint import CodeFingerprint

ROOT = Path(__file__).resolve().parents[3]

# A step as users write them: constants, helpers of another module, closures, classes, partials.
STEP = '''
import dataclasses
import enum
import functools
import re
import textwrap
from pathlib import Path
import gin
import numpy as np
import task_helpers as helpers
from task_helpers import shorten

WORDS = {"yes", "no", "maybe", "never"}
TABLE = {"a": [1, 2], "b": (3.5, None)}
PATTERN = re.compile(r"[aeiou]+")
ARRAY = np.arange(4)
FOLDER = Path(__file__).parent / "data"
_memo = {}
_loaded = None

class Kind(enum.Enum):
    PLAIN = 1
    LOUD = 2

@dataclasses.dataclass(frozen=True)
class Options:
    limit: int = 5
    words: tuple = ("x", "y")

class Shout:
    mark = "!"

    def __init__(self, times):
        self.times = times

    def __call__(self, text):
        """Says it loudly."""
        return self.emphasise(text) + self.mark * self.times

    def emphasise(self, text):
        return text.upper()

def decorated(function):
    @functools.wraps(function)
    def inner(*arguments, **options):
        return function(*arguments, **options).strip()
    return inner

def make_counter(step):
    count = 0
    def counted(text):
        nonlocal count
        count += step
        return text
    return counted

@functools.lru_cache
def cached(text):
    return text.title()

def load():
    global _loaded
    if _loaded is None:
        _loaded = object()
    return _loaded

@decorated
def clean(text, *, strip="."):
    # A comment.
    from task_helpers import late
    if text in {"skip", "drop", "leave"}:
        return ""
    _memo[text] = len(text)
    load()
    total = sum(TABLE["a"]) + int(ARRAY[1])
    parts = [part for part in PATTERN.split(text) if part not in WORDS]
    joined = helpers.join(parts) + late(text)
    return shorten(joined, total).strip(strip) + str(FOLDER) + Kind.LOUD.name

def spread(text, first=1, second=2):
    return text * first + text * second

class Meta(type):
    def mark(cls):
        return "by metaclass"

class Marked(metaclass=Meta):
    pass

textwrap.shorten = lambda text, width: text[:width] + "replaced"

@gin.configurable(module=__name__)
def configured(text, width=1, title="", form_fn=None):
    return textwrap.shorten(form_fn(text) + title, width=width)

@gin.configurable(module=__name__)
def form(text, left="<"):
    return left + text

gin.clear_config()
gin.parse_config(f"""
TITLE = 'macro'
OTHER = 'unused macro'
{__name__}.configured.width = 9
{__name__}.configured.title = %TITLE
{__name__}.configured.form_fn = @scope/form
scope/{__name__}.form.left = '['
""")

def late_module(text):
    from task_package import late
    return late.END + spread(text, first=3) + Marked.mark() + configured(text)

STEPS = [
    late_module,
    functools.partial(clean, strip=","),
    Shout(times=2),
    Shout(1).emphasise,
    make_counter(3),
    cached,
    lambda text: (lambda inner: inner + "-lambda")(text),
    Options(),
]
'''
HELPERS = """
SEPARATOR = " "
LATE = "late"

def join(parts):
    return deeper(parts)

def deeper(parts):
    return SEPARATOR.join(parts)

def shorten(text, length=10):
    return text[:length]

def late(text):
    return text + LATE

def unused(text):
    return text
"""

LATE_MODULE = """
END = "."
"""
FILES = {"task_step": STEP, "task_helpers": HELPERS, "task_package/late": LATE_MODULE}

# Of the step's module and of the helpers': what changes what the steps do.
CHANGES = {
    "body": ("int(ARRAY[1])", "int(ARRAY[2])"),
    "operator": ('+ "-lambda"', '* "-lambda"'),
    "set constant": ('"drop", "leave"', '"drop", "keep"'),
    "module set": ('"maybe", "never"', '"maybe", "ever"'),
    "module table": ('"a": [1, 2]', '"a": [1, 3]'),
    "nested value": ("(3.5, None)", "(3.25, None)"),
    "type of a constant": ("[1, 2]", "[1, 2.0]"),
    "pattern": ("[aeiou]+", "[aeiouy]+"),
    "array": ("np.arange(4)", "np.arange(5)"),
    "path": ('parent / "data"', 'parent / "other"'),
    "enumeration": ("LOUD = 2", "LOUD = 3"),
    "default of a dataclass": ("limit: int = 5", "limit: int = 6"),
    "class attribute": ('mark = "!"', 'mark = "?"'),
    "method": ("text.upper()", "text.lower()"),
    "attribute of an object": ("Shout(times=2)", "Shout(times=3)"),
    "object of a method": ("Shout(1)", "Shout(4)"),
    "keyword of a partial": ('strip=",")', 'strip=";")'),
    "default": ('strip=".")', 'strip="-")'),
    "decorator": ("**options).strip()", "**options).rstrip()"),
    "closure": ("make_counter(3)", "make_counter(4)"),
    "cached function": ("text.title()", "text.swapcase()"),
    "inner lambda": ('"-lambda"', '"-other"'),
    "order": ("PATTERN.split(text) if part not", "reversed(PATTERN.split(text)) if part not"),
    "attribute of a function": ("STEPS = [", "clean.version = 2\nSTEPS = ["),
    "helper of a helper's constant": ('SEPARATOR = " "', 'SEPARATOR = "_"'),
    "helper of a helper": ("SEPARATOR.join(parts)", "SEPARATOR.join(parts[1:])"),
    "imported helper": ("text[:length]", "text[length:]"),
    "helper imported inside": ('LATE = "late"', 'LATE = "later"'),
    "module imported inside": ('END = "."', 'END = "!"'),
    "name of a keyword": ("spread(text, first=3)", "spread(text, second=3)"),
    "metaclass": ("by metaclass", "by another metaclass"),
    "function put into a package": ('+ "replaced"', '+ "replaced otherwise"'),
    "gin binding": ("configured.width = 9", "configured.width = 8"),
    "gin macro": ("TITLE = 'macro'", "TITLE = 'other macro'"),
    "gin reference": ("= @scope/form", "= @form"),
    "gin binding of a scope": ("form.left = '['", "form.left = '('"),
}
# What does not.
NO_CHANGES = {
    "comment": ("# A comment.", "# Another comment,\n    # on two lines."),
    "docstring": ("Says it loudly.", "Says it much louder."),
    "blank lines": ("def load():", "\n\n\ndef load():\n"),
    "formatting": ('sum(TABLE["a"]) + int', "sum(\n        TABLE['a']\n    ) + int"),
    "local variable": ("joined", "glued"),
    "unused helper": ("def unused(text):\n    return text", "def unused(text):\n    return 5"),
    "unused gin macro": ("'unused macro'", "'another'"),
    "unused constant": ("STEPS = [", "OTHER = 7\nSTEPS = ["),
    "order of a set": ('{"yes", "no", "maybe", "never"}', '{"never", "maybe", "no", "yes"}'),
}
PROGRAM = """
import importlib, json, sys
import gin
from instruct.data.seqio.code_fingerprint import CodeFingerprint
gin.enter_interactive_mode()
found = []
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    fingerprint, module = CodeFingerprint(), importlib.import_module("task_step")
    fingerprint.add(tuple(module.STEPS))
    found.append([fingerprint.hexdigest(), list(fingerprint.unseen)])
    del sys.path[0]
    for name in [name for name in sys.modules if name.startswith("task_")]:
        del sys.modules[name]
print(json.dumps(found))
"""


def write(folder, change=("", "")):
    folder.mkdir(parents=True)
    assert any(change[0] in text for text in FILES.values())
    (folder / "task_package").mkdir()
    (folder / "task_package" / "__init__.py").touch()
    for name, text in FILES.items():
        changed = text.replace(*change) if change[0] else text
        (folder / f"{name}.py").write_text(changed)
    return str(folder)


def fingerprints(folders, seed="0", working=None):
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, *folders],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        cwd=working,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


def test_changes_of_any_kind_are_seen_and_nothing_else(tmp_path):
    every = {"plain": ("", "")} | CHANGES | NO_CHANGES
    folders = [write(tmp_path / str(n), change) for n, change in enumerate(every.values())]
    found = {name: digest for name, (digest, _) in zip(every, fingerprints(folders))}
    for name in NO_CHANGES:
        assert found[name] == found["plain"], name
    changed = [found[name] for name in CHANGES]
    assert [name for name in CHANGES if found[name] == found["plain"]] == []
    assert len(set(changed)) == len(changed)


def test_other_processes_agree(tmp_path):
    here, moved = write(tmp_path / "here"), write(tmp_path / "far" / "moved")
    runs = [
        fingerprints([here], seed="1"),
        fingerprints([here], seed="2", working=tmp_path),
        fingerprints([moved], seed="3"),
    ]
    assert runs[0] == runs[1] == runs[2]
    # What changes while the steps run is left out, and that is said.
    assert runs[0][0][1] == [
        "variable _memo, which clean changes",
        "variable _loaded, which load changes",
        "variable count, which make_counter.<locals>.counted changes",
    ]


def test_the_order_of_a_set_of_nested_folders_does_not_matter():
    """Modules of a package and of its sub-package; another process has another order."""
    nested = ["/user/package/", "/user/package/sub/"]
    digests = set()
    for folders in (nested, nested[::-1]):
        fingerprint = CodeFingerprint()
        vars(fingerprint)["_folders"] = dict.fromkeys(folders)  # in that order
        fingerprint.add("/user/package/sub/table.json")
        digests.add(fingerprint.hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    "source, phrase",
    [
        ("import random\nr = random.Random(1)\ndef step(x): return r.random()", "random.Random"),
        (
            "import numpy\nr = numpy.random.default_rng(1)\ndef step(x): return r.random()",
            "Generator",
        ),
        ("def step(x): return open('table.txt').read()", "what open reads in step"),
        ("import os\ndef step(x): return os.environ['X']", "what environ reads in step"),
        ("it = (i for i in range(3))\ndef step(x): return next(it)", "state of a generator"),
    ],
)
def test_what_code_does_not_show_is_said(source, phrase):
    from instruct.data.seqio.code_fingerprint import CodeFingerprint

    digests = set()
    for _ in range(2):
        namespace = {}
        exec(source, namespace)
        fingerprint = CodeFingerprint()
        fingerprint.add(namespace["step"])
        digests.add(fingerprint.hexdigest())
        assert any(phrase in one for one in fingerprint.unseen), fingerprint.unseen
    assert len(digests) == 1
