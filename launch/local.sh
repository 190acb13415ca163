#!/usr/bin/env bash
# Start one command as several processes of one machine that find each other on loopback, and keep it going.
#
#   launch/local.sh --processes=2 -- eelbert pretrain --config.data.rows=runs/rows --workdir=runs/tiny
#
# Options:
#   --processes=N     how many processes (required)
#   --port=PORT       where process 0 listens (default: 8476)
#   --gpus            give process I the GPU of number I
#   --max_restarts=N  how often to start again after a crash (default: 3)
#   --dry_run         print the commands and run nothing
#
# Ends with 0 when the run is finished, 2 for bad input, 75 when it was told to stop (SIGTERM, Ctrl-C) and all
# processes saved first: then, as after any crash, the same command continues the run.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes='' port=8476 gpus='' max_restarts=3 dry_run=''
while (($#)); do
  case "$1" in
    --processes=*) processes=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --gpus) gpus=yes ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    --help) print_help && exit 0 ;;
    --) shift && break ;;
    *) fail "Unknown option '$1'; the command comes after --." ;;
  esac
  shift
done
check_count --processes "$processes"
check_count --port "$port"
[[ "$max_restarts" =~ ^[0-9]+$ ]] || fail "--max_restarts must be a whole number from 0, got '$max_restarts'."
(($#)) || fail "No command: give it after --, for example -- eelbert pretrain --workdir=runs/tiny."

stopping='' pids=()

# SIGTERM, and Ctrl-C, go on to the processes as SIGTERM: they save at a step on which they agree, and end with 75.
pass_on() {
  stopping=yes
  ((${#pids[@]} == 0)) || kill -TERM "${pids[@]}" 2>/dev/null || true
}
[[ "$dry_run" ]] || trap pass_on TERM INT

# Start process $1 of the command that follows, in the background.
start() {
  local index=$1 variables
  shift
  variables=(JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$processes" JAX_PROCESS_ID="$index")
  if [[ "$gpus" ]]; then
    variables+=(JAX_LOCAL_DEVICE_IDS="$index")
    # A process alone joins nothing, and only who joins heeds the line above.
    ((processes > 1)) || variables+=(CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}")
  fi
  if [[ "$dry_run" ]]; then
    run env "${variables[@]}" "$@"
  else
    env "${variables[@]}" "$@" &
    pids+=("$!")
  fi
}

# Run all processes once; return 2 where one found bad input, else the first bad status, else 75 or 0.
# Each is asked for by its number: `wait -n` can lose one of two that end at once, and says 127 then.
run_once() {
  local outcome=0 status pid
  local -A running=()
  pids=()
  for ((index = 0; index < processes; index++)); do start "$index" "$@"; done
  for pid in "${pids[@]}"; do running[$pid]=yes; done
  while ((${#running[@]})); do
    for pid in "${!running[@]}"; do
      ! kill -0 "$pid" 2>/dev/null || continue
      status=0
      wait "$pid" || status=$?
      unset "running[$pid]"
      pids=("${!running[@]}") # its number may be another's from now on
      case $status in
        0) ;;
        75) ((outcome)) || outcome=75 ;;
        *)
          if ((outcome == 0 || outcome == 75)); then
            outcome=$status
            sleep 5 # for what the others have to say of it; then they would wait for the lost one
            kill -KILL "${pids[@]}" 2>/dev/null || true
          elif ((status == 2)); then
            outcome=2
          fi
          ;;
      esac
    done
    sleep 0.2
  done
  return "$outcome"
}

crashes=0
while true; do
  status=0
  run_once "$@" || status=$?
  case $status in
    0 | 2) exit "$status" ;;
    75) [[ -z "$stopping" ]] || exit 75 ;;
    *)
      [[ -z "$stopping" ]] || exit "$status"
      crashes=$((crashes + 1))
      ((crashes <= max_restarts)) || exit "$status"
      ;;
  esac
  echo "local.sh: the processes ended with status $status; starting the same command again" >&2
done
