"""The kinds of faults: each disturbs a copy of the undisturbed life and checks what is left.

A `Trial` draws from its own random numbers, so a kind and a seed repeat a fault.
"""

import dataclasses
import errno
import hashlib
import importlib.util
import json
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.failing_storage import JUMP, KILL, TEAR
from tests.faults import oracle, saves
from tests.faults.commands import HALF_STEPS, STEPS, Base, Place, program
from tests.faults.processes import (
    READS,
    WRITES,
    Ended,
    StorageFault,
    run,
    serving,
    some_call,
    value_of,
)

_STAGING = "instruct.data.stores.staging"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.ESTALE, errno.EROFS, errno.ETIMEDOUT, errno.EACCES)
_JUMPS = (-(10**9), -86_400, -3600, -30, 30, 3600, 86_400, 10**9)


@dataclasses.dataclass
class Trial:
    """One fault in a folder of its own.

    Attributes:
        what: the fault, in words.
        victim: how the disturbed process ended, in words.
        num_faults: injected so far.
        problems: invariants that do not hold; none is the goal.
    """

    base: Base
    folder: pathlib.Path
    draw: random.Random
    what: str = ""
    victim: str = ""
    num_faults: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def check(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def place(self, source: Place | None = None) -> Place:
        """A copy of `prepared`, `half` or `whole`; None: data and prompts only."""
        place = Place(self.folder / "life", self.base.family)
        if source is None:
            place.write_inputs()
        else:
            shutil.copytree(source.folder, place.folder)
            settings = place.answers.with_name(f"{place.answers.name}.settings.json")
            if settings.exists():  # it names the checkpoint's folder, and has a hash of itself
                text = settings.read_text().replace(str(source.folder), str(place.folder))
                document = json.loads(text)
                del document["sha256"]
                text = json.dumps(document, sort_keys=True)
                document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
                settings.write_text(json.dumps(document))
        return place

    def run(
        self,
        argv: Sequence[str],
        fault: StorageFault | None = None,
        kill_after_secs: float | None = None,
        variables: Mapping[str, str] = {},
    ) -> Ended:
        ended = run(program(argv, variables), self.folder, fault, kill_after_secs)
        self.check(ended.orphans == 0, f"{argv[0]} left {ended.orphans} processes")
        return ended

    def disturb(
        self, argv: Sequence[str], fault: StorageFault | None = None, **options: Any
    ) -> Ended:
        """Runs the victim (`run`): it is killed, succeeds, or fails with one clear message."""
        ended = self.run(argv, fault, **options)
        return self.describe(argv[0], ended)

    def describe(self, name: str, ended: Ended) -> Ended:
        """Notes how a disturbed process ended, and checks its message."""
        killed = ended.status == -signal.SIGKILL
        self.victim += f"{name} was killed; " if killed else f"{name} ended with {ended.status}; "
        if not killed:
            self.check_message(name, ended)
        return ended

    def check_message(self, mode: str, ended: Ended) -> None:
        """One message that names a file of this trial and the fix; the status says it failed."""
        text = ended.text
        self.check("Traceback" not in text, f"{mode} printed a traceback: {text[-1500:]}")
        if ended.status == 0:
            return
        self.check(ended.status in (1, 2), f"{mode} ended with {ended.status}: {text[-1500:]}")
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        failures = [line for line in text.splitlines() if "failed" in line]
        one = len(errors) == 1 or (not errors and bool(failures))
        self.check(one, f"{mode} printed {len(errors)} messages: {text[-1500:]}")
        message = "\n".join(errors or failures)
        self.check(str(self.folder) in message, f"{mode}'s message names no file: {message}")
        fixes = ("again", "delete", "remove", "restore", "choose", "give", "make")
        self.check(
            any(word in message.lower() for word in fixes), f"{mode} offers no fix: {message}"
        )
        self.victim += f"said {message[:300]!r}; "

    def recover(self, argv: Sequence[str], variables: Mapping[str, str] = {}) -> Ended:
        """The same command without a fault; it must succeed."""
        ended = self.run(argv, variables=variables)
        self.check(ended.status == 0, f"{argv[0]} did not recover: {ended.text[-1500:]}")
        self.check("Traceback" not in ended.text, f"{argv[0]}: a traceback: {ended.text[-1500:]}")
        return ended

    def a_kill(
        self, command: str, watched: pathlib.Path, in_process: bool = True, share: float = 1.0
    ) -> dict[str, Any]:
        """Arguments of `run` that kill a command at a random instant.

        Args:
            in_process: the command makes its storage calls itself, not in processes of its own.
            share: of the undisturbed command's calls that are left to do.
        """
        self.num_faults += 1
        kind = self.draw.choice(("time", "call", "call", "tear")) if in_process else "time"
        if kind == "time":
            secs = self.draw.uniform(0.1, 1.1) * self.base.secs[command]
            self.what += f"kill -9 of {command} after {secs:.2f} s; "
            return {"kill_after_secs": secs}
        calls = max(1, round(share * self.base.calls[command]))
        if kind == "call":
            call = some_call(self.draw, calls)
            self.what += f"kill -9 of {command} at storage call {call} of {calls}; "
            return {"fault": StorageFault(str(watched), WRITES, KILL, call)}
        call = some_call(self.draw, calls // 4)
        self.what += f"kill -9 of {command} within write {call}; "
        return {"fault": StorageFault(str(watched), "write", TEAR, call)}

    def an_error(self, command: str, watched: pathlib.Path, calls: int = 0) -> StorageFault:
        """A storage fault of a command: on one of its writes, or on one of `calls` reads."""
        self.num_faults += 1
        number = self.draw.choice(_BROKEN if calls else (*_FULL, *_BROKEN))
        for_ever = self.draw.random() < 0.5
        kinds, calls = (READS, calls) if calls else (WRITES, self.base.calls[command])
        call = some_call(self.draw, calls)
        name, lasting = errno.errorcode[number], " and all later ones" if for_ever else ""
        verb = "reading" if kinds == READS else "writing"
        self.what += f"{name} at {verb} call {call}{lasting} of {command}; "
        return StorageFault(str(watched), kinds, number, call, for_ever)

    def damage(self, file: pathlib.Path) -> None:
        """Flips a bit, cuts, zeroes, empties or deletes a file."""
        self.num_faults += 1
        content = bytearray(file.read_bytes())
        style = self.draw.choice(("flip", "flip", "flip", "cut", "zeros", "empty", "delete"))
        at = self.draw.randrange(max(1, len(content)))
        if not content:
            style = "delete"
        if style == "flip":
            content[at] ^= 1 << self.draw.randrange(8)
        elif style == "zeros":
            content[at : at + 512] = bytes(len(content[at : at + 512]))
        self.what += f"{style} {file.relative_to(self.folder)} at byte {at}; "
        if style == "delete":
            file.unlink()
        else:
            file.write_bytes(content[: {"cut": at, "empty": 0}.get(style)])

    # Invariants

    def look(self, function: Callable):
        """A value of the oracle, which starts threads, from a process of its own."""
        return value_of(function, self.folder)

    def check_checkpoints(
        self, folder: pathlib.Path, since: int, expected: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Every folder with a step's name is whole, and there is one of `since` or later.

        `expected`: step -> `oracle.whole_checkpoint`; None: those of the undisturbed run.
        """
        wanted = self.base.run["checkpoints"] if expected is None else expected
        steps = oracle.steps(folder)
        read = lambda: [oracle.whole_checkpoint(folder / str(step)) for step in steps]  # noqa: E731
        for step, found in zip(steps, self.look(read) if steps else []):
            problem = found if isinstance(found, str) else "it differs from the undisturbed run's"
            same = found == wanted.get(str(step))
            self.check(same, f"checkpoint {step} counts as one, but: {problem}")
        self.check(max(steps, default=0) >= since, f"checkpoints {steps} lack {since}")
        return steps

    def check_finished(self, place: Place, from_step: int | None = None) -> None:
        """The run equals the undisturbed one, and nothing else lies in its folder."""
        expected, run_dir = self.base.run, place.model_dir
        try:
            info = json.loads((run_dir / "run.json").read_text())
            rows, mixture = oracle.metrics(run_dir), oracle.mixture(run_dir)
        except (OSError, ValueError) as error:
            self.problems.append(f"a file of the finished run cannot be read: {error}")
            return
        self.check_checkpoints(run_dir / "checkpoints", STEPS)
        steps = oracle.steps(run_dir / "checkpoints")
        self.check(steps == expected["steps"], f"checkpoints {steps} stay, not {expected['steps']}")
        self.check(rows == expected["metrics"], "metrics.jsonl differs from the undisturbed run's")
        self.check(
            mixture == expected["mixture"], "mixture.json differs from the undisturbed run's"
        )
        for name in ("config", "model"):
            same = info.get(name) == expected[name]
            self.check(same, f"run.json has another {name} than the undisturbed run's")
        ended = (info.get("outcome"), info.get("step"))
        self.check(ended == ("finished", STEPS), f"run.json ends with {ended}")
        if from_step is not None and from_step < STEPS:
            found = info["sessions"][-1]["from_step"]
            self.check(found == from_step, f"the run resumed from {found}, not {from_step}")
        left = oracle.run_leftovers(run_dir)
        self.check(not left, f"leftover files: {left[:5]}")

    def check_results(self, place: Place, steps: Sequence[int]) -> None:
        expected = {
            name: lines
            for name, lines in self.base.use["results"].items()
            if any(f"/step_{step}/" in name for step in steps)
        }
        found = oracle.results(place.model_dir)
        for name, lines in expected.items():
            self.check(found.get(name) == lines, f"{name} differs from the undisturbed run's")
        left = oracle.run_leftovers(place.model_dir)
        left = [name for name in left if name not in ("report.html", "report.md")]
        self.check(not left, f"leftover files: {left[:5]}")

    def check_answers(self, place: Place) -> None:
        text = place.answers.read_text() if place.answers.exists() else ""
        self.check(text == self.base.use["answers"], "answers differ from the undisturbed ones")
        names = sorted(path.name for path in place.answers.parent.iterdir())
        wanted = ["answers.jsonl", "answers.jsonl.settings.json"]
        self.check(names == wanted, f"leftover files: {names}")

    def check_stores(self, folder: pathlib.Path, complete: bool) -> None:
        """What looks like a store is the undisturbed one; all are there if `complete`."""
        found, expected = oracle.stores(folder), self.base.stores["hashes"]
        manifests = [name for name in found if name.endswith("/manifest.json")]
        shown = [name for name in manifests if "/." not in name]  # not of a building folder
        folders = [name.rpartition("/")[0] for name in shown]
        for name, value in expected.items():
            if name.rpartition("/")[0] in folders:
                self.check(found.get(name) == value, f"store file {name} differs")
        if complete:
            self.check(found == expected, f"stores {sorted(set(found) ^ set(expected))[:4]} differ")
            left = oracle.store_leftovers(folder)
            self.check(not left, f"leftover files: {left[:5]}")


# Kills


def kill_train(trial: Trial) -> None:
    """Training from the start or from step 4 is killed some times, then ends as undisturbed."""
    assert trial.base.run
    fresh = trial.draw.random() < 0.4
    place = trial.place(trial.base.prepared if fresh else trial.base.half)
    steps = [0 if fresh else HALF_STEPS]
    folder = place.model_dir / "checkpoints"
    for _ in range(trial.draw.randint(1, 4)):
        watched = trial.draw.choice((place.model_dir, folder))
        command = "train" if max(steps, default=0) < HALF_STEPS else "resume"
        ended = trial.disturb(place.train(), **trial.a_kill(command, watched))
        steps = trial.check_checkpoints(folder, max(steps, default=0))
        if ended.status == 0:
            break
    trial.recover(place.train())
    trial.check_finished(place, max(steps, default=0))


def _save(trial: Trial, fault: StorageFault | None = None, **options: Any) -> Ended:
    folder = trial.folder / "checkpoints"
    return run(lambda: saves.resume_and_save(folder), trial.folder, fault, **options)


def _finish_saves(trial: Trial, newest: int) -> None:
    """The next start resumes from `newest`, saves the other steps and leaves nothing else."""
    folder, expected = trial.folder / "checkpoints", trial.base.saves["checkpoints"]
    ended = _save(trial)
    text = ended.text[-1500:]
    trial.check(ended.status == 0 and "Traceback" not in text, f"no recovery: {text}")
    trial.check(f"resumed {newest}" in ended.out, f"resumed not from {newest}: {text}")
    trial.check_checkpoints(folder, saves.LAST, expected)
    names = [path.name for path in folder.iterdir() if not path.name.startswith("damaged-")]
    wanted = [str(saves.LAST - 1), str(saves.LAST)]
    trial.check(sorted(names) == wanted, f"the folder holds {sorted(names)}, not {wanted}")


def kill_save(trial: Trial) -> None:
    """Saves are killed some times; each time all checkpoints are whole, and none is lost."""
    folder, expected = trial.folder / "checkpoints", trial.base.saves["checkpoints"]
    newest = 0
    for _ in range(trial.draw.randint(1, 4)):
        share = 1 - newest / saves.LAST
        ended = _save(trial, **trial.a_kill("save", folder, share=share))
        trial.describe("save", ended)
        newest = max(trial.check_checkpoints(folder, newest, expected), default=0)
        if ended.status == 0:
            break
    _finish_saves(trial, newest)


def storage_save(trial: Trial) -> None:
    """Saves meet failing storage some times: retried, or refused with the older ones intact."""
    folder, expected = trial.folder / "checkpoints", trial.base.saves["checkpoints"]
    newest = 0
    for _ in range(trial.draw.randint(1, 3)):
        ended = _save(trial, trial.an_error("save", folder))
        trial.describe("save", ended)
        newest = max(trial.check_checkpoints(folder, newest, expected), default=0)
        if ended.status == 0:
            break
    _finish_saves(trial, newest)


def kill_prepare(trial: Trial) -> None:
    """A killed build leaves whole stores or none; the next one completes and cleans up."""
    assert trial.base.stores
    place = trial.place()
    workers = 2 if trial.draw.random() < 0.15 else 1
    trial.what = f"{workers} worker(s); "
    for _ in range(trial.draw.randint(1, 3)):
        kill = trial.a_kill("prepare", place.stores, in_process=workers == 1)
        ended = trial.disturb(place.prepare(workers), **kill)
        trial.check_stores(place.stores, complete=False)
        if ended.status == 0:
            break
    trial.recover(place.prepare())
    trial.check_stores(place.stores, complete=True)


def kill_stage(trial: Trial) -> None:
    """Copying the stores of a bucket to this machine is killed; the next start completes it."""
    assert trial.base.stage is not None
    place = trial.place()
    with serving(trial.base.prepared.serve_stores, trial.folder) as emulator:
        variables = place.stage_variables(emulator)
        for _ in range(trial.draw.choice((1, 1, 2))):
            kill = trial.a_kill("stage", place.staged)
            ended = trial.disturb(place.stage(), variables=variables, **kill)
            trial.check_stores(place.staged, complete=False)
            if ended.status == 0:
                break
        trial.recover(place.stage(), variables)
    trial.check_stores(place.staged, complete=True)


def kill_eval(trial: Trial) -> None:
    place = trial.place(trial.base.whole)
    shutil.rmtree(place.model_dir / "eval")
    for _ in range(trial.draw.randint(1, 3)):
        kill = trial.a_kill("eval", place.model_dir / "eval")
        if trial.disturb(place.evaluate("(6, 8)"), **kill).status == 0:
            break
    trial.recover(place.evaluate("(6, 8)"))
    trial.check_results(place, (6, 8))


def kill_infer(trial: Trial) -> None:
    place = trial.place(trial.base.whole)
    shutil.rmtree(place.answers.parent)
    for _ in range(trial.draw.randint(1, 3)):
        kill = trial.a_kill("infer", place.answers.parent)
        if trial.disturb(place.infer(), **kill).status == 0:
            break
    trial.recover(place.infer())
    trial.check_answers(place)


# Damaged files


def _some_file(trial: Trial, folder: pathlib.Path) -> pathlib.Path:
    return trial.draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def damage_checkpoint(trial: Trial) -> None:
    """A damaged newest checkpoint costs its steps only; training, `eval` or `infer` say so."""
    mode = trial.draw.choice(("train", "train", "train", "eval", "infer"))
    place = trial.place(trial.base.half if mode == "train" else trial.base.whole)
    newest = HALF_STEPS if mode == "train" else STEPS
    folder = place.model_dir / "checkpoints" / str(newest)
    trial.damage(_some_file(trial, folder))
    said = f"{folder} is damaged"
    if mode == "train":
        ended = trial.disturb(place.train())
        info = json.loads((place.model_dir / "run.json").read_text())
        start = info["sessions"][-1]["from_step"]
        trial.victim += f"resumed from {start}; "
        trial.check(start == HALF_STEPS or said in ended.err, "a lost step is not reported")
        trial.check(start in (2, HALF_STEPS), f"resumed from {start}")
        trial.check_finished(place)
    elif mode == "eval":
        shutil.rmtree(place.model_dir / "eval")
        ended = trial.disturb(place.evaluate())
        used = [step for step in (6, STEPS) if list(place.model_dir.glob(f"eval/*/step_{step}"))]
        trial.victim += f"evaluated {used}; "
        trial.check(len(used) == 1, f"evaluated {used}")
        trial.check(used == [STEPS] or said in ended.err, "an older checkpoint is not reported")
        trial.check_results(place, used)
    else:
        shutil.rmtree(place.answers.parent)
        ended = trial.disturb(place.infer())
        if said in ended.err:
            trial.victim += "answered with an older checkpoint; "
            trial.check("is used instead" in ended.err, "the checkpoint used is not named")
        else:
            trial.check_answers(place)


def damage_store(trial: Trial) -> None:
    """A damaged store is refused by name, rebuilt, or harmless."""
    mode = trial.draw.choice(("train", "eval"))
    place = trial.place(trial.base.half if mode == "train" else trial.base.whole)
    store = trial.draw.choice(sorted(path.parent for path in place.stores.rglob("manifest.json")))
    trial.damage(_some_file(trial, store))
    shutil.rmtree(place.model_dir / "eval", ignore_errors=True)
    argv = place.train() if mode == "train" else place.evaluate("(6, 8)")
    ended = trial.disturb(argv)
    if ended.status != 0:
        trial.check(str(store) in ended.text, f"the message does not name {store}")
        shutil.rmtree(store, ignore_errors=True)  # as the message says
        trial.recover(argv)
    if mode == "train":
        trial.check_finished(place)
    else:
        trial.check_results(place, (6, 8))


def damage_results(trial: Trial) -> None:
    """A damaged results file is never resumed from nor reported as if it were whole."""
    place = trial.place(trial.base.whole)
    file = _some_file(trial, place.model_dir / "eval")
    trial.damage(file)
    if trial.draw.random() < 0.3:
        trial.disturb(place.report())
    ended = trial.disturb(place.evaluate("(6, 8)"))
    if ended.status != 0:
        trial.check(str(file) in ended.text, f"the message does not name {file}")
        file.unlink()  # as the message says
        trial.recover(place.evaluate("(6, 8)"))
    trial.check_results(place, (6, 8))


def damage_answers(trial: Trial) -> None:
    """A damaged output of `infer` is refused or completed."""
    place = trial.place(trial.base.whole)
    file = _some_file(trial, place.answers.parent)
    trial.damage(file)
    ended = trial.disturb(place.infer())
    if ended.status != 0:
        trial.check(str(place.answers) in ended.text, f"the message does not name {place.answers}")
        shutil.rmtree(place.answers.parent)  # as the message says
        trial.recover(place.infer())
    trial.check_answers(place)


def damage_records(trial: Trial) -> None:
    """Files beside the checkpoints are restored from them."""
    place = trial.place(trial.base.half)
    names = ("run.json", "run.json", "metrics.jsonl", "metrics.jsonl", "mixture.json")
    name = trial.draw.choice((*names, "operative.gin", "config.gin"))
    trial.damage(place.model_dir / name)
    trial.disturb(place.train())
    trial.check_finished(place, HALF_STEPS)


def damage_save(trial: Trial) -> None:
    """A damaged newest checkpoint is whole enough to resume from, or set aside with a message."""
    folder = trial.folder / "checkpoints"
    assert trial.base.saves
    saved = trial.base.folder / "saves" / "checkpoints"
    newest = trial.draw.randint(2, saves.LAST - 1)
    for step in range(1, newest + 1):
        shutil.copytree(saved / str(step), folder / str(step))
    trial.damage(_some_file(trial, folder / str(newest)))
    ended = trial.describe("save", _save(trial))
    if f"resumed {newest}" in ended.out:
        trial.victim += "harmless; "
    else:
        said = f"{folder / str(newest)} is damaged"
        trial.check(said in ended.out, f"a lost step is not reported: {ended.text[-1500:]}")
        trial.check(f"resumed {newest - 1}" in ended.out, f"more is lost: {ended.text[-1500:]}")
    _finish_saves(trial, saves.LAST)


# Failing storage


def storage_train(trial: Trial) -> None:
    place = trial.place(trial.base.half)
    run_dir = place.model_dir
    watched, reads = trial.draw.choice(
        ((run_dir, 0), (run_dir / "checkpoints", 0), (run_dir, 120), (place.stores, 40))
    )
    trial.disturb(place.train(), trial.an_error("resume", watched, reads))
    steps = trial.check_checkpoints(run_dir / "checkpoints", HALF_STEPS)
    trial.recover(place.train())
    trial.check_finished(place, max(steps, default=0))


def storage_prepare(trial: Trial) -> None:
    assert trial.base.stores
    place = trial.place()
    trial.disturb(place.prepare(), trial.an_error("prepare", place.stores))
    trial.check_stores(place.stores, complete=False)
    trial.recover(place.prepare())
    trial.check_stores(place.stores, complete=True)


def storage_eval(trial: Trial) -> None:
    place = trial.place(trial.base.whole)
    shutil.rmtree(place.model_dir / "eval")
    watched, reads = trial.draw.choice(
        ((place.model_dir, 0), (place.model_dir, 80), (place.stores, 40))
    )
    trial.disturb(place.evaluate("(6, 8)"), trial.an_error("eval", watched, reads))
    trial.recover(place.evaluate("(6, 8)"))
    trial.check_results(place, (6, 8))


def storage_infer(trial: Trial) -> None:
    place = trial.place(trial.base.whole)
    shutil.rmtree(place.answers.parent)
    trial.disturb(place.infer(), trial.an_error("infer", place.answers.parent))
    trial.recover(place.infer())
    trial.check_answers(place)


# Clocks


def clock_jump(trial: Trial) -> None:
    """The wall clock jumps while a run trains or is evaluated; nothing depends on it."""
    trial.num_faults += 1
    jump = trial.draw.choice(_JUMPS)
    mode = trial.draw.choice(("train", "train", "eval"))
    place = trial.place(trial.base.half if mode == "train" else trial.base.whole)
    call = some_call(trial.draw, trial.base.calls["resume" if mode == "train" else "eval"])
    trial.what = f"the clock jumps by {jump} s at storage call {call} of {mode}; "
    fault = StorageFault(str(place.model_dir), WRITES, JUMP, call, jump_secs=jump)
    if mode == "train":
        ended = trial.disturb(place.train(), fault)
        trial.check(ended.status == 0, "training failed")
        trial.check_finished(place, HALF_STEPS)
        rows = (place.model_dir / "metrics.jsonl").read_text().splitlines()
        secs = [json.loads(row).get("step_secs", 1) for row in rows]
        trial.check(all(0 < value < 60 for value in secs), f"seconds of steps: {secs}")
    else:
        shutil.rmtree(place.model_dir / "eval")
        ended = trial.disturb(place.evaluate("(6, 8)"), fault)
        trial.check(ended.status == 0, "evaluation failed")
        trial.check_results(place, (6, 8))


# Kind -> (function, its share). Those without a training loop cost a tenth.
KINDS: dict[str, tuple[Callable[[Trial], None], int]] = {
    "kill-save": (kill_save, 8),
    "kill-train": (kill_train, 3),
    "kill-prepare": (kill_prepare, 5),
    # Copying needs STORE_DIR in a bucket.
    **({"kill-stage": (kill_stage, 4)} if importlib.util.find_spec(_STAGING) else {}),
    "kill-eval": (kill_eval, 2),
    "kill-infer": (kill_infer, 2),
    "damage-save": (damage_save, 8),
    "damage-checkpoint": (damage_checkpoint, 2),
    "damage-store": (damage_store, 2),
    "damage-results": (damage_results, 2),
    "damage-answers": (damage_answers, 2),
    "damage-records": (damage_records, 2),
    "storage-save": (storage_save, 5),
    "storage-train": (storage_train, 2),
    "storage-prepare": (storage_prepare, 3),
    "storage-eval": (storage_eval, 1),
    "storage-infer": (storage_infer, 2),
    "clock": (clock_jump, 2),
}
