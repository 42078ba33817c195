"""How fast text becomes packed batches, beside SeqIO's own pipeline on the same texts.

    PYTHONPATH=. python benchmarks/input_pipeline.py [--tasks 20 1836] [--workers 0 1 2] [--seqio]

All tasks together hold `--records` made-up examples (question of log-normal length, short answer;
about 335 tokens together with the gym vocabulary), packed to 512/128 in batches of 16. Ours reads
records, draws a template, renders, tokenises and packs best-fit; SeqIO reads lines of text with one
fixed template, tokenises and packs next-fit. Each variant runs in a process of its own, so that
start-up and memory are its own; SeqIO's opens one pipeline a task, which at 1,836 tasks takes
minutes and tens of GB, so it has a time limit (`--limit_secs`). `per core` divides by the CPU
seconds that the process and its workers used. The last line for a number of tasks is JSON: every
figure, shares of the CPU time by part, and the rate of two workers divided by that of one. A
variant without a result is named on standard error, and the exit status is 1. Whether memory grows:
`--workers 1 --secs 600`.
"""

import argparse
import collections
import dataclasses
import functools
import inspect
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instruct.prompts.record import Record
from instruct.workspace import Workspace

LENGTHS = {"inputs": 512, "targets": 128}
BATCH_ROWS = 16
MEDIAN_WORDS, MEDIAN_ANSWER_WORDS = 190, 30
WORDS = re.findall(
    r"\w+",
    """
the a of to and in is it you that he was for on are with as his they be at one have this number
question answer between because people school river water morning travel city music yellow seven
twelve forty market garden window doctor story letter simple history energy
""",
)


def texts(task: int, count: int) -> Iterator[tuple[str, str]]:
    """(question, answer) pairs, always the same."""
    draw = random.Random(task)
    for number in range(count):
        long = min(350, int(MEDIAN_WORDS * draw.lognormvariate(0, 0.4)) + 1)
        short = min(85, int(MEDIAN_ANSWER_WORDS * draw.lognormvariate(0, 0.6)) + 1)
        question = " ".join(draw.choices(WORDS, k=long))
        yield f"{question} {number}?", " ".join(draw.choices(WORDS, k=short))


@dataclasses.dataclass(frozen=True)
class MadeUpSource:
    """`count` records of a task."""

    task: int
    count: int
    splits: tuple[str, ...] = ("train",)

    def available(self, workspace: Workspace) -> None:
        """Always there."""

    def fingerprint(self, workspace: Workspace) -> str:
        return repr(self)

    def records(self, workspace: Workspace, split: str) -> Iterator[Record]:
        for number, (question, answer) in enumerate(texts(self.task, self.count)):
            yield Record(str(number), {"question": question}, answer)


def run_ours(arguments: argparse.Namespace, folder: Path, variant: str) -> dict[str, float]:
    """Our feed, from prepared stores: its rates with a number of workers, or its "shares"."""
    from instruct.data.config import DataConfig
    from instruct.data.feed.pipeline import TrainFeed
    from instruct.data.spec import Leaf, Resolved, TaskSpec
    from instruct.data.stores.store import spec_key, store_path
    from instruct.data.stores.writing import write_store
    from instruct.prompts.template import Template, TemplateSet

    workspace = Workspace(store_dir=folder / "stores")
    wordings = ("{question}\nAnswer:", "Q: {question}", "Read this: {question}", "{question}")
    templates = TemplateSet(
        "bench",
        ("question",),
        truncate_field="question",
        zs_noopt=tuple(Template(f"t{i}", text) for i, text in enumerate(wordings)),
        fs_noopt=tuple(Template(f"t{i}", text) for i, text in enumerate(wordings)),
    )
    leaves = []
    for task in range(arguments.num_tasks):
        source = MadeUpSource(task, arguments.records // arguments.num_tasks)
        spec = TaskSpec(f"b.t{task}", "b", f"t{task}", "c", source, templates)
        path = store_path(workspace, spec_key(spec), "train")
        records = source.records(workspace, "train")
        write_store(
            path, records, task=spec.name, kind="records", version="1", source_fingerprint=""
        )
        name = spec.leaf_name(arguments.mode)
        share, count = 1 / arguments.num_tasks, source.count
        fields = (name, share, spec.name, arguments.mode, "b", spec.dataset, "c", "1")
        leaves.append(Leaf(*fields, count, ("train",), spec))
    workers = 0 if variant == "shares" else int(variant)
    config = DataConfig(
        "bench", LENGTHS, BATCH_ROWS, vocabulary=arguments.vocabulary, workers=workers
    )
    resolved = Resolved("bench", "train", tuple(leaves))
    if variant == "shares":
        return cpu_shares(workspace, config, resolved)
    started = time.perf_counter()
    feed = TrainFeed(workspace, config, resolved)
    result = measure((batch for batch, _ in feed), started, arguments.secs)
    feed.close()
    return result


class PartClock:
    """CPU seconds (of all threads) in some functions, each without those that it calls."""

    def __init__(self) -> None:
        self.secs: dict[str, float] = collections.defaultdict(float)
        self._stack, self._since = ["other"], time.process_time()

    def _switch(self, change_fn: Callable[[], object]) -> None:
        now = time.process_time()
        self.secs[self._stack[-1]] += now - self._since
        self._since = now
        change_fn()

    def time(self, owner: Any, name: str, part: str) -> None:
        """Counts the function `name` of a class or module as a part."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            self._switch(lambda: self._stack.append(part))
            try:
                return function(*args, **options)
            finally:
                self._switch(self._stack.pop)

        # A class method is bound already.
        setattr(owner, name, staticmethod(timed) if inspect.ismethod(function) else timed)


def cpu_shares(workspace: Workspace, config: Any, resolved: Any) -> dict[str, float]:
    """Shares of the CPU time of ten windows, by part."""
    from instruct.data.feed import window
    from instruct.data.feed.leaves import make_builder
    from instruct.data.feed.rendering import ExampleRenderer
    from instruct.data.stores.store import Store
    from instruct.data.vocab import load_vocabulary

    builder, _ = make_builder(workspace, config, resolved)
    clock = PartClock()
    clock.time(Store, "read", "reading")
    clock.time(Record, "from_json", "parsing")
    clock.time(ExampleRenderer, "render", "rendering")
    clock.time(type(load_vocabulary(config.vocabulary)), "encode_array", "tokenising")
    clock.time(window, "pack", "packing")
    builder.build(0)
    clock.secs.clear()
    for number in range(1, 11):
        builder.build(number)
    total = sum(clock.secs.values())
    return {part: round(secs / total, 3) for part, secs in clock.secs.items()}


def run_seqio(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """SeqIO's pipeline over the same texts: shuffle buffers, sampling, next-fit packing."""
    import seqio
    import tensorflow as tf

    from instruct.data.seqio.bridge import seqio_vocabulary

    @seqio.map_over_dataset
    def parse(line):
        parts = tf.strings.split(line, "\t")
        return {"inputs": tf.strings.join([parts[0], "\nAnswer:"]), "targets": parts[1]}

    vocabulary = seqio_vocabulary(arguments.vocabulary)
    features = {key: seqio.Feature(vocabulary, add_eos=True) for key in LENGTHS}
    names = []
    for task in range(arguments.num_tasks):
        file = folder / f"{task}.tsv"
        count = arguments.records // arguments.num_tasks
        file.write_text("".join(f"{a}\t{b}\n" for a, b in texts(task, count)))
        names.append(f"bench_{task}")
        seqio.TaskRegistry.add(
            names[-1],
            source=seqio.TextLineDataSource({"train": str(file)}),
            preprocessors=[
                parse,
                functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
                seqio.preprocessors.append_eos_after_trim,
            ],
            output_features=features,
        )
    seqio.MixtureRegistry.add("bench", names, default_rate=1.0)
    started = time.perf_counter()
    dataset = seqio.get_dataset(
        "bench",
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=True),
        shuffle=True,
        num_epochs=None,
        verbose=False,
        seed=0,
        batch_size=BATCH_ROWS,
    )
    return measure(dataset.as_numpy_iterator(), started, arguments.secs)


def measure(batches: Iterator[dict], started: float, secs: float) -> dict[str, float]:
    """Rates over `secs` after the first batch and two seconds of warming up."""
    next(batches)
    first = time.perf_counter() - started
    warm = time.perf_counter()
    while time.perf_counter() - warm < 2:
        next(batches)
    examples = tokens = rows = 0
    fill = {"encoder": 0.0, "decoder": 0.0}
    begun, cpu, memory = time.perf_counter(), cpu_secs(), memory_mb("VmRSS")
    while time.perf_counter() - begun < secs:
        batch = next(batches)
        rows += BATCH_ROWS
        examples += int(batch["decoder_segment_ids"].max(axis=1).sum())
        for side in fill:
            segments = batch[f"{side}_segment_ids"]
            used = np.count_nonzero(segments)
            tokens += used
            fill[side] += used / segments.shape[1]
    wall, cpu = time.perf_counter() - begun, cpu_secs() - cpu
    return {
        "examples_per_sec": examples / wall,
        "tokens_per_sec": tokens / wall,
        "examples_per_core_sec": examples / cpu,
        "tokens_per_core_sec": tokens / cpu,
        "tokens_per_example": tokens / examples,
        "encoder_fill": fill["encoder"] / rows,
        "decoder_fill": fill["decoder"] / rows,
        "examples": examples,
        "secs": wall,
        "cpu_secs": cpu,
        "first_batch_secs": first,
        "peak_memory_mb": memory_mb("VmHWM"),
        "memory_growth_mb": memory_mb("VmRSS") - memory,
    }


def own_processes() -> Iterator[tuple[Path, list[str]]]:
    """This process and its living children: (folder in /proc, fields of `stat` from the third)."""
    me = str(Path("/proc/self").resolve().name)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # a process that has just ended
        if stat.parent.name == me or after[1] == me:
            yield stat.parent, after


def cpu_secs() -> float:
    """CPU seconds of this process and all of its living worker processes."""
    return sum(int(after[11]) + int(after[12]) for _, after in own_processes()) / 100


def memory_mb(name: str) -> float:
    """Memory of the same processes: "VmRSS" now or "VmHWM" at most, shared memory in each."""
    status = "".join((folder / "status").read_text() for folder, _ in own_processes())
    return sum(map(int, re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE))) / 1024


def main() -> None:
    """Runs every variant asked for in a process of its own and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[20, 1836], help="numbers to try")
    parser.add_argument("--records", type=int, default=110_160, help="of all tasks together")
    parser.add_argument("--secs", type=float, default=10)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--mode", default="zs_noopt", choices=("zs_noopt", "fs_noopt"))
    parser.add_argument("--vocabulary", default="gym")
    parser.add_argument("--seqio", action="store_true", help="run SeqIO's pipeline as well")
    parser.add_argument("--limit_secs", type=float, default=1800, help="of one variant")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--num_tasks", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.variant == "seqio":
                result = run_seqio(arguments, Path(folder))
            else:
                result = run_ours(arguments, Path(folder), arguments.variant)
        print(json.dumps(result))
        return
    variants = [str(workers) for workers in arguments.workers] + ["seqio"] * arguments.seqio
    first: dict[str, float] = {}
    without: list[str] = []
    for num_tasks in arguments.tasks:
        results: dict[str, Any] = {}
        for variant in variants:
            name = "seqio" if variant == "seqio" else f"ours, {variant} workers"
            print(f"{num_tasks:5,} tasks, {name:16}", end=" ", flush=True)
            found = run_variant(variant, num_tasks, arguments.limit_secs)
            if isinstance(found, str):
                print(found)
                without.append(f"{num_tasks:,} tasks, {name}: {found}")
                continue
            print(describe(found), flush=True)
            results[variant] = found
            rate = found["examples_per_core_sec"]
            if variant in first:
                print(f"{'':29} {rate / first[variant]:.2f} x of {arguments.tasks[0]:,} tasks")
            first.setdefault(variant, rate)
            if variant == "seqio" and variants[0] in first and num_tasks == arguments.tasks[0]:
                print(f"{'':29} ours is {first[variants[0]] / rate:.1f} x as fast a core")
        rates = {variant: found["examples_per_sec"] for variant, found in results.items()}
        summary = {
            "tasks": num_tasks,
            "cpu_shares": run_variant("shares", num_tasks, arguments.limit_secs),
            "two_workers_to_one": rates["2"] / rates["1"] if {"1", "2"} <= set(rates) else None,
            "workers": results,
        }
        print(json.dumps(summary), flush=True)
    if without:
        sys.exit("\n".join(without))


def run_variant(variant: str, num_tasks: int, limit_secs: float) -> dict[str, float] | str:
    """One measurement in a process of its own, or why there is none."""
    command = [sys.executable, __file__, *sys.argv[1:]]
    command += ["--variant", variant, "--num_tasks", str(num_tasks)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_secs)
    except subprocess.TimeoutExpired:
        return f"no result within {limit_secs:,.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"failed (status {done.returncode}): {lines[-1][:100]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def describe(found: dict[str, float]) -> str:
    """One line of figures."""
    return (
        f"{found['examples_per_sec']:7,.0f} examples/s {found['tokens_per_sec']:9,.0f} "
        f"tokens/s | per core {found['examples_per_core_sec']:6,.0f} "
        f"{found['tokens_per_core_sec']:9,.0f} | {found['tokens_per_example']:.0f} tokens an "
        f"example | fill {found['encoder_fill']:.1%} {found['decoder_fill']:.1%} | first batch "
        f"{found['first_batch_secs']:.1f} s | {found['peak_memory_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    main()
