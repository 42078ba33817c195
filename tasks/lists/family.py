"""The lists family: an operation on a list of one kind of items is a task.

`lists.<operation>_<kind>` asks for one thing (the last item, the item after another one) of lists
of one kind (animals, numbers); the operation is its category. All parts are known, so how far a
model carries an operation can be measured: to questions, wordings, kinds and operations that it
was not trained on (`mixtures.py`). Importing this module registers the tasks.
"""

import functools
import hashlib
import random
from collections.abc import Iterator, Sequence

from instruct.data.registry import add_task
from instruct.data.spec import SPLITS, TaskSpec
from instruct.eval import metrics
from instruct.prompts.options import OptionStyle
from instruct.prompts.record import Record
from instruct.prompts.template import Template, TemplateSet
from instruct.workspace import Workspace
from tasks.answers import answer_reader
from tasks.lists.kinds import KINDS
from tasks.lists.operations import FRAMES, HELD_OUT, OPERATIONS, TRAINED, UNSEEN_FRAMES, Operation

FAMILY = "lists"
VERSION = "1.0.0"
MODES = {"zs_noopt": 1.0}
EXTRA_MODES = ("fs_noopt", "zs_cot", "zs_inv")
# Sets of wordings beside those of training, and ends of the names of tasks that have them.
UNSEEN_WORDINGS, ONE_WORDING = "_unseen_wordings", "_one_wording"
RECORDS = {"train": 1000, "validation": 100, "test": 100}
_EDGES = {"train": 0.8, "validation": 0.9, "test": 1.0}
# Of the kinds, in the order of KINDS, every fourth is not trained with an operation.
_STRIDE = 4


def held_out_kinds(operation: Operation) -> tuple[str, ...]:
    """The kinds that an operation is evaluated with and not trained with."""
    kinds = tuple(KINDS)
    if operation in HELD_OUT:
        return kinds
    first = TRAINED.index(operation) % _STRIDE
    return kinds[first::_STRIDE]


def trained_kinds(operation: Operation) -> tuple[str, ...]:
    """The other kinds, each operation beginning with another one."""
    kinds = tuple(kind for kind in KINDS if kind not in held_out_kinds(operation))
    start = TRAINED.index(operation) % len(kinds)
    return kinds[start:] + kinds[:start]


def task_name(operation: Operation, kind: str) -> str:
    """Name of a task without its family."""
    return f"{operation.name}_{kind}"


class ListSource:
    """Records of an operation on lists of one kind, the same on every machine.

    A question is in the split that the hash of its fields says, so no two splits share one.
    """

    def __init__(self, operation: str, kind: str) -> None:
        self.operation, self.kind = operation, kind
        self.splits: Sequence[str] = SPLITS

    def fingerprint(self, workspace: Workspace) -> str:
        del workspace  # made by program
        row = f"{self.operation}\n{KINDS[self.kind]}\n{RECORDS}\n{VERSION}"
        return hashlib.sha256(row.encode()).hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None: the program makes the records."""
        del workspace
        return None

    def records(self, workspace: Workspace, split: str) -> Iterator[Record]:
        """The records of a split, all different."""
        del workspace
        rng = random.Random(f"{self.operation} {self.kind} {split}")
        seen: set[str] = set()
        while len(seen) < RECORDS[split]:
            words = list(KINDS[self.kind])
            rng.shuffle(words)
            item = OPERATIONS[self.operation].make(rng, words)
            key = "\n".join(item.fields.values())
            if key in seen or self._split_of(key) != split:
                continue
            seen.add(key)
            index = item.options.index(item.answer) if item.options else -1
            yield Record(
                f"{split}-{len(seen) - 1}",
                item.fields,
                item.answer,
                item.options,
                index,
                rationale=item.rationale,
            )

    def _split_of(self, key: str) -> str:
        digest = hashlib.sha256(f"{self.operation}\n{key}".encode()).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64
        return next(split for split, edge in _EDGES.items() if point < edge)


# ---------------------------------------------------------------- wordings
_STEPS = "Think in steps."
_SOLUTION = "{rationale} Answer: {answer}"
_INVERTED = (
    'The answer to "%s" is {answer}. Write such a list.',
    "Write a list for which the answer is {answer}.\nQuestion: %s",
)


@functools.cache
def template_set(operation: Operation, wordings: str = "") -> TemplateSet:
    """The wordings of an operation: every request in every frame.

    Args:
        wordings: "" for those of training, ONE_WORDING for the first of them, UNSEEN_WORDINGS for
            those that no training mixture shows.
    """
    frames, requests = {
        "": (FRAMES, operation.requests),
        ONE_WORDING: (FRAMES[:1], operation.requests[:1]),
        UNSEEN_WORDINGS: (UNSEEN_FRAMES, operation.unseen_requests),
    }[wordings]
    texts = [
        (f"{number}_{request}", frame % text)
        for number, frame in enumerate(frames)
        for request, text in enumerate(requests)
    ]
    extra = sorted({name for name in ("x", "y", "more") if f"{{{name}}}" in "".join(requests)})
    return TemplateSet(
        name=f"{FAMILY}_{operation.name}{wordings}",
        input_fields=("items", *extra),
        zs_noopt=tuple(Template(f"zs_{name}", text) for name, text in texts),
        zs_opt=tuple(Template(f"opt_{name}", f"{text}\n{{options}}") for name, text in texts),
        cot_opt=tuple(
            Template(f"cot_opt_{name}", f"{text}\n{{options}}\n{_STEPS}", _SOLUTION)
            for name, text in texts
        ),
        cot_noopt=tuple(
            Template(f"cot_{name}", f"{text}\n{_STEPS}", _SOLUTION) for name, text in texts
        ),
        fs_noopt=tuple(
            Template(f"fs_{number}", f"{{items}}\n{text}") for number, text in enumerate(requests)
        ),
        inv=tuple(
            Template(f"inv_{number}_{request}", frame % text, "{items}")
            for number, frame in enumerate(_INVERTED)
            for request, text in enumerate(requests)
        ),
        options_in_question=True,
        # Labels would be a second thing to learn.
        option_style=OptionStyle("Options:", bullet="- "),
    )


# ---------------------------------------------------------------- tasks


def list_task(operation: Operation, kind: str, wordings: str = "") -> TaskSpec:
    """The task of an operation and a kind in one of the sets of wordings of `template_set`."""
    name = task_name(operation, kind) + wordings
    templates = template_set(operation, wordings)
    held_out = ""
    if operation in HELD_OUT:
        held_out = "lists.unseen_categories"
    elif kind in held_out_kinds(operation):
        held_out = "lists.unseen_tasks"
    elif wordings == UNSEEN_WORDINGS:
        held_out = "lists.unseen_wordings"
    return TaskSpec(
        name=f"{FAMILY}.{name}",
        family=FAMILY,
        dataset=name,
        category=operation.name,
        source=ListSource(operation.name, kind),
        templates=templates,
        modes=MODES,
        extra_modes=("zs_opt", *EXTRA_MODES) if operation.has_options else EXTRA_MODES,
        version=VERSION,
        metric_fns=[metrics.exact_match],
        postprocess_fn=answer_reader(templates),
        num_examples=RECORDS,
        held_out=held_out,
        license="Apache-2.0",
        description=f"{operation.name} of a list of {kind}",
    )


for _operation in OPERATIONS.values():
    for _kind in KINDS:
        add_task(list_task(_operation, _kind))
for _operation in TRAINED:
    add_task(list_task(_operation, trained_kinds(_operation)[0], UNSEEN_WORDINGS))
    for _kind in trained_kinds(_operation):
        add_task(list_task(_operation, _kind, ONE_WORDING))
