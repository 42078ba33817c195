"""How fast training is beside Hugging Face's: the same weights, examples, loss and Adafactor.

    PYTHONPATH=. python benchmarks/train.py --peer=huggingface --data DATA_DIR [--size tiny small]
    PYTHONPATH=. python benchmarks/train.py --peer=huggingface --size=trial --repeats=1

T5 1.1 with 32,128 words, untied output, float32, dropout 0.05, Adafactor at a constant rate of
1e-3, no z-loss, random first weights. Sizes: `tiny` (2 + 2 layers, d_model 128), `small` (4 + 4,
d_model 256, as `train_step.py`), `base` (12 + 12, d_model 768); `trial` tries the script.

Examples, cut at 512 input and 128 target tokens:

    sample    `public.sample`: the public files under DATA_DIR, rendered and tokenised by our feed
    flan      random tokens of lengths like the Flan 2022 mixture's, see `flan_examples`

Ours trains on packed rows of `TrainFeed`. A thread of it prepares windows of 2,048 examples ahead,
so that few rounds meet one: each turn is charged its examples' share of the seconds that reading,
rendering, tokenising and packing of a window take, as if nothing ran beside it. Hugging Face gets
the same examples as lists of tokens: its padding is timed, its reading and tokenising are not. It
batches them in random order, or in the order of `Trainer` with `group_by_length` (50 batches sorted
by length together); a round takes batches evenly from those 50, other ones each round. A batch of
theirs has as many examples as ours has on average, rounded.

Sides take turns, in a process that keeps freed memory as `run.py train` does, which speeds up both.
A rate counts real tokens or examples, no padding; a ratio is Hugging Face's seconds for a real
token over ours. Medians and ranges of the rounds are printed. CPU seconds contain what a side's
threads do after its turn. Before the timing both programs train for some updates on the same
examples without dropout: losses of a token must agree to 1e-4 at first and stay close, or the run
fails. The last line for a size and examples is JSON.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from benchmarks.train_step import compile_step, first_state
from instruct import batch as keys
from instruct import peak
from instruct.allocator import keep_freed_memory
from instruct.cli.settings import declare_project_tasks
from instruct.data import registry
from instruct.data.config import DataConfig
from instruct.data.feed.leaves import make_builder
from instruct.data.feed.pipeline import TrainFeed
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.prepare import prepare_once
from instruct.data.stores.store import store_key, store_path
from instruct.data.stores.writing import write_store
from instruct.data.token_record import TokenRecord
from instruct.models.config import ModelConfig
from instruct.train.loss import LossConfig
from instruct.train.optimizer import OptimizerConfig
from instruct.workspace import Workspace

VOCABULARY, EOS, DROPOUT = 32_128, 1, 0.05
LENGTHS = {"inputs": 512, "targets": 128}
EXAMPLES = ("sample", "flan")
ORDERS = ("random", "grouped")
CHECKED_UPDATES = 4
FIRST_LOSS_TOLERANCE, LATER_LOSS_TOLERANCE = 1e-4, 1e-3

Example = tuple[list[int], list[int]]  # tokens of inputs and targets


class Size(NamedTuple):
    """A model, and how long it is timed.

    Attributes:
        model: fields of `ModelConfig`.
        rows: packed rows of an update.
        updates: of a side in a round.
        repeats: rounds.
    """

    model: Mapping[str, Any]
    rows: int
    updates: int
    repeats: int


def _sizes(layers: int, d_model: int, num_heads: int, head_dim: int, d_ff: int) -> dict[str, Any]:
    widths = {"d_model": d_model, "num_heads": num_heads, "head_dim": head_dim, "d_ff": d_ff}
    return {**widths, "num_encoder_layers": layers, "num_decoder_layers": layers}


SIZES = {
    "trial": Size(_sizes(1, 128, 2, 64, 128), 2, 2, 2),
    "tiny": Size(_sizes(2, 128, 4, 32, 384), 8, 3, 5),
    "small": Size(_sizes(4, 256, 4, 64, 512), 8, 2, 4),
    "base": Size(_sizes(12, 768, 12, 64, 2048), 2, 1, 2),
}


class Work(NamedTuple):
    """What a side did in its turn; tokens and positions of both sides of the examples.

    Attributes:
        flops: of the matrix products, padding included.
    """

    examples: int
    tokens: int
    positions: int
    flops: int


def total(works: Iterable[Work]) -> Work:
    """The sum of all."""
    return Work(*map(sum, zip(*works)))


class Turn(NamedTuple):
    """Seconds of a side's turn, and its work."""

    wall: float
    cpu: float
    work: Work


class Data(NamedTuple):
    """Packed batches without end, and the examples of the window that they begin with.

    Attributes:
        per_update: examples of a batch, the average of that window.
        host_secs: CPU seconds of an example: its share of building that window, without those of
            array_record's threads, which decompress (a quarter of 0.1 ms).
    """

    feed: TrainFeed
    examples: list[Example]
    per_update: float
    host_secs: float


def flan_examples(count: int) -> Iterator[Example]:
    """Random tokens with lengths like those of the Flan 2022 mixture, the same in every call.

    Half the prompts are zero-shot, of log-normal length with median 100 and sigma 0.8. The others
    show 2 or 3 exemplars, as the release does (2.6 on average): 3.6 times as long. Of the targets
    60 % are labels and options of 2 to 8 tokens, the others log-normal with median 30 and sigma
    0.8. Lengths contain EOS and are cut at 512 and 128.
    """
    draw = np.random.default_rng(0)
    for _ in range(count):
        shots = draw.choice([1.0, 3.6])
        prompt = shots * draw.lognormal(np.log(100), 0.8)
        is_label = draw.random() < 0.6
        answer = draw.integers(2, 9) if is_label else draw.lognormal(np.log(30), 0.8)
        lengths = zip((prompt, answer), LENGTHS.values())
        sizes = [min(max(int(length), 2), most) - 1 for length, most in lengths]
        inputs, targets = (draw.integers(2, VOCABULARY, n).tolist() for n in sizes)
        yield [*inputs, EOS], [*targets, EOS]


def open_data(name: str, workspace: Workspace, rows: int) -> Data:
    """The examples `name` of EXAMPLES in batches of `rows` packed rows, with default settings.

    Raises:
        UserError: `public.sample` has no file under the workspace's data folder.
    """
    split = "train"
    config = DataConfig("public.sample" if name == "sample" else name, LENGTHS, rows)
    if name == "sample":
        declare_project_tasks()
        resolved = registry.resolve(workspace, config.mixture, split)
        prepare_once(workspace, resolved, config, (split,), console=Console(quiet=True)).check()
        resolved = registry.resolve(workspace, config.mixture, split)
    else:
        count = 2 * config.window_examples
        leaf = Leaf(name, 1.0, name, "", name, name, name, "1", count, (split,), None)
        resolved = Resolved(name, split, (leaf,))
        write_store(
            store_path(workspace, store_key(leaf, config), split),
            (TokenRecord(str(i), *pair, "", "") for i, pair in enumerate(flan_examples(count))),
            task=name,
            kind="tokens",
            version=leaf.version,
            source_fingerprint="",
        )
    builder = make_builder(workspace, config, resolved)[0]
    builder.build(1)  # opens the stores
    started = time.thread_time()
    window = builder.build(0)
    built = time.thread_time() - started
    examples, feed = unpacked(window.rows), TrainFeed(workspace, config, resolved)
    per_update = len(examples) * rows / window.num_rows
    return Data(feed, examples, per_update, built / len(examples))


def unpacked(batch: Mapping[str, np.ndarray]) -> list[Example]:
    """The examples of packed rows, row by row."""
    sides = (
        (keys.ENCODER_INPUT_TOKENS, keys.ENCODER_SEGMENT_IDS),
        (keys.DECODER_TARGET_TOKENS, keys.DECODER_SEGMENT_IDS),
    )
    found: list[Example] = []
    for row in range(len(batch[keys.DECODER_SEGMENT_IDS])):
        for segment in range(1, batch[keys.DECODER_SEGMENT_IDS][row].max() + 1):
            inputs, targets = (batch[key][row, batch[ids][row] == segment] for key, ids in sides)
            found.append((inputs.tolist(), targets.tolist()))
    return found


class Ours:
    """Our compiled step, fed by our feed."""

    def __init__(self, config: ModelConfig, batch: Mapping[str, np.ndarray]):
        self._config, self.state = config, first_state(config)
        loss = LossConfig(z_loss=0.0)
        self._step, self.compile_secs = compile_step(
            config, self.state, jax.device_put(batch), loss, parts=1
        )

    def update(self, batch: Mapping[str, np.ndarray]) -> jax.Array:
        """Mean loss of the target tokens before the update."""
        self.state, metrics = self._step(self.state, jax.device_put(batch))
        return metrics.losses.loss.value

    def turn(self, feed: TrainFeed, updates: int) -> Work:
        """Updates on the feed's next batches."""
        works = []
        for _ in range(updates):
            batch, info = next(feed)
            self.update(batch)
            segments = batch[keys.ENCODER_SEGMENT_IDS], batch[keys.DECODER_SEGMENT_IDS]
            tokens = sum(int(np.count_nonzero(ids)) for ids in segments)
            flops = self._config.train_flops(len(segments[0]), *LENGTHS.values())
            works.append(Work(info.num_examples, tokens, sum(ids.size for ids in segments), flops))
        jax.block_until_ready(self.state.params)
        return total(works)


def peer_turn(peer: Any, config: ModelConfig, batches: Sequence[Sequence[Example]]) -> Work:
    """Updates of Hugging Face's model on these batches."""
    works = []
    for batch in batches:
        _, shape = peer.update(batch)
        tokens = sum(len(inputs) + len(targets) for inputs, targets in batch)
        flops = config.train_flops(len(batch), *shape)
        works.append(Work(len(batch), tokens, len(batch) * sum(shape), flops))
    return total(works)


def check(ours: Ours, batches: Sequence[Mapping[str, np.ndarray]], peer: Any) -> list[float]:
    """Differences of the two programs' losses, an update on each batch without dropout.

    Args:
        ours: without dropout, in its first state.
        peer: a `TrainingPeer` without dropout, with our first parameters.

    Raises:
        AssertionError: they train differently.
    """
    differences = []
    for number, batch in enumerate(batches):
        losses = float(ours.update(batch)), peer.update(unpacked(batch))[0]
        tolerance = LATER_LOSS_TOLERANCE if number else FIRST_LOSS_TOLERANCE
        np.testing.assert_allclose(*losses, rtol=0, atol=tolerance, err_msg=f"update {number}")
        differences.append(float(f"{losses[0] - losses[1]:.1e}"))
    return differences


def peer_batches(
    examples: Sequence[Example], batch_size: int, order: str, seed: int
) -> list[list[Example]]:
    """The first batches of an epoch of theirs, as many as are sorted by length together."""
    from benchmarks import peer

    numbers = np.random.default_rng(seed).permutation(len(examples)).tolist()
    if order == "grouped":
        lengths = [len(inputs) for inputs, _ in examples]
        numbers = peer.length_grouped_order(lengths, batch_size, seed)
    starts = range(0, batch_size * peer.MEGA_BATCHES, batch_size)
    return [[examples[i] for i in numbers[start : start + batch_size]] for start in starts]


def of_round(batches: Sequence[Any], number: int, rounds: int, updates: int) -> list[Any]:
    """The batches of round `number`: evenly from all, none twice if there are enough of them."""
    shares = (np.arange(updates) * rounds + number + 0.5) / (rounds * updates)
    return [batches[int(share * len(batches))] for share in shares]


def timed(run: Callable[[], Work], host_secs: float = 0.0) -> Turn:
    """Wall seconds of a turn, and CPU seconds until no thread of this process computes any more.

    Args:
        host_secs: wall and CPU seconds of an example to add.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    work = run()
    wall = time.perf_counter() - wall
    rest()
    host = host_secs * work.examples
    return Turn(wall + host, time.process_time() - cpu + host, work)


def rest() -> None:
    """Waits until no thread of this process computes any more."""
    used = -1.0
    while time.process_time() - used > 0.005:
        used = time.process_time()
        time.sleep(0.05)


def figures(turns: Sequence[Turn], peaks: Sequence[float], ours: Sequence[Turn]) -> dict[str, Any]:
    """Rates of a side over all rounds; [median, least, largest] round of ours over its rates.

    Args:
        turns, ours: of the side and of ours, a turn of each round.
        peaks: FLOP/s of each round.
    """
    wall, cpu = sum(turn.wall for turn in turns), sum(turn.cpu for turn in turns)
    work = total(turn.work for turn in turns)

    def ratios(kind: str) -> list[float]:
        costs = [
            [getattr(turn, kind) / turn.work.tokens for turn in pair] for pair in zip(turns, ours)
        ]
        return [theirs / own for theirs, own in costs]

    shares = [turn.work.flops / turn.wall / peak for turn, peak in zip(turns, peaks)]
    return {
        "examples_per_sec": round(work.examples / wall, 2),
        "tokens_per_sec": round(work.tokens / wall),
        "tokens_per_example": round(work.tokens / work.examples),
        "cpu_secs_per_1000_examples": round(1000 * cpu / work.examples, 1),
        "filled": round(work.tokens / work.positions, 3),
        "peak_share": round(statistics.median(shares), 3),
        "ratio_wall": spread(ratios("wall")),
        "ratio_cpu": spread(ratios("cpu")),
    }


def spread(values: Sequence[float]) -> list[float]:
    """[median, least, largest]."""
    return [round(of(values), 2) for of in (statistics.median, min, max)]


def measure(flags: argparse.Namespace, size: str, folder: pathlib.Path) -> None:
    """Compares the two programs, then times them on each of the examples."""
    from benchmarks import peer  # PyTorch reads the affinity when it is imported

    peer.use_threads(len(os.sched_getaffinity(0)))
    model, rows = SIZES[size][:2]
    workspace = Workspace(data_dir=flags.data, store_dir=folder / "stores")
    data = {name: open_data(name, workspace, rows) for name in flags.examples}
    names = itertools.islice(itertools.cycle(data), CHECKED_UPDATES)
    checked = [next(data[name].feed)[0] for name in names]
    config, exact = (
        ModelConfig(vocab_size=VOCABULARY, **model, dropout_rate=rate) for rate in (DROPOUT, 0.0)
    )
    first, rate = first_state(config).params, OptimizerConfig.learning_rate
    exact_peer = peer.TrainingPeer(exact, first, rate, flags.attention)
    differences = check(Ours(exact, checked[0]), checked, exact_peer)
    del exact_peer
    theirs = peer.TrainingPeer(config, first, rate, flags.attention)
    del first
    ours = Ours(config, checked[0])
    ours.update(checked[0])  # warms up
    common = {
        "size": size,
        "parameters": config.num_params(),
        "versions": f"jax {jax.__version__}, {peer.VERSIONS}",
        "cores": len(os.sched_getaffinity(0)),
        "loss_differences": differences,
        "compile_secs": round(ours.compile_secs, 1),
    }
    for name, own in data.items():
        result = {**common, "examples": name, **compare(flags, size, own, config, ours, theirs)}
        print_rows(f"{size}, {name}", result, flags.order)
        print(json.dumps(result), flush=True)


def compare(
    flags: argparse.Namespace, size: str, data: Data, config: ModelConfig, ours: Ours, theirs: Any
) -> dict[str, Any]:
    """Times the sides in turns; figures by side, "ours" and those of `--order`."""
    _, _, updates, repeats = SIZES[size]
    repeats, batch_size = flags.repeats or repeats, round(data.per_update)
    sides: dict[str, Callable[[int], Work]] = {"ours": lambda _: ours.turn(data.feed, updates)}
    for order in flags.order:
        batches = peer_batches(data.examples, batch_size, order, seed=0)

        def turn(number: int, batches: Sequence[Any] = batches) -> Work:
            return peer_turn(theirs, config, of_round(batches, number, repeats, updates))

        sides[order] = turn
        theirs.update(batches[0])  # warms up
    rest()
    turns: dict[str, list[Turn]] = {side: [] for side in sides}
    peaks = []
    for number in range(repeats):
        for side, run in sides.items():
            host_secs = data.host_secs if side == "ours" else 0.0
            turns[side].append(timed(functools.partial(run, number), host_secs))
        peak.forget()
        peaks.append(peak.matmul_peak())
    data.feed.close()
    return {
        "rounds": repeats,
        "updates_of_a_round": updates,
        "host_secs_per_1000_examples": round(1000 * data.host_secs, 2),
        "examples_per_update": [round(data.per_update, 2), batch_size],
        "matmul_peak_gflops": round(statistics.median(peaks) / 1e9, 1),
        **{side: figures(own, peaks, turns["ours"]) for side, own in turns.items()},
    }


def print_rows(label: str, result: Mapping[str, Any], orders: Sequence[str]) -> None:
    """The rows of the table for one result."""
    for side in ("ours", *orders):
        row = result[side]
        wall, cpu = ("{} ({} to {})".format(*row[kind]) for kind in ("ratio_wall", "ratio_cpu"))
        print(
            f"| {label} | {'ours' if side == 'ours' else f'Hugging Face, {side}'} "
            f"| {row['examples_per_sec']} | {row['tokens_per_sec']:,} | {row['filled']:.1%} "
            f"| {row['peak_share']:.1%} | {row['cpu_secs_per_1000_examples']} "
            f"| {' | ' if side == 'ours' else f'{wall} | {cpu}'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("INSTRUCT_DATA_DIR", "~/instruct_data")
    parser.add_argument("--peer", choices=("huggingface",), default="huggingface")
    parser.add_argument("--data", type=pathlib.Path, default=default, help="the public files")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["tiny", "small", "base"])
    parser.add_argument("--examples", nargs="+", choices=EXAMPLES, default=EXAMPLES)
    parser.add_argument("--order", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--repeats", type=int, default=0, help="rounds; 0 for the size's")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="theirs")
    parser.add_argument("--cores", type=int, default=0, help="of the machine's, 0 for all")
    parser.add_argument("--folder", type=pathlib.Path, help="of stores; default: a temporary one")
    flags = parser.parse_args()
    if flags.cores:
        # Before either program makes its threads.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-flags.cores :])
    keep_freed_memory()  # as `run.py train`; of both programs
    print(
        "| size, examples | program | examples/s | tokens/s | not padding | of peak "
        "| CPU s of 1,000 examples | ratio to ours, wall | CPU |\n" + "|---" * 9 + "|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for size in flags.size:
            measure(flags, size, flags.folder or pathlib.Path(temporary))


if __name__ == "__main__":
    main()
