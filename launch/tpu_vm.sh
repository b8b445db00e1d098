#!/usr/bin/env bash
# shellcheck disable=SC2153 # the caller sets the variables in capitals
# Runs the program on all workers of a TPU VM slice, and again if a spot slice is taken away.
#
#   launch/tpu_vm.sh [--dry-run] create|install|run|logs|delete|all [ARGUMENTS OF mmunlearner_jax.main...]
#
# Needs gcloud and the variables NAME (of the slice), ZONE, TYPE (v5litepod-16 ...), VERSION (of the runtime, v2-alpha-tpuv5-lite ...),
# SOURCE (what pip installs on the workers: a git+https URL or a package), CONFIG (a local config file, whose folder is copied: configs/llava.py).
# Optional: PROJECT (default: gcloud's), SPOT=1, TRIES (5: how often a spot slice is created). All workers must see the workdir, e.g. a
# mounted bucket. This script passes no secrets: log in to Hugging Face on the workers.
# `all` creates the slice if there is none, installs and runs; if the slice is taken away, it does so again.
set -euo pipefail

dry=
if [[ ${1:-} == --dry-run ]]; then
  dry=1
  shift
fi
action=${1:-}
shift || true
case $action in
  create | install | run | logs | delete | all) ;;
  *)
    sed -n '3,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
for variable in NAME ZONE TYPE VERSION SOURCE CONFIG; do
  if [[ -z ${!variable:-} ]]; then
    echo "error: $variable is not set: see the head of $0" >&2
    exit 2
  fi
done
# Checked before any use as a number or an option: in arithmetic, Bash runs commands within an index.
for pattern in 'NAME=^[A-Za-z0-9][-._A-Za-z0-9]*$' 'CONFIG=^[^-]' 'SPOT=^[01]?$' 'TRIES=^([1-9][0-9]{0,2})?$' 'LOOK_EVERY=^[0-9]{0,4}$'; do
  variable=${pattern%%=*}
  if [[ ! ${!variable:-} =~ ${pattern#*=} ]]; then
    printf 'error: %s is %q: see the head of %s\n' "$variable" "${!variable:0:80}" "$0" >&2
    exit 2
  fi
done

place=(--zone="$ZONE")
if [[ -n ${PROJECT:-} ]]; then
  place+=(--project="$PROJECT")
fi
# The text after a colon is the config's own argument (configs/llava_mllmu.py:ratio=10).
file=${CONFIG%%:*}
folder=$(dirname -- "$file")
log=mmunlearner.log

# Prints a command, or runs it.
do_it() {
  if [[ -n $dry ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_workers() { # arguments: workers, command
  do_it gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$1" --command="$2"
}

create() {
  local spot=()
  if [[ ${SPOT:-} == 1 ]]; then
    spot=(--spot)
  fi
  if [[ -z $dry ]] && gcloud compute tpus tpu-vm describe "$NAME" "${place[@]}" >/dev/null 2>&1; then
    echo "$NAME is there already and is used" >&2
    return
  fi
  do_it gcloud compute tpus tpu-vm create "$NAME" "${place[@]}" --accelerator-type="$TYPE" --version="$VERSION" "${spot[@]}"
}

install() {
  on_workers all "python3 -m venv ~/mmu && ~/mmu/bin/pip install --quiet $(printf '%q' "mmunlearner_jax[tpu] @ $SOURCE")"
  # The whole folder, because configs import one another.
  do_it gcloud compute tpus tpu-vm scp --recurse "$folder" "$NAME:" "${place[@]}" --worker=all
}

run() {
  local arguments
  arguments=$(printf ' %q' "--config=$(basename -- "$folder")/${file##*/}${CONFIG#"$file"}" "$@")
  on_workers all "set -o pipefail; ~/mmu/bin/python -m mmunlearner_jax.main --distributed=on$arguments 2>&1 | tee -a ~/$log"
}

# A run that saved in time ends before its slice, so the state is polled for a minute.
taken_away() {
  local look state
  for look in 1 2 3 4 5 6; do
    state=$(gcloud compute tpus tpu-vm describe "$NAME" "${place[@]}" --format='value(state)' 2>/dev/null || echo GONE)
    if [[ $state != READY ]]; then
      return 0
    fi
    ((look == 6)) || sleep "${LOOK_EVERY:-10}"
  done
  return 1
}

delete() {
  do_it gcloud compute tpus tpu-vm delete "$NAME" "${place[@]}" --quiet
}

all() {
  local try
  for ((try = 1; try <= ${TRIES:-5}; try++)); do
    create
    install
    if run "$@"; then
      return
    fi
    if ! taken_away; then
      echo "error: the run failed or was stopped, and the slice is there: see ~/$log on its workers (launch/tpu_vm.sh logs)" >&2
      return 1
    fi
    echo "the slice was taken away (try $try): made again, the run goes on in its workdir" >&2
    delete || true
  done
  echo "error: the slice was taken away ${TRIES:-5} times; run the same command again to go on" >&2
  return 1
}

case $action in
  logs) on_workers 0 "tail -n 100 -f ~/$log" ;;
  *) "$action" "$@" ;;
esac
