"""Speed, memory and correctness on one GPU, in a fixed time: `benchmarks/gpu.sh` calls it.

    PYTHONPATH=. python benchmarks/gpu.py [--out=runs/gpu] [--budget_secs=440] [--tiny]

Cells, each with a time limit:

    parity      five updates from T5X's initial parameters, float32 at the highest precision, beside
                T5X's own numbers from a CPU
    gradients   of a tiny model in bfloat16 beside einsum in float32, packed rows, for every
                attention; the gradient of the relative position bias alone
    decode      base and xl: greedy, 64 prompts of 512 tokens, 128 new tokens each, none ends early
    train       Flan-T5 shapes with packed rows, bfloat16, dropout 0, scanned layers: step time,
                MFU, memory, for every attention

MFU counts the model's matrix products forward and backward, without what remat computes again and
with padding, over the data sheet's dense bfloat16 peak, and over the peak that this process
measured (`instruct.peak`). Memory is what the compiled program holds: arguments, outputs and
temporaries. One process computes the cells. A cell that takes longer than its limit is killed with
it, and a new process goes on; when the budget is used up, the other cells are listed as skipped.
Results are lines of OUT/gpu.jsonl as they come, and the table OUT/gpu.md.
"""

import argparse
import dataclasses
import gc
import json
import pathlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

OUT = "runs/gpu"
# d_model, heads, d_ff, layers of each stack, as in gin/models/t5_1_1_*.gin; head_dim 64.
SHAPES = {
    "tiny": (64, 2, 128, 2),
    "base": (768, 12, 2048, 12),
    "large": (1024, 16, 2816, 24),
    "xl": (2048, 32, 5120, 24),
}
VOCABULARY = {"tiny": 512}
ATTENTION = ("einsum", "cudnn", "flash")
# Part of a device's name -> row of instruct/capacity/chips.toml; an H200 computes as an H100 does.
CHIPS = {"H200": "h100", "H100": "h100", "A100": "a100"}
# Largest relative errors of T5X's five steps: of the losses at the first and last step, of
# parameters at the end. Ten times and twice what tests allow a CPU.
LOSS_ERRORS, PARAMETER_ERROR = (1e-4, 1e-3), 2e-2
# A bfloat16 gradient's error, of the array's largest element; a wrong one is off by about 1.
GRADIENT_ERROR = 0.05
DECODE = {"slots": 64, "source": 512, "new": 128}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement; `limit_secs` includes compilation."""

    kind: str
    limit_secs: float
    size: str = ""
    inputs: int = 0
    targets: int = 0
    rows: int = 0
    attention: str = ""
    remat: str = ""

    def name(self) -> str:
        """`train base 512+128 x 32 einsum`."""
        shape = f"{self.inputs}+{self.targets} x {self.rows}" if self.inputs else ""
        return " ".join(filter(None, (self.kind, self.size, shape, self.attention)))


def cells(tiny: bool) -> list[Cell]:
    """All cells, the most important first."""
    sizes = {"tiny": "none"} if tiny else {"base": "none", "xl": "full", "large": "minimal"}
    limits = {"tiny": 300, "base": 45, "xl": 75, "large": 60}  # a busy CPU may be slow
    shapes = [(64, 16, 4)] if tiny else [(512, 128, 32), (2048, 512, 8)]
    packed = (64, 16, 2) if tiny else (256, 128, 4)
    check = limits["tiny"] if tiny else 60
    listed = [Cell("parity", check)]
    listed += [Cell("gradients", check, "tiny", *packed, name) for name in ATTENTION[1:]]
    for size, remat in sizes.items():
        if size != "large":
            listed.append(Cell("decode", limits[size], size, attention="einsum"))
        listed += [
            Cell("train", limits[size], size, inputs, targets, rows, attention, remat)
            for inputs, targets, rows in shapes
            for attention in ATTENTION
        ]
    return listed


class Worker:
    """Computes cells in this process, activations in `dtype`; keeps the last size's parameters."""

    def __init__(self, dtype: str) -> None:
        import jax

        from instruct import peak

        self._device = jax.devices()[0]
        self._dtype = dtype
        self._measured_peak = peak.matmul_peak(dtype, [self._device])
        self._size, self._state = "", None

    def compute(self, cell: Cell) -> dict[str, Any]:
        """The results of a cell, `status` 'ok', 'wrong', 'skipped' or 'failed' among them."""
        import jax

        from instruct.errors import UserError

        try:
            results = getattr(self, f"_{cell.kind}")(cell)
        except UserError as error:  # the configuration refuses it
            results = {"status": "skipped", "reason": str(error)}
        except (RuntimeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
            self._size, self._state = "", None  # may have been donated
            gc.collect()
            reason = str(error).strip().splitlines()[0][:300]
            results = {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}
        conditions = {
            "device": self._device.device_kind,
            "jax": jax.__version__,
            "measured_peak_tflops": round(self._measured_peak / 1e12, 2),
        }
        return {"status": "ok"} | results | conditions

    def _parity(self, cell: Cell) -> dict[str, Any]:
        import jax
        import numpy as np

        from benchmarks.train_step import (
            EncoderDecoder,
            LossConfig,
            OptimizerConfig,
            init_state,
            make_loss_fn,
            make_optimizer,
            make_train_step,
        )
        from instruct.models.layout import stack_layers
        from tests.train.t5x_run import t5x_run

        run = t5x_run()
        model = EncoderDecoder(dataclasses.replace(run["config"], scan_layers=True))
        loss = LossConfig(z_loss=1e-4, loss_normalizing_factor=1.0)
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2))
        loss_fn = make_loss_fn(model, loss)
        allowed = np.geomspace(*LOSS_ERRORS, len(run["batches"]))
        errors = []
        with jax.default_matmul_precision("highest"):
            step = jax.jit(make_train_step(loss_fn, optimizer, 1, 0, loss.loss_normalizing_factor))
            state = init_state(
                jax.tree.map(jax.numpy.asarray, stack_layers(run["initial"])), optimizer
            )
            for batch, expected in zip(run["batches"], run["metrics"]):
                state, metrics = step(state, batch)
                total = float(metrics.losses.loss.total)
                errors.append(abs(total - expected["loss"]) / expected["loss"])
        final = largest_error(state.params, stack_layers(run["final"]))[0]
        good = all(e <= a for e, a in zip(errors, allowed)) and final <= PARAMETER_ERROR
        return {
            "status": "ok" if good else "wrong",
            "first_loss_error": errors[0],
            "last_loss_error": errors[-1],
            "parameter_error": final,
            "allowed": [*LOSS_ERRORS, PARAMETER_ERROR],
        }

    def _gradients(self, cell: Cell) -> dict[str, Any]:
        import jax

        from benchmarks.train_step import EncoderDecoder, LossConfig, make_batch, make_loss_fn

        batch = make_batch(VOCABULARY["tiny"], True, cell.rows, cell.inputs, cell.targets)

        def gradient(attention: str, dtype: str) -> Any:
            model = EncoderDecoder(model_config("tiny", attention, dtype))
            loss_fn = make_loss_fn(model, LossConfig())
            params = jax.jit(model.init)(jax.random.key(0))
            key = jax.random.key(1)
            return jax.jit(jax.grad(lambda p: loss_fn(p, batch, key)[0]))(params)

        names = (cell.attention, "einsum")  # first the one that may be refused
        with jax.default_matmul_precision("highest"):
            found = {name: gradient(name, self._dtype) for name in names}
            exact = gradient("einsum", "float32")
        errors = {name: largest_error(tree, exact) for name, tree in found.items()}
        worst, path = errors[cell.attention]
        bias = largest_error(found[cell.attention], exact, "relpos_bias")[0]
        allowed = max(GRADIENT_ERROR, 2 * errors["einsum"][0])
        return {
            "status": "ok" if worst <= allowed else "wrong",
            "gradient_error": worst,
            "of": path,
            "bias_gradient_error": bias,
            "einsum_gradient_error": errors["einsum"][0],
            "allowed": allowed,
        }

    def _decode(self, cell: Cell) -> dict[str, Any]:
        import jax
        import numpy as np

        from instruct.eval.decoding.batching import BatchConfig, Decoder
        from instruct.eval.decoding.decode import DecodeConfig
        from instruct.models.encoder_decoder import EncoderDecoder

        shape = {"slots": 4, "source": 16, "new": 8} if cell.size == "tiny" else DECODE
        config = model_config(cell.size, cell.attention, self._dtype)
        strategy = DecodeConfig(max_decode_steps=shape["new"])
        decoder = Decoder(
            EncoderDecoder(config),
            strategy,
            BatchConfig(shape["slots"]),
            adjust_fn=lambda logits, *_: logits.at[:, strategy.eos_id].set(-jax.numpy.inf),
        )
        draw = np.random.default_rng(0)
        prompts = draw.integers(2, config.vocab_size, (shape["slots"], shape["source"])).tolist()
        params = self._parameters(cell.size, config).params
        secs = []
        for _ in range(2):  # the first one compiles
            started = time.perf_counter()
            generated = decoder.generate(params, prompts)
            secs.append(time.perf_counter() - started)
        assert np.count_nonzero(generated.tokens) == shape["slots"] * shape["new"]
        rate = shape["slots"] * shape["new"] / secs[1]
        return {"new_tokens_per_sec": round(rate), "first_call_secs": round(secs[0], 1), **shape}

    def _train(self, cell: Cell) -> dict[str, Any]:
        import jax

        from benchmarks.train_step import LossConfig, compile_step, make_batch
        from instruct.capacity.chips import chips

        config = model_config(cell.size, cell.attention, self._dtype, cell.remat)
        host_batch = make_batch(config.vocab_size, True, cell.rows, cell.inputs, cell.targets)
        batch, state = jax.device_put(host_batch), self._parameters(cell.size, config)
        compiled, compile_secs = compile_step(config, state, batch, LossConfig(), 1)
        memory = compiled.memory_analysis()

        def run(count: int) -> float:
            started = time.perf_counter()
            for _ in range(count):
                self._state, metrics = compiled(self._state, batch)
            assert jax.numpy.isfinite(metrics.losses.loss.value)  # waits
            return time.perf_counter() - started

        run(1)
        count = max(1, min(20, int(3.0 / run(1))))
        step_secs = run(count) / count
        flops = config.train_flops(cell.rows, cell.inputs, cell.targets) / step_secs
        chip = next((c for n, c in CHIPS.items() if n in self._device.device_kind), "")
        listed = chips()[chip].matmul_flops if chip else None
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        stats = self._device.memory_stats() or {}
        return {
            "remat": cell.remat,
            "step_secs": round(step_secs, 5),
            "steps_timed": count,
            "tflops": round(flops / 1e12, 3),
            "mfu": round(flops / listed, 4) if listed else None,
            "share_of_measured_peak": round(flops / self._measured_peak, 4),
            "tokens_per_sec": round(cell.rows * (cell.inputs + cell.targets) / step_secs),
            "program_gib": round(held / 2**30, 3),
            # Of all cells of this process so far: it cannot be set back.
            "process_peak_gib": round(stats.get("peak_bytes_in_use", 0) / 2**30, 3) or None,
            "compile_secs": round(compile_secs, 1),
        }

    def _parameters(self, size: str, config: Any) -> Any:
        """The training state of a size; attention and remat do not change its shapes."""
        from benchmarks.train_step import first_state

        if self._size != size:
            self._size, self._state = "", None
            gc.collect()
            self._state = first_state(config)
            self._size = size
        return self._state


def model_config(size: str, attention: str, dtype: str, remat: str = "none") -> Any:
    """T5 1.1 of that size, as gin/models and gin/hardware/1xh100.gin have it, without dropout."""
    from instruct.models.config import ModelConfig

    d_model, heads, d_ff, layers = SHAPES[size]
    return ModelConfig(
        vocab_size=VOCABULARY.get(size, 32128),
        d_model=d_model,
        num_heads=heads,
        head_dim=64,
        d_ff=d_ff,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        dtype=dtype,
        scan_layers=True,
        remat=remat,
        attention=attention,
    )


def largest_error(found: Any, expected: Any, part: str = "") -> tuple[float, str]:
    """(largest error of an array, of that array's largest element; its path).

    `part`: compares only arrays with this in their path.
    """
    import jax
    import numpy as np

    errors = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    for (path, one), other in pairs:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if part in name:
            one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
            difference = np.abs(one - other).max() / np.abs(other).max()
            errors.append((float("inf") if np.isnan(difference) else float(difference), name))
    return max(errors)


def run_worker() -> None:
    """Reads cells, writes their results: a line of JSON each."""
    from instruct import compilation_cache

    cache, dtype = sys.argv[2:]
    # 'flash' is cuDNN's on a GPU: the same program, compiled once.
    compilation_cache.use(cache)
    worker = Worker(dtype)
    for line in sys.stdin:
        print(json.dumps(worker.compute(Cell(**json.loads(line)))), flush=True)


class WorkerProcess:
    """A process that runs `run_worker`, with a time limit for every answer."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def compute(self, cell: Cell, limit_secs: float) -> dict[str, Any] | None:
        """The cell's results; None: the process died or was killed after `limit_secs`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(dataclasses.asdict(cell)) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit_secs)
        except (BrokenPipeError, queue.Empty):
            line = ""
        if not line:
            self.kill()
        return json.loads(line) if line else None

    def kill(self) -> None:
        """Ends the process at once; its device memory is free when this returns."""
        self._process.kill()
        self._process.wait()


def measure(
    listed: Sequence[Cell],
    arguments: Sequence[str],
    budget_secs: float,
    record: Callable[[dict[str, Any]], None],
) -> None:
    """Computes the cells in order and records each, within the budget.

    `arguments`: folder of the compilation cache and type of the activations.
    """
    end, worker, start_secs = time.monotonic() + budget_secs, None, 30.0
    for cell in listed:
        named = {"cell": cell.name(), **dataclasses.asdict(cell)}
        left = end - time.monotonic()
        if left < 5:
            record(named | {"status": "skipped", "reason": f"the budget of {budget_secs:g} s"})
            continue
        fresh = worker is None
        worker = worker or WorkerProcess(*arguments)
        # A fresh process imports JAX, opens the device and measures its peak.
        limit = min(left, cell.limit_secs + fresh * start_secs)
        started = time.monotonic()
        results = worker.compute(cell, limit)
        secs = time.monotonic() - started
        if results is None:
            ended = f"longer than {limit:.0f} s" if secs >= limit else "the process died"
            results, worker = {"status": "failed", "reason": ended}, None
        record(named | {"secs": round(secs, 1)} | results)
    if worker is not None:
        worker.kill()


COLUMNS = {
    "status": "",
    "step_secs": "s a step",
    "mfu": "MFU",
    "share_of_measured_peak": "of measured peak",
    "tokens_per_sec": "tokens/s",
    "program_gib": "GiB",
    "new_tokens_per_sec": "new tokens/s",
    "first_loss_error": "first loss",
    "parameter_error": "parameters",
    "gradient_error": "gradient",
    "bias_gradient_error": "bias gradient",
    "reason": "reason",
}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, one row a cell; errors are relative."""
    conditions = next((r for r in results if "device" in r), {})
    names = ("device", "jax", "measured_peak_tflops")
    lines = [", ".join(f"{name} {conditions.get(name, 'unknown')}" for name in names), ""]
    lines += [f"| cell | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for result in results:
        values = [result.get(name) for name in COLUMNS]
        shown = [f"{v:.4g}" if isinstance(v, float) else str(v or "") for v in values]
        lines.append(f"| {result['cell']} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit status 1 if a result is wrong, or nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(OUT))
    parser.add_argument("--budget_secs", type=float, default=440.0)
    parser.add_argument("--tiny", action="store_true", help="a tiny float32 model, any device")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    results = []
    with (flags.out / "gpu.jsonl").open("w") as file:

        def record(result: dict[str, Any]) -> None:
            results.append(result)
            file.write(json.dumps(result) + "\n")
            file.flush()
            reason = f": {result['reason']}" if "reason" in result else ""
            print(f"{result['cell']}: {result['status']}{reason}", flush=True)

        arguments = (str(flags.out / "xla"), "float32" if flags.tiny else "bfloat16")
        measure(cells(flags.tiny), arguments, flags.budget_secs, record)
    (flags.out / "gpu.md").write_text(table(results))
    print(table(results))
    states = {result["status"] for result in results}
    return 1 if "wrong" in states or "ok" not in states else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        run_worker()
    else:
        sys.exit(main())
