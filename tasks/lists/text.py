"""Plain text about lists, to pretrain a small model on before it is trained on tasks.

A text states a list and where its items stand. It has the items of every kind and no question, so
what it teaches (to copy an item, to find one by its place) is common to all operations, whichever
a run is then trained on. A user's own text, in the folder `replica_text` of the data folder, is
mixed in where it exists. Importing this module registers the tasks and the mixture.
"""

import hashlib
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence

from instruct.data.registry import add_mixture, add_task
from instruct.data.sources.documents import DocumentSource, document_task
from instruct.data.sources.files import hashed_parts
from instruct.data.spec import SPLITS
from instruct.prompts.record import Record
from instruct.workspace import Workspace
from tasks.lists.kinds import KINDS
from tasks.lists.operations import listed, numbered

FOLDER = "replica_text"
OBJECTIVES = ("span_corruption", "prefix_lm")
TEXTS = {"train": 20_000, "validation": 200, "test": 200}


def text_about(rng: random.Random, words: Sequence[str]) -> str:
    """A list with numbers, four statements about its items in random order, and the list again."""
    items = list(words[: rng.randint(3, 6)])
    statements = [f"Number {n} is {word}." for n, word in enumerate(items, start=1)]
    statements += [f"{word} is number {n}." for n, word in enumerate(items, start=1)]
    rng.shuffle(statements)
    parts = [f"Items: {listed(items)}.", numbered(items), *statements[:4], f"List: {listed(items)}"]
    return " ".join(parts)


class ListTextSource:
    """Texts about lists of all kinds, the same on every machine."""

    splits: Sequence[str] = SPLITS

    def fingerprint(self, workspace: Workspace) -> str:
        del workspace  # made by program
        made_of = f"{KINDS}\n{TEXTS}\n{inspect.getsource(text_about)}"
        return hashlib.sha256(made_of.encode()).hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None: the program makes the texts."""
        del workspace
        return None

    def records(self, workspace: Workspace, split: str) -> Iterator[Record]:
        """The texts of a split."""
        del workspace
        rng = random.Random(f"text {split}")
        for number in range(TEXTS[split]):
            words = list(KINDS[rng.choice(list(KINDS))])
            rng.shuffle(words)
            yield Record(f"{split}-{number}", {}, text_about(rng, words))


_USERS_SOURCE = DocumentSource(FOLDER, hashed_parts(FOLDER))


def _rates(workspace: Workspace) -> Mapping[str, float]:
    """Half of each objective; the user's text has half of each where there is any."""
    names = ["lists.text"]
    if _USERS_SOURCE.available(workspace) is None:
        names.append("lists.users_text")
    return {f"{name}.{objective}": 1.0 for name in names for objective in OBJECTIVES}


add_task(document_task("lists.text", ListTextSource(), num_examples=TEXTS, license="Apache-2.0"))
add_task(document_task("lists.users_text", _USERS_SOURCE))
add_mixture("lists.pretraining", _rates)
