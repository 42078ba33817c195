#!/bin/bash
# A mode of run.py on TPU slices of a GKE cluster, by XPK (pip install xpk), from the checkout's folder:
#   export CLUSTER=tpus IMAGE=us-docker.pkg.dev/PROJECT/REPOSITORY/instruct:1
#   launch/gke_xpk.sh build
#   launch/gke_xpk.sh run flan-xl v5p-128 1 train --gin_file=... --gin.MODEL_DIR=gs://BUCKET/runs/a
#                         WORKLOAD TYPE SLICES MODE FLAGS ...
#   launch/gke_xpk.sh stages scaling-0-3 v5p-64 1 gs://BUCKET/study/RUN/run.gin train,eval     # a run of a study
# XPK's own commands watch and end a workload: xpk workload list, xpk workload delete --workload=flan-xl.
# XPK_FLAGS adds flags for `xpk workload create`, such as "--project=P --zone=Z --priority=high".
# JAX reads the slices from GKE's variables. `exec` lets SIGTERM reach the program: a pod
# that is to go away has 300 s to save, and its restart resumes.
set -euo pipefail
: "${IMAGE:?export IMAGE, the address of the docker image}"

create() { # WORKLOAD TYPE SLICES COMMAND
  read -ra more <<<"${XPK_FLAGS:-}" # below with +: bash before 4.4 (macOS) calls an empty array unbound
  xpk workload create \
    --cluster="${CLUSTER:?export CLUSTER, the name of the GKE cluster}" \
    --workload="$1" --tpu-type="$2" --num-slices="$3" --docker-image="$IMAGE" \
    --max-restarts=20 --termination-grace-period-seconds=300 ${more[@]+"${more[@]}"} \
    --command="exec $4"
}

case "${1:-}" in
  build)
    docker build --file=launch/Dockerfile --build-arg=BACKEND=tpu --tag="$IMAGE" .
    docker push "$IMAGE"
    ;;
  run)
    [[ $# -ge 5 ]] || { echo "error: give WORKLOAD TYPE SLICES MODE FLAGS ..., see the head of $0" >&2; exit 2; }
    create "$2" "$3" "$4" "python run.py $(printf '%q ' "${@:5}")"
    ;;
  stages)
    [[ $# -ge 6 ]] || { echo "error: give WORKLOAD TYPE SLICES RUN_GIN STAGES, see the head of $0" >&2; exit 2; }
    create "$2" "$3" "$4" "env PYTHON=python bash launch/stages.sh $(printf '%q ' "${@:5}")"
    ;;
  *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
