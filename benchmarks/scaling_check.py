"""Asserts that FLOPs a device fall as 1/n and that FSDP's traffic is what its design says.

    PYTHONPATH=. python benchmarks/scaling_check.py v5e:1x1 v5e:2x2 v5e:2x4 v5e:8x8 v5e:16x16
    PYTHONPATH=. python benchmarks/scaling_check.py --cpu 1 2 4 8 64 256

One model (3 + 3 layers, d_model 4,096, so that 256 shares of a kernel fill tiles) and one batch
(256 rows of 128 + 32 tokens) on all of them, fsdp over all chips, full remat, compiled with
`--quick`. The design, in bytes of whole buffers, of which a device sends (n - 1) / n:

    all-gather      every kernel in bfloat16, once forward and once for the recomputation backward
    reduce-scatter  every kernel's gradient once, in bfloat16 or float32; on some slices the
                    compiler writes it as permutes of the same bytes
    no all-gather or all-reduce of a whole embedding or of logits

Exit status 1 if one of them does not hold. There is no slice of two TPU chips.
"""

import argparse
import sys

from instruct.cli import arguments, topology
from instruct.models.config import ModelConfig

SIZES = {
    "vocab_size": 8192,
    "d_model": 4096,
    "num_heads": 16,
    "head_dim": 64,
    "d_ff": 2048,
    "num_encoder_layers": 3,
    "num_decoder_layers": 3,
}
ROWS, LENGTHS = 256, (128, 32)
# FLOPs on n devices against 1/n of those on one.
MOST_FLOPS_OFF = 0.03
# Traffic against the design's.
MOST_TRAFFIC = 1.25


def report(name: str, fsdp: int) -> dict:
    bindings = SIZES | {"dtype": "bfloat16", "scan_layers": True, "remat": "full"}
    gin = [f"--gin_bindings=config.ModelConfig.{k} = {v!r}" for k, v in bindings.items()]
    lengths = dict(zip(("inputs", "targets"), LENGTHS))
    files = ["--gin_file=gin/runs/train.gin", "--gin_file=gin/models/tiny.gin"]
    data = [f"--gin.BATCH_SIZE={ROWS}", f"--gin.TASK_FEATURE_LENGTHS={lengths}"]
    command = ["check", *files, *gin, *data, f"--mesh=fsdp={fsdp}", f"--topology={name}", "--quick"]
    return topology.compile_in_child(arguments.parse(command))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topologies", nargs="*")
    parser.add_argument("--cpu", type=int, nargs="*", default=[], help="numbers of fake devices")
    flags = parser.parse_args()
    model = ModelConfig(**SIZES)
    embeddings = 2 * model.vocab_size * model.d_model
    kernels = model.num_params() - embeddings
    names = flags.topologies + [f"a100:{count}" for count in flags.cpu]
    reports = [report(name, topology.parse_topology(name).num_chips) for name in names]
    alone = next((r["programs"]["train"]["flops"] for r in reports if r["chips"] == 1), None)
    faults = []
    for found in reports:
        train, chips = found["programs"]["train"], found["chips"]
        flops = train["flops"] * chips / (alone or train["model_flops"])
        moved = {"all-gather": 0, "reduce-scatter": 0, "collective-permute": 0, "all-reduce": 0}
        for traffic in train["estimate"]["traffic"]:
            moved[traffic["kind"]] = moved.get(traffic["kind"], 0) + traffic["num_bytes"]
        shares = {
            "all-gather": moved["all-gather"] / (2 * 2 * kernels),
            "reduce-scatter": scattered(moved) / (4 * kernels),
        }
        print(
            f"{found['topology']} ({found['compiler']}): FLOPs x n {flops:.4f} of one device's; "
            + ", ".join(f"{kind} {size / 2**20:.1f} MiB" for kind, size in moved.items())
            + "; of the design "
            + ", ".join(f"{kind} {share:.2f}" for kind, share in shares.items()),
            flush=True,
        )
        if alone and abs(flops - 1) > MOST_FLOPS_OFF:
            faults.append(f"{found['topology']}: FLOPs x n are {flops:.3f} of one device's")
        if chips > 1:
            faults += design_faults(found, moved, kernels, embeddings)
    for fault in faults:
        print(f"FAULT {fault}")
    return int(bool(faults))


def scattered(moved: dict) -> int:
    """Bytes of reduce-scatters, those that are written as permutes too."""
    return moved["reduce-scatter"] + moved["collective-permute"]


def design_faults(found: dict, moved: dict, kernels: int, embeddings: int) -> list[str]:
    name, faults = found["topology"], []
    if not found["compiler"].startswith("libtpu"):
        return []  # XLA for CPU writes neither reduce-scatter nor all-gather reliably
    # Embedding and output kernel may be gathered once each, in bfloat16.
    most = MOST_TRAFFIC * (2 * 2 * kernels + 2 * embeddings)
    if not 2 * 2 * kernels / MOST_TRAFFIC <= moved["all-gather"] <= most:
        faults.append(f"{name}: all-gathers move {moved['all-gather']:,} bytes, not {most:,.0f}")
    if scattered(moved) < 2 * kernels / MOST_TRAFFIC:
        faults.append(f"{name}: reduce-scatters move {scattered(moved):,} bytes")
    if moved["all-reduce"] > 0.1 * 4 * kernels:
        faults.append(f"{name}: all-reduces move {moved['all-reduce']:,} bytes: whole gradients")
    return faults


if __name__ == "__main__":
    sys.exit(main())
