"""Raw dialogs as records of the family `dialog`: the turns so far (`dialog`), and the next one.

Each dialog gives one record, which asks for one turn. A hash of the dialog's id draws the turn, so
it does not depend on the dialog's position in a file.

This module imports no TensorFlow, since worker processes that read records import it.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.sources.files import FileSource, Part, Row, hash_unit, hashed_parts, keyed
from instruct.prompts.dialog import dialog_text
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

FINGERPRINT_MODULE = "tasks.dialog_sources"  # fingerprints of stores name functions so

MAX_PAIRS = 20  # a reply is one of the first 20, as in the Flan Collection
MAX_TURNS = 20  # a turn of a task dialog is one of the 20 after the first
MIN_QRECC_TURN = 7  # earlier turns of a conversation are contained in its later ones


def next_turn(identity: str, turns: Sequence[str], positions: Sequence[int]) -> Record | Dropped:
    """The record that asks for one turn of `turns`.

    Args:
        identity: the dialog's id; becomes the record's and draws the turn.
        turns: the whole dialog, two speakers in turn.
        positions: indices that may be asked for, each above 0.
    """
    if not positions:
        return Dropped("too few turns")
    position = positions[int(hash_unit(f"turn of {identity}") * len(positions))]
    if not all(turn.strip() for turn in turns[: position + 1]):
        return Dropped("a turn is empty")
    answer = " ".join(turns[position].split())
    return Record(identity, {"dialog": dialog_text(turns[:position])}, answer)


def _replies(turns: Sequence[str]) -> range:
    """The turns of the second speaker: 1, 3, 5, ..."""
    return range(1, len(turns), 2)[:MAX_PAIRS]


def _texts(values: Any) -> list[str]:
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]


def wiki_dialog_record(row: Mapping[str, Any], default_id: str) -> Record | Dropped:
    """A row of TFDS wiki_dialog: an imagined reader asks, a passage of Wikipedia answers.

    Drops the first utterance, which only names the topic of the article; after it the reader speaks
    first, and the record asks for an answer of the passage.
    """
    (pid,) = _texts([row["pid"]])
    turns = _texts(row["utterances"])[1:]
    return next_turn(f"wiki_dialog-{pid}" if pid else default_id, turns, _replies(turns))


def qrecc_record(row: Mapping[str, Any], default_id: str) -> Record | Dropped:
    """A row of TFDS q_re_cc: `context` holds the questions and answers before a question.

    Only rows late in a conversation count, as the others are contained in them.
    """
    del default_id
    conversation, turn = int(row["conversation_id"]), int(row["turn_id"])
    if turn < MIN_QRECC_TURN:
        return Dropped("early turn of a conversation")
    turns = _texts(row["context"])
    return next_turn(f"qrecc-{conversation}-{turn}", turns, _replies(turns))


@dataclasses.dataclass(frozen=True)
class TaskmasterSource(FileSource):
    """Taskmaster-1, -2 and -3 (Byrne et al. 2019), files as published:

        taskmaster/TM-1-2019/self-dialogs.json, woz-dialogs.json
        taskmaster/TM-2-2020/data/*.json
        taskmaster/TM-3-2020/data/*.json

    Each file is a JSON list of `{"conversation_id", "utterances": [{"speaker", "text"}]}`.
    Consecutive utterances of one speaker become one turn. What the assistant says before the user
    is dropped, so that the user always speaks first. A record may ask for either speaker's turn.

    Attributes:
        patterns: the files, relative to the data folder.
    """

    name: str = "taskmaster"
    parts: Mapping[str, Part] = dataclasses.field(
        default_factory=lambda: hashed_parts("taskmaster")
    )
    origin: str = "https://github.com/google-research-datasets/Taskmaster"
    patterns: tuple[str, ...] = (
        "taskmaster/TM-1-2019/self-dialogs.json",
        "taskmaster/TM-1-2019/woz-dialogs.json",
        "taskmaster/TM-2-2020/data/*.json",
        "taskmaster/TM-3-2020/data/*.json",
    )

    def paths(self, workspace: Workspace) -> tuple[Path, ...]:
        """The existing files, sorted; a pattern itself where no file matches it."""
        folder = workspace.data_dir
        files = (sorted(folder.glob(name)) or [folder / name] for name in self.patterns)
        return tuple(itertools.chain.from_iterable(files))

    def rows(self, path: Path) -> Iterator[Row]:
        """Every dialog of every file; `path` is the folder that the parts name."""
        for file in self.paths(Workspace(data_dir=path.parent)):
            try:
                dialogs = json.loads(file.read_bytes().decode("utf-8-sig"))
            except (ValueError, RecursionError):  # no JSON, or nested too deep
                yield Dropped("file is not JSON"), file.name
                continue
            if not isinstance(dialogs, list):
                yield Dropped("file is not a list of dialogs"), file.name
                continue
            for number, dialog in enumerate(dialogs):
                default_id = f"{file.parts[-2]}-{file.stem}-{number}"
                yield keyed(taskmaster_record(dialog, default_id), default_id.encode())


def taskmaster_record(dialog: Any, default_id: str) -> Record | Dropped:
    """One Taskmaster dialog."""
    if not isinstance(dialog, dict) or not isinstance(dialog.get("utterances"), list):
        return Dropped("dialog has no utterances")
    identity = dialog.get("conversation_id") or dialog.get("conversationId") or default_id
    speakers: list[str] = []
    turns: list[str] = []
    for utterance in dialog["utterances"]:
        try:
            speaker, text = str(utterance["speaker"]).casefold(), str(utterance["text"]).strip()
        except (KeyError, TypeError):
            return Dropped("utterance has no speaker or text")
        if not text or (not turns and speaker != "user"):
            continue
        if speakers and speakers[-1] == speaker:
            turns[-1] = f"{turns[-1]} {text}"
        else:
            speakers.append(speaker)
            turns.append(text)
    if not set(speakers) <= {"user", "assistant"}:
        return Dropped("more than two speakers")
    return next_turn(str(identity), turns, range(1, len(turns))[:MAX_TURNS])
