"""The estimate of `check --topology` beside public step times.

    PYTHONPATH=. python benchmarks/estimate_check.py t5_xl_a100
    PYTHONPATH=. python benchmarks/estimate_check.py decoder_70b_v5p

t5_xl_a100       NVIDIA's T5X (JAX-Toolbox, rosetta/projects/t5x/README.md): T5 1.1 XL on 144 A100,
                 8 rows of 512 + 114 tokens a GPU, no tensor parallelism, 21.0 sequences/s a GPU.
t5_large_a100    the same table: large on 64 A100, 32 rows a GPU, 75.8 sequences/s a GPU.
decoder_70b_v5p  MaxText's README: Llama 2 70B on v5p, 65.4 % MFU.

The programs are this project's, so what is compared is near, not equal; each case says what
differs. No constant of the estimate is fitted to them.
"""

import argparse
import pathlib
import tempfile

from instruct.capacity.chips import parse_topology
from instruct.capacity.estimate import estimate_step
from instruct.capacity.hlo import read_program
from instruct.capacity.network import make_network
from instruct.cli import arguments, topology
from instruct.models.config import ModelConfig

T5_XL = {"d_model": 2048, "num_heads": 32, "d_ff": 5120}
T5_LARGE = {"d_model": 1024, "num_heads": 16, "d_ff": 2816}
T5 = {"vocab_size": 32128, "head_dim": 64, "num_encoder_layers": 24, "num_decoder_layers": 24}
# Llama 2 70B's width and depth as an encoder; one decoder layer, which this model must have.
LLAMA_70B = {
    **{"vocab_size": 32128, "d_model": 8192, "num_heads": 64, "head_dim": 128, "d_ff": 28672},
    **{"num_encoder_layers": 80, "num_decoder_layers": 1, "activations": "gated-silu"},
}
CASES = {
    "t5_xl_a100": {
        "model": T5 | T5_XL | {"remat": "none"},
        "rows_per_device": 8,
        "lengths": (512, 114),
        "compiled_for": "v5p:4x4x8",
        "mesh": "data=128",
        "timed_on": "a100:128",
        "public_mfu": lambda flops_per_row: 21.0 * flops_per_row / 312e12,
        "differs": "128 GPUs for 144, Adafactor for Adam; the TPU compiler's program at its least "
        "effort, which keeps no array on chip, in place of XLA's for GPUs",
    },
    "t5_large_a100": {
        "model": T5 | T5_LARGE | {"remat": "none"},
        "rows_per_device": 32,
        "lengths": (512, 114),
        "compiled_for": "v5p:4x4x4",
        "mesh": "data=64",
        "timed_on": "a100:64",
        "public_mfu": lambda flops_per_row: 75.8 * flops_per_row / 312e12,
        "differs": "as t5_xl_a100, but for the same number of GPUs",
    },
    "decoder_70b_v5p": {
        "model": LLAMA_70B | {"remat": "full"},
        "rows_per_device": 4,
        "lengths": (2048, 128),
        "compiled_for": "v5p:4x4x4",
        "mesh": "fsdp=64",
        "timed_on": None,
        "public_mfu": lambda flops_per_row: 0.654,
        "differs": "an encoder with attention to both sides and 64 key-value heads, all layers "
        "recomputed where MaxText saves projections: 0.75 of the MFU without recomputation",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--full", action="store_true", help="compile with full effort")
    flags = parser.parse_args()
    case = CASES[flags.case]
    where = parse_topology(case["compiled_for"])
    rows, lengths = case["rows_per_device"] * where.num_chips, case["lengths"]
    model = case["model"] | {"dtype": "bfloat16", "scan_layers": True}
    gin = [f"--gin_bindings=config.ModelConfig.{k} = {v!r}" for k, v in model.items()]
    named = dict(zip(("inputs", "targets"), lengths))
    files = ["--gin_file=gin/runs/train.gin", "--gin_file=gin/models/tiny.gin"]
    data = [f"--gin.BATCH_SIZE={rows}", f"--gin.TASK_FEATURE_LENGTHS={named}"]
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "program"
        command = ["check", *files, *gin, *data, f"--mesh={case['mesh']}", f"--hlo={text}"]
        command += [f"--topology={case['compiled_for']}", *["--quick"] * (not flags.full)]
        report = topology.compile_in_child(arguments.parse(command))
        program = read_program((pathlib.Path(folder) / "program.train.hlo").read_text())
    train = report["programs"]["train"]
    estimate_secs, mfu = train["estimate"]["seconds"], train["mfu"]
    if case["timed_on"]:
        machine = parse_topology(case["timed_on"])
        network = make_network(machine, list(report["mesh"].items()), None)
        estimate = estimate_step(program, network, overlap=True)
        estimate_secs = estimate.seconds
        peak = machine.num_chips * machine.chip.matmul_flops
        mfu = train["model_flops"] / peak / estimate_secs
        print({name: round(secs, 4) for name, secs in estimate.bounds.items()}, estimate.limit)
    public = case["public_mfu"](ModelConfig(**model).train_flops(1, *lengths))
    print(
        f"{flags.case}: estimated step {estimate_secs:.3f} s, MFU {mfu:.1%}; public {public:.1%}; "
        f"compiled by {report['compiler']} in {train['compile_secs']:.0f} s. Differs: "
        f"{case['differs']}"
    )


if __name__ == "__main__":
    main()
