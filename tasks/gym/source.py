"""Records of one generator of `reasoning_gym`, generated when read, the same on every machine.

Splits are disjoint for two reasons. Each draws from its own range of seeds, and it keeps only items
whose key hashes into its share (the key is the question; or the answer or the equation, if several
questions can ask for it). So no key of one split occurs in another, whatever the number of records.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace
from tasks.gym.fields import Shaped, UnusableError, shape
from tasks.gym.library import load_generator
from tasks.gym.table import ANSWER_KEY, GENERATORS, Generator
from tasks.gym.verify import convinces, metadata_of

SPLITS = ("train", "validation", "test")
# Generators seed an item with (seed + index); the ranges of two splits never meet.
_FIRST_SEED = {"train": 1_000_000_000, "validation": 2_000_000_000, "test": 3_000_000_000}
_EDGES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
# Items of one data set object. Some build all of them at once, some refuse large sizes.
_CHUNK = 500
# A generator has no more questions if this many items in a row bring no new one.
_MAX_MISSES = 2000


class GymSource:
    """Where `instruct.data` gets the records of a gym task from."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.splits: Sequence[str] = SPLITS

    def fingerprint(self, workspace: Workspace) -> str:
        del workspace  # the generators are installed with the program
        row = GENERATORS[self.name]
        described = [row.generator, sorted(row.config.items()), row.key, row.max_question_chars]
        counts = [row.train_records, row.eval_records, row.version]
        return hashlib.sha256(json.dumps([described, counts]).encode()).hexdigest()

    def available(self, workspace: Workspace) -> str | None:
        """None: the generators are installed with the program."""
        del workspace
        return None

    def wanted(self, split: str) -> int:
        """Records that the split holds unless the generator runs out of new questions."""
        row = GENERATORS[self.name]
        return row.train_records if split == "train" else row.eval_records

    def expected(self, split: str) -> int:
        """Records that the split will hold, before any is made."""
        distinct = GENERATORS[self.name].distinct_records
        return min((self.wanted(split), *distinct[SPLITS.index(split) :][:1]))

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """The records of a split, all different, in the order they are generated."""
        del workspace
        count = 0
        for item in self.candidates(split):
            yield item
            count += isinstance(item, Record)
            if count == self.wanted(split):
                return

    def candidates(self, split: str) -> Iterator[Record | Dropped]:
        """Like `records`, without an end unless the questions run out."""
        row = GENERATORS[self.name]
        seen: set[str] = set()
        misses = number = 0
        while misses < _MAX_MISSES:
            seed = _FIRST_SEED[split] + number - number % _CHUNK
            entry = _generate(self.name, seed, number % _CHUNK)
            number += 1
            misses += 1
            question = entry["question"]
            if question in seen or split_of(row.generator, _key(row.key, entry)) != split:
                continue
            seen.add(question)
            if row.max_question_chars and len(question) > row.max_question_chars:
                yield Dropped("question too long")
                continue
            misses = 0
            yield _record(row, f"{split}-{number - 1}", entry)


def split_of(generator: str, key: str) -> str:
    """The split that a key belongs to, whichever row of the generator asks."""
    digest = hashlib.sha256(f"{generator}\n{key}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    return next(split for split, (low, high) in _EDGES.items() if low <= point < high)


def _key(key: str, entry: Mapping[str, Any]) -> str:
    if not key:
        return entry["question"]
    text = entry["answer"] if key == ANSWER_KEY else entry["metadata"][key]
    return str(text).casefold()


def _generate(name: str, seed: int, index: int) -> dict[str, Any]:
    """Item `index` of the data set with that seed.

    Isolates generators that draw from the global random states, or print.
    """
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed + index)
    np.random.seed(seed + index)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return load_generator(name, _CHUNK, seed)[index]
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _record(row: Generator, record_id: str, entry: Mapping[str, Any]) -> Record | Dropped:
    try:
        shaped = shape(row, entry)
    except UnusableError as error:
        return Dropped(str(error))
    metadata = metadata_of(row.name, entry)
    if not convinces(row.name, shaped.answer, shaped.answer, metadata):
        return Dropped("the judge refuses the generator's own answer")
    return Record(
        record_id,
        **dataclasses.asdict(shaped),
        answer_index=_position(shaped) if shaped.options else -1,
        metadata=metadata,
    )


def _position(shaped: Shaped) -> int:
    """Index of the answer among the options; numbers are compared as numbers."""
    if shaped.answer in shaped.options:
        return shaped.options.index(shaped.answer)
    values = [float(option.replace(",", "")) for option in shaped.options]
    distances = [abs(value - float(shaped.answer)) for value in values]
    return distances.index(min(distances))
