#!/bin/bash
# The stages of one run of a study, one after another; `run.py study --write_jobs` makes jobs of it:
#   launch/stages.sh STUDY_DIR/RUN/run.gin train,eval [FLAGS of each stage ...]
# LAUNCH is the program without a mode. SIGTERM reaches the stage, which saves and ends; no later stage starts then.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
gin_file="$1"
IFS=, read -ra stages <<<"$2"
read -ra launch <<<"${LAUNCH:-${PYTHON:-.venv/bin/python} run.py}"
stopped=""
child=""
trap 'stopped=1; [[ -z "$child" ]] || kill -TERM "$child"' TERM
for stage in "${stages[@]}"; do
  "${launch[@]}" "$stage" --gin_file="$gin_file" "${@:3}" &
  child=$!
  [[ -z "$stopped" ]] || kill -TERM "$child" # it came before this script knew the number
  status=0
  wait "$child" || status=$?
  if [[ -n "$stopped" ]]; then # the signal ended that wait
    status=0
    wait "$child" || status=$?
  fi
  [[ -z "$stopped" && "$status" -eq 0 ]] || exit "$status"
done
