#!/bin/bash
# Step time, MFU, memory, decoding speed and correctness on one H200 or H100, in under eight minutes (benchmarks/gpu.py).
#   benchmarks/gpu.sh                   results in runs/gpu: gpu.jsonl, gpu.md; OUT names another folder
#   benchmarks/gpu.sh --tiny            the same program with a tiny model, on a CPU too
# PYTHON names another interpreter than .venv/bin/python; it needs jax with CUDA, flax, optax and numpy.
set -euo pipefail
cd "$(dirname "$0")/.."
# Nothing else uses the GPU, and the largest cells need most of it.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.95}"
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
python="${PYTHON:-.venv/bin/python}"
[[ -x "$python" ]] || python=python3
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
exec timeout --kill-after=5 475 "$python" benchmarks/gpu.py --out="${OUT:-runs/gpu}" "$@"
