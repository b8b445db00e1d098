#!/usr/bin/env bash
# shellcheck disable=SC2153 # the caller sets the variables in capitals
# Runs the program on a TPU slice of a GKE cluster with xpk; it is restarted if a spot slice is taken away.
#
#   launch/gke_xpk.sh [--dry-run] run|logs|delete [ARGUMENTS OF mmunlearner_jax.main...]
#
# Needs xpk and the variables NAME (of the workload), CLUSTER, ZONE, PROJECT, TYPE (v5litepod-16 ...), IMAGE (which has the package with
# its extra 'tpu', and `configs/` in its working directory). Optional: RESTARTS (5). All pods must see the workdir, e.g. a mounted
# bucket. Secrets are those that the cluster mounts into the image; this script passes none.
set -euo pipefail

dry=
if [[ ${1:-} == --dry-run ]]; then
  dry=1
  shift
fi
action=${1:-}
shift || true
for variable in NAME CLUSTER ZONE PROJECT TYPE IMAGE; do
  if [[ -z ${!variable:-} ]]; then
    echo "error: $variable is not set: see the head of $0" >&2
    exit 2
  fi
done
for pattern in 'NAME=^[A-Za-z0-9][-._A-Za-z0-9]*$' 'RESTARTS=^[0-9]{0,4}$'; do
  variable=${pattern%%=*}
  if [[ ! ${!variable:-} =~ ${pattern#*=} ]]; then
    printf 'error: %s is %q: see the head of %s\n' "$variable" "${!variable:0:80}" "$0" >&2
    exit 2
  fi
done
place=(--cluster="$CLUSTER" --zone="$ZONE" --project="$PROJECT")

case $action in
  run)
    arguments=$(printf ' %q' --distributed=on "$@")
    command=(xpk workload create --workload="$NAME" "${place[@]}" --tpu-type="$TYPE" --num-slices=1
      --docker-image="$IMAGE" --max-restarts="${RESTARTS:-5}"
      --command="python3 -m mmunlearner_jax.main$arguments")
    ;;
  logs) command=(kubectl logs --follow --selector="jobset.sigs.k8s.io/jobset-name=$NAME" --max-log-requests=64) ;;
  delete) command=(xpk workload delete --workload="$NAME" "${place[@]}" --force) ;;
  *)
    sed -n '3,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
if [[ -n $dry ]]; then
  printf '%q ' "${command[@]}"
  echo
else
  exec "${command[@]}"
fi
