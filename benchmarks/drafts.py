"""What drafted tokens save: decoding with them and without, sides in turns, the same answers.

    PYTHONPATH=. python benchmarks/drafts.py --data DATA_DIR [--size small] [--model decoder]

First, how many tokens a step takes where the references of DialogSum and GSM8K are the answers
(DATA/dialogsum, DATA/gsm8k; the pieces of `workload.py`): no model, one answer at a time.

Then seconds, of models of `decode.py`: random weights, prompts of 256 tokens, answers of 64,
greedy. Answers quote their prompts: each token is the next one of the prompt with probability
`--quoted`, else the quotation starts anew at a random place (0: the next one by chance only).
Seconds are of prompts and answers together, the median of `--repeats`. Before them the CPU time of
a step of one token with a cache by position, over that of one with shared columns: what drafts cost
where none is made. The last line has the ratios as JSON.
"""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decode import SIZES, config_of, timed
from benchmarks.workload import EOS, learned_vocabulary
from instruct.allocator import keep_freed_memory
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.drafts import ngram_drafts
from instruct.eval.decoding.search import PADDING
from instruct.eval.programs import decode_batch
from instruct.models.model import Model, make_model

PROMPT, ANSWER = 256, 64
_FILES = (
    ("dialogsum/dialogsum.dev.jsonl", "dialogue", "summary"),
    ("gsm8k/test.jsonl", "question", "answer"),
)
_LONGEST_PROMPT, _LONGEST_ANSWER = 1024, 256


def tokens_a_step(data: pathlib.Path, drafted: Sequence[int], num_examples: int) -> None:
    """Prints the table of real texts."""
    words = learned_vocabulary(data / "gsm8k" / "train.jsonl")
    columns = " | ".join(f"{count} drafted" for count in drafted)
    print(f"| answers | tokens of one | tokens a step: {columns} |")
    print("|---|---|" + "---|" * len(drafted))
    for name, prompt, answer in _FILES:
        with open(data / name, encoding="utf-8") as lines:
            records = [json.loads(line) for _, line in zip(range(num_examples), lines)]
        pairs = [
            (words.encode(record[prompt]), [*words.encode(record[answer]), EOS])
            for record in records
        ]
        total, cells = sum(len(answer) for _, answer in pairs), []
        for count in drafted:
            steps = sum(_num_steps(*pair, count) for pair in pairs)
            cells.append(f"{total / steps:.2f}")
        print(f"| {name} | {total / len(pairs):.0f} | {' | '.join(cells)} |", flush=True)


def _num_steps(prompt: list[int], answer: list[int], count: int) -> int:
    """Steps that give the answer to a prompt with `count` drafted tokens."""
    positions = np.arange(_LONGEST_ANSWER)
    prompts = _padded(prompt, _LONGEST_PROMPT)[None].repeat(len(positions), axis=0)
    answers = _padded(answer, _LONGEST_ANSWER)[None].repeat(len(positions), axis=0)
    drafts = np.asarray(_drafts(prompts, answers, positions, count))
    position = steps = 0
    while position < min(len(answer), _LONGEST_ANSWER):
        following = answer[position : position + count]
        right = drafts[position][: len(following)] == following
        position += int(np.cumprod(right).sum()) + 1
        steps += 1
    return steps


def _padded(tokens: list[int], length: int) -> np.ndarray:
    padded = np.full(length, PADDING, np.int32)
    padded[: len(tokens)] = tokens[:length]
    return padded


_drafts = jax.jit(ngram_drafts, static_argnums=3)


def quotations(prompts: np.ndarray, quoted: float) -> np.ndarray:
    """Answers [R, ANSWER] that quote prompts [R, PROMPT]."""
    random = np.random.default_rng(1)
    places = random.integers(0, PROMPT, (len(prompts), ANSWER))
    for step in range(1, ANSWER):
        goes_on = random.random(len(prompts)) < quoted
        places[:, step] = np.where(goes_on, (places[:, step - 1] + 1) % PROMPT, places[:, step])
    return np.take_along_axis(prompts, places, axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def generate(
    model: Model, strategy: DecodeConfig, params, prompts: jax.Array, answers: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Decodes `answers` [R, T], which the model finds likeliest: their tokens, and the steps."""

    def wanted(logits: jax.Array, example_ids: jax.Array, positions: jax.Array) -> jax.Array:
        is_next = jnp.arange(logits.shape[-1]) == answers[example_ids, positions][:, None]
        return jnp.where(is_next, 1e9, logits)

    numbers = jnp.arange(prompts.shape[0])
    tokens, _, steps = decode_batch(model, params, strategy, prompts, numbers, wanted)
    return tokens[:, 0], steps


def time_columns(model: Model, params, rows: int, repeats: int) -> None:
    """Prints the CPU time of ANSWER steps of one token, with both kinds of cache."""

    @functools.partial(jax.jit, static_argnums=0)
    def steps(by_position: bool, params, prompts):
        cache = model.init_cache(prompts, 1, ANSWER, reordered=False, by_position=by_position)
        shape = (rows, 1) if by_position else (rows,)

        def step(number, carry):
            cache, tokens = carry
            logits, cache = model.decode_step(params, cache, tokens, jnp.full((rows,), number))
            return cache, jnp.argmax(logits, axis=-1).astype(jnp.int32)

        return jax.lax.fori_loop(0, ANSWER, step, (cache, jnp.zeros(shape, jnp.int32)))[1]

    tokens = np.full((rows, PROMPT), 5, np.int32)
    prompts = jax.jit(model.start_prompts)(params, tokens)

    def side(by_position: bool) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            return np.asarray(steps(by_position, params, prompts))

        run()
        return run

    names = {"shared": side(False), "by position": side(True)}
    cpu = {name: 1e3 * secs[1] / ANSWER for name, secs in timed(names, 3 * repeats)[1].items()}
    listed = ", ".join(f"{name} {cpu_ms:.2f}" for name, cpu_ms in cpu.items())
    print(f"CPU ms of a step, {rows} rows, columns {listed}", flush=True)


def time_rows(
    model: Model, params, rows: int, quoted: float, drafted: Sequence[int], repeats: int
) -> dict[str, float]:
    """Prints the lines of so many rows; drafted tokens -> seconds without over seconds with."""
    random = np.random.default_rng(0)
    prompts = random.integers(2, model.config.vocab_size, (rows, PROMPT)).astype(np.int32)
    answers = quotations(prompts, quoted)
    steps: dict[int, int] = {}

    def side(count: int) -> Callable[[], np.ndarray]:
        strategy = DecodeConfig(max_decode_steps=ANSWER, draft_tokens=count)

        def run() -> np.ndarray:
            tokens, taken = generate(model, strategy, params, prompts, answers)
            steps[count] = int(taken)
            return np.asarray(tokens)

        np.testing.assert_array_equal(run(), answers)
        return run

    _, seconds = timed({str(count): side(count) for count in (0, *drafted)}, repeats)
    ratios = {}
    for count in drafted:
        wall, cpu = (b / a for a, b in zip(seconds[str(count)], seconds["0"]))
        ratios[f"{rows} rows, {quoted:g} quoted, {count} drafted"] = wall
        line = f"| {rows} | {quoted:g} | {count} | {ANSWER / steps[count]:.2f} "
        print(f"{line}| {wall:.2f} | {cpu:.2f} |", flush=True)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("INSTRUCT_DATA_DIR", "~/instruct_data")
    parser.add_argument("--data", default=default, help="folder with dialogsum/ and gsm8k/")
    parser.add_argument(
        "--model", choices=("encoder_decoder", "decoder"), default="encoder_decoder"
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--drafted", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--quoted", type=float, nargs="+", default=[0.0, 0.8, 0.95])
    parser.add_argument("--examples", type=int, default=200, help="of each file of real texts")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    tokens_a_step(pathlib.Path(arguments.data).expanduser(), arguments.drafted, arguments.examples)
    model = make_model(config_of(arguments.model, arguments.size))
    params = jax.jit(model.init)(jax.random.key(0))
    print()
    for rows in arguments.rows:
        time_columns(model, params, rows, arguments.repeats)
    print("\n| rows | quoted | drafted | tokens a step | wall, over none drafted | CPU |")
    print("|---|---|---|---|---|---|")
    ratios = {}
    for rows in arguments.rows:
        for quoted in arguments.quoted:
            ratios |= time_rows(model, params, rows, quoted, arguments.drafted, arguments.repeats)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
