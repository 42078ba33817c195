"""How fast generation and scoring are, beside other programs on the same weights in the same run.

    PYTHONPATH=. python benchmarks/decode.py --data DATA_DIR [--model decoder] [--cores 1]
    PYTHONPATH=. python benchmarks/decode.py --peers ctranslate2-float32 --parts fixed mixed

T5 1.1 with 4 + 4 layers, or with `--model decoder` a Llama of 8 layers and 2 key-value heads;
d_model 256, 4 heads x 64, d_ff 512, or the `--size` of T5 1.1 small or base (a Llama of as many
layers). 32,128 words, untied output, float32, random weights, 16 prompts (slots) at a time. Parts:

    fixed      16 prompts of 256 tokens, 32 new tokens each, none ends early
    mixed      48 prompts of 30 to 900 tokens, 32 new tokens each, none ends early
    workload   BBH and GSM8K (`workload.py`), each answer as long as its reference
    scoring    four answer options for each question of the workload

Greedy and beam-4. The tokens of all programs must be the same, and the log-likelihoods equal to
1e-3, or the run fails. int8 (CTranslate2's, and ours with `--int8`) computes other tokens, and the
share that equals ours in float32 is printed.
CTranslate2 cannot end each answer at a length of its own, so it runs in `fixed` and `mixed`; it
batches prompts of similar length itself. Each side is compiled or warmed up before; the sides take
turns, and what is compared is the median of their times. CPU seconds say more than wall time where
others use the machine, best on one core, where no thread waits for another. Hugging Face runs twice
if lengths differ: in the order of the files, and with prompts sorted by length. The last line has
the ratios as JSON.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import EOS, PIECES, Workload, read_workload
from instruct.allocator import keep_freed_memory
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.scoring.options import OptionScorer
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import AnyConfig, make_model

SLOTS, BEAMS, OPTIONS = 16, 4, 4
FIXED_SOURCE, FIXED_NEW = 256, 32
MIXED_PROMPTS, MIXED_SHORTEST, MIXED_LONGEST = 48, 30, 900
PARTS = ("fixed", "mixed", "workload", "scoring")
PEERS = ("huggingface", "ctranslate2-float32", "ctranslate2-int8")
LONGEST_ANSWER = 256
VOCABULARY = 32_128
# Layers of a stack, d_model, heads of 64, d_ff: the model of the tables, and those of T5 1.1.
SIZES = {"mini": (4, 256, 4, 512), "small": (8, 512, 6, 1024), "base": (12, 768, 12, 2048)}


def config_of(model: str, size: str) -> AnyConfig:
    """The configuration of 'encoder_decoder' or 'decoder', in one of SIZES."""
    layers, width, heads, hidden = SIZES[size]
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": width,
        "num_heads": heads,
        "head_dim": 64,
        "d_ff": hidden,
    }
    if model == "decoder":
        return DecoderConfig(**sizes, num_layers=2 * layers, num_kv_heads=2, tied_output=False)
    return ModelConfig(**sizes, num_encoder_layers=layers, num_decoder_layers=layers)


def answer_ends(lengths: np.ndarray) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """An `adjust_fn`: EOS is the only token where an answer has its length, and no token before."""
    table = jnp.asarray(lengths)

    def adjust(logits: jax.Array, example_ids: jax.Array, positions: jax.Array) -> jax.Array:
        ends = (positions + 1 >= table[example_ids])[:, None]
        return jnp.where(ends == (jnp.arange(logits.shape[-1]) == EOS), logits, -jnp.inf)

    return adjust


def timed(
    sides: Mapping[str, Callable[[], np.ndarray]], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]]:
    """Results, and median (wall, CPU) seconds, of sides that take turns."""
    results, wall, cpu = {}, {name: [] for name in sides}, {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter(), time.process_time()
            results[name] = run()
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    return results, {name: tuple(map(statistics.median, (wall[name], cpu[name]))) for name in sides}


def print_rows(
    part: str, count: int, unit: str, seconds: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Prints rates and ratios; returns the (wall, CPU) seconds of each side over ours."""
    ours, ratios = seconds["ours"], {}
    for name, (wall, cpu) in seconds.items():
        ratios[name] = wall / ours[0], cpu / ours[1]
        ratio = " | " if name == "ours" else "{:.2f} | {:.2f}".format(*ratios[name])
        print(f"| {part} | {name} | {count / wall:,.1f} {unit}/s | {cpu:.1f} | {ratio} |")
    return ratios


def random_prompts(lengths: Sequence[int]) -> Workload:
    """Prompts of random tokens; no answer ends in FIXED_NEW steps."""
    random = np.random.default_rng(0)
    prompts = [random.integers(2, VOCABULARY, length).tolist() for length in lengths]
    return Workload(prompts, np.full(len(prompts), FIXED_NEW + 1, np.int32))


class Bench:
    """All programs with one set of weights.

    Attributes:
        ratios: part -> program -> its median (wall, CPU) seconds over ours.
    """

    def __init__(
        self, config: AnyConfig, threads: int, repeats: int, peers: Sequence[str], int8: bool
    ):
        from benchmarks import peer  # PyTorch reads the affinity when it is imported

        peer.use_threads(threads)
        versions = f"jax {jax.__version__}, {peer.VERSIONS}"
        self._repeats, self._int8 = repeats, int8
        self._model = make_model(config)
        self._params = jax.jit(self._model.init)(jax.random.key(0))
        self._peer = peer.Peer(config, self._params) if "huggingface" in peers else None
        self._ctranslate2 = {}
        for kind in ("float32", "int8"):
            if f"ctranslate2-{kind}" in peers:
                from benchmarks import peer_ctranslate2

                versions = f"jax {jax.__version__}, {peer.VERSIONS}, {peer_ctranslate2.VERSION}"
                made = peer_ctranslate2.Peer(config, self._params, kind, threads)
                self._ctranslate2[f"CTranslate2 {kind}"] = made
        print(f"{versions}, {threads} threads", flush=True)
        self.ratios: dict[str, dict[str, tuple[float, float]]] = {}

    def _side(self, beams: int, steps: int, work: Workload, weights: str) -> Callable:
        """Our answers to a workload."""
        strategy = DecodeConfig(max_decode_steps=steps, eos_id=EOS, weights=weights)
        if beams > 1:
            strategy = dataclasses.replace(strategy, strategy="beam", num_beams=beams)
        adjust = answer_ends(work.answer_lengths)
        decoder = Decoder(self._model, strategy, BatchConfig(SLOTS), adjust_fn=adjust)
        return lambda: decoder.generate(self._params, work.prompts).tokens[:, 0]

    def generation(self, part: str, work: Workload, beams: int, steps: int) -> None:
        """Times one strategy on one workload and compares the tokens."""
        lengths, ours = work.answer_lengths, self._side(beams, steps, work, "float32")
        start = time.perf_counter()
        ours()
        first = time.perf_counter() - start
        sides = {"ours": ours}
        if self._int8:
            sides["ours int8"] = self._side(beams, steps, work, "int8")
            sides["ours int8"]()
        if (peer := self._peer) is not None:
            peer.generate(work.prompts[:SLOTS], np.full(SLOTS, 4), SLOTS, beams, steps, False)
            for name, sort in (("Hugging Face", False), ("Hugging Face, sorted", True)):
                if not sort or part != "fixed":
                    sides[name] = functools.partial(
                        peer.generate, work.prompts, lengths, SLOTS, beams, steps, sort
                    )
        for name, other in self._ctranslate2.items() if min(lengths) > steps else ():
            other.generate(work.prompts[:SLOTS], SLOTS, beams, 4)
            sides[name] = functools.partial(other.generate, work.prompts, SLOTS, beams, steps)
        results, seconds = timed(sides, self._repeats)
        strategy = f"{part}, greedy" if beams == 1 else f"{part}, beam-{beams}"
        self.ratios[strategy] = print_rows(strategy, len(work.prompts), "examples", seconds)
        for name, tokens in results.items():
            equal = tokens == results["ours"]
            if name.endswith("int8"):
                print(f"| {strategy} | {name}, equal tokens | {np.mean(equal):.1%} | | | |")
                continue
            different = np.flatnonzero(~np.all(equal, axis=-1))
            assert not len(different), f"{name}: other tokens for examples {different}"
        print(
            f"| {strategy} | ours, first call | {first:.0f} s with compilation | | | |", flush=True
        )

    def scoring(self, work: Workload) -> None:
        """Times four options a question, and compares their log-likelihoods."""
        peer = self._peer
        if peer is None:
            return
        random = np.random.default_rng(0)
        options = [
            [[*random.integers(2, PIECES, n).tolist(), EOS] for n in random.integers(1, 6, OPTIONS)]
            for _ in work.prompts
        ]
        scorer = OptionScorer(self._model, BatchConfig(SLOTS))
        prompts = [prompt for prompt in work.prompts for _ in range(OPTIONS)]
        targets = [option for each in options for option in each]

        def ours() -> np.ndarray:
            found = scorer.rank(self._params, work.prompts, options)
            return np.concatenate([ranking.log_likelihoods for ranking in found])

        start = time.perf_counter()
        ours()
        first = time.perf_counter() - start
        sides = {"ours": ours, "Hugging Face": lambda: peer.score(prompts, targets, SLOTS)}
        results, seconds = timed(sides, self._repeats)
        np.testing.assert_allclose(results["Hugging Face"], results["ours"], atol=1e-3)
        part = f"scoring, {OPTIONS} options"
        self.ratios[part] = print_rows(part, len(work.prompts), "questions", seconds)
        print(f"| scoring | ours, first call | {first:.0f} s with compilation | | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("INSTRUCT_DATA_DIR", "~/instruct_data")
    parser.add_argument("--data", default=default, help="folder with bbh/ and gsm8k/")
    parser.add_argument(
        "--model", choices=("encoder_decoder", "decoder"), default="encoder_decoder"
    )
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--int8", action="store_true", help="also ours with int8; not in scoring")
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=0, help="of the machine's, 0 for all")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS[:1])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, BEAMS])
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if arguments.cores:
        # Before either program makes its threads.
        cores = cores[-arguments.cores :]
        os.sched_setaffinity(0, cores)
    keep_freed_memory()  # of all sides
    config = config_of(arguments.model, arguments.size)
    bench = Bench(config, len(cores), arguments.repeats, arguments.peers, arguments.int8)
    random = np.random.default_rng(1)
    mixed = np.geomspace(MIXED_SHORTEST, MIXED_LONGEST, MIXED_PROMPTS).astype(int)
    works = {
        "fixed": (random_prompts([FIXED_SOURCE] * SLOTS), FIXED_NEW),
        "mixed": (random_prompts(random.permutation(mixed)), FIXED_NEW),
    }
    if {"workload", "scoring"} & set(arguments.parts):
        data = pathlib.Path(arguments.data).expanduser()
        work = read_workload(data, arguments.examples, LONGEST_ANSWER)
        works["workload"] = (work, LONGEST_ANSWER)
        print(f"workload: {work.describe()}")
    print(
        "| part | program | rate | CPU s | ratio to ours, wall | CPU |\n|---|---|---|---|---|---|"
    )
    for beams in arguments.beams:
        for part, (work, steps) in works.items():
            if part in arguments.parts:
                bench.generation(part, work, beams, steps)
    if "scoring" in arguments.parts:
        bench.scoring(works["workload"][0])
    print(json.dumps(bench.ratios))


if __name__ == "__main__":
    main()
