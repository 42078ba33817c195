#!/bin/bash
# TPU VMs by gcloud, all hosts of a slice at once; from the checkout's folder, with gcloud logged in:
#   export TPU_NAME=flan ZONE=us-east5-a
#   launch/tpu_vm.sh create v5p-128 [--spot and other flags of gcloud]
#   launch/tpu_vm.sh install                                    # the checkout's last commit, on every host
#   launch/tpu_vm.sh run train --gin_file=... --gin.MODEL_DIR=gs://BUCKET/runs/a --gin.STORE_DIR=gs://BUCKET/stores
#   launch/tpu_vm.sh watch                                      # the log of host 0; Ctrl-C leaves the run alone
#   launch/tpu_vm.sh stop                                       # SIGTERM: the run saves and ends
#   launch/tpu_vm.sh delete
# JAX reads the slice from the VM's metadata. `run` goes on when the connection breaks; run.log is on every host.
set -euo pipefail
: "${TPU_NAME:?export TPU_NAME, a name for the slice}" "${ZONE:?export ZONE, such as us-east5-a}"

tpu() { # COMMAND [FLAG ...]
  gcloud compute tpus tpu-vm "$1" "$TPU_NAME" --zone="$ZONE" "${@:2}"
}

on_hosts() { # HOSTS SHELL_COMMAND
  tpu ssh --worker="$1" --command="$2"
}

case "${1:-}" in
  create)
    type="${2:?give an accelerator type, such as v5p-128}"
    case "$type" in
      v6e-*) version=v2-alpha-tpuv6e ;;
      v5p-*) version=v2-alpha-tpuv5 ;;
      v5litepod-*) version=v2-alpha-tpuv5-lite ;;
      v4-*) version=tpu-ubuntu2204-base ;;
      *) echo "error: unknown accelerator type $type; use v4-N, v5litepod-N (v5e), v5p-N or v6e-N" >&2; exit 2 ;;
    esac
    tpu create --accelerator-type="$type" --version="$version" "${@:3}"
    ;;
  install)
    archive="$(mktemp -d)/instruct.tar.gz"
    git archive --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:" --zone="$ZONE" --worker=all
    # uv brings Python 3.11; the VM's own is older.
    on_hosts all 'set -e
      rm -rf instruct && mkdir instruct && tar -xzf instruct.tar.gz -C instruct && cd instruct
      python3 -m pip install --quiet --user uv
      python3 -m uv venv --quiet --python=3.11 .venv
      python3 -m uv pip install --quiet --python=.venv/bin/python -c constraints.txt -e ".[tpu]"'
    ;;
  run)
    [[ $# -ge 2 ]] || { echo "error: give a mode of run.py and its flags" >&2; exit 2; }
    on_hosts all "cd instruct && { setsid nohup .venv/bin/python run.py $(printf '%q ' "${@:2}") \
      </dev/null >>../run.log 2>&1 & echo \$! >../run.pid; }"
    ;;
  watch) on_hosts 0 'tail -n 40 -F run.log' ;;
  stop)
    # shellcheck disable=SC2016 # expands on the hosts
    on_hosts all 'kill -TERM "$(cat run.pid)"'
    ;;
  delete) tpu delete "${@:2}" ;;
  *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
