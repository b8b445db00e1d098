#!/usr/bin/env bash
# Runs the program as N processes on this host, connected over loopback.
#
#   launch/local.sh [--dry-run] N ARGUMENTS...      e.g.  launch/local.sh 2 --config=configs/orl.py --workdir=runs/two
#
# N is 1 to 999. Environment: PYTHON (python3), PORT (29500), DEVICES (CPU devices of each process; unset: JAX decides).
# Ends when all have ended. If one fails, the others are killed, as they would wait for it. SIGTERM is passed to all: they save.
set -euo pipefail

dry=
if [[ ${1:-} == --dry-run ]]; then
  dry=1
  shift
fi
if [[ ! ${1:-} =~ ^[1-9][0-9]{0,2}$ ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
count=$1
shift
for variable in PORT DEVICES; do
  if [[ ! ${!variable:-1} =~ ^[1-9][0-9]{0,4}$ ]]; then
    printf 'error: %s is %q: give a whole number\n' "$variable" "${!variable}" >&2
    exit 2
  fi
done

command=("${PYTHON:-python3}" -m mmunlearner_jax.main --distributed=on "$@")
export JAX_COORDINATOR_ADDRESS="127.0.0.1:${PORT:-29500}" JAX_NUM_PROCESSES=$count
if [[ -n ${DEVICES:-} ]]; then
  export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$DEVICES"
fi
if [[ -n $dry ]]; then
  for ((index = 0; index < count; index++)); do
    echo "JAX_COORDINATOR_ADDRESS=$JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$index$(printf ' %q' "${command[@]}")"
  done
  exit
fi

processes=()
stop() {
  kill "${processes[@]}" 2>/dev/null || true
}
trap stop TERM INT
for ((index = 0; index < count; index++)); do
  JAX_PROCESS_ID=$index "${command[@]}" &
  processes+=($!)
done

status=0
for _ in "${processes[@]}"; do
  wait -n || status=$?
  if ((status == 128 + 15 || status == 128 + 2)); then # a process, or this script, was asked to end
    stop
    wait
    exit "$status"
  elif ((status)); then
    echo "a process ended with status $status, so the others are ended: run the same command to go on" >&2
    kill -KILL "${processes[@]}" 2>/dev/null || true
    break
  fi
done
exit "$status"
