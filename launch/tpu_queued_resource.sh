#!/usr/bin/env bash
# Train on Cloud TPU VMs from a queued resource, taken anew whenever it is preempted, until the run is finished.
#
#   launch/tpu_queued_resource.sh --name=base --zone=us-west4-a --accelerator_type=v5litepod-256 \
#     --runtime_version=v2-alpha-tpuv5-lite --install='eelbert_jax[tpu,gcs] @ git+URL' \
#     -- eelbert pretrain --config=configs/pretrain.py:base --config.data.rows=gs://BUCKET/rows \
#     --workdir=gs://BUCKET/base
#
# Options:
#   --name=NAME              of the queued resource and of its TPU (required)
#   --zone=ZONE              (required)
#   --accelerator_type=TYPE  type and size, such as v5litepod-256 or v5p-128 (required)
#   --runtime_version=VER    system image, such as v2-alpha-tpuv5-lite or v2-alpha-tpuv5 (required)
#   --install=SPEC           what pip installs into /opt/eelbert on every host (required; may be repeated)
#   --share=HOST:/PATH       NFSv4.1 share (Filestore) to mount at /mnt/eelbert on all hosts, in place of a bucket
#   --project=PROJECT        (default: gcloud's)
#   --on_demand              no spot capacity
#   --keep                   leave the TPU there at the end
#   --poll_seconds=N         pause between two looks (default: 60)
#   --dry_run                print the commands of a run without incident, and run nothing
#
# `--distributed` is added to the command, and `--connect_seconds=1800` where it has none: a host that reboots is
# waited for. Each look does the one next thing, so that this script too may be stopped and started again at any
# time. On the hosts the trainer is root's systemd unit: it outlives the connection, is told of a shutdown by SIGTERM,
# and is started again after a crash up to 10 times an hour, never after bad input (status 2).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' accelerator_type='' runtime_version='' share='' install='' project='' dry_run=''
spot=--spot keep='' poll_seconds=60
while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --accelerator_type=*) accelerator_type=${1#*=} ;;
    --runtime_version=*) runtime_version=${1#*=} ;;
    --share=*) share=${1#*=} ;;
    --install=*) install+=" $(quoted "${1#*=}")" ;;
    --project=*) project=${1#*=} ;;
    --on_demand) spot='' ;;
    --keep) keep=yes ;;
    --poll_seconds=*) poll_seconds=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    --help) print_help && exit 0 ;;
    --) shift && break ;;
    *) fail "Unknown option '$1'; the command comes after --." ;;
  esac
  shift
done
for option in name zone accelerator_type runtime_version install; do
  [[ -n "${!option}" ]] || fail "Give --$option."
done
[[ -z "$share" || "$share" == *:/* ]] || fail "--share must be HOST:/PATH of an NFS share, got '$share'."
check_count --poll_seconds "$poll_seconds"
(($#)) || fail "No command: give it after --, for example -- eelbert pretrain --workdir=gs://BUCKET/base."
[[ " $* " == *" --connect_seconds="* ]] || set -- "$@" --connect_seconds=1800

place=(--zone="$zone" ${project:+--project="$project"})
mount=''
[[ -z "$share" ]] || mount="sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q nfs-common &&
sudo mkdir -p /mnt/eelbert &&
{ mountpoint -q /mnt/eelbert || sudo mount -t nfs -o vers=4.1 $(quoted "$share") /mnt/eelbert; } &&
"
setup="${mount}sudo python3 -m pip install -q uv &&
sudo uv venv -q --allow-existing --python=3.12 /opt/eelbert &&
sudo uv pip install -q --python=/opt/eelbert$install"
start="systemctl is-active -q eelbert || { sudo systemctl reset-failed eelbert 2>/dev/null
sudo systemd-run --unit=eelbert --working-directory=/opt/eelbert --remain-after-exit \\
--property=Restart=on-failure --property=RestartSec=30 --property=RestartPreventExitStatus=2 \\
--property=StartLimitIntervalSec=3600 --property=StartLimitBurst=10 --property=TimeoutStopSec=120 \\
env PATH=/opt/eelbert/bin:/usr/bin:/bin $(quoted "$@" --distributed); }"

create() {
  run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" \
    --accelerator-type="$accelerator_type" --runtime-version="$runtime_version" ${spot:+"$spot"}
}
describe() {
  run gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)'
}
delete() {
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}
on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all --command="$1"
}
start_trainers() {
  on_all_hosts "$setup" && on_all_hosts "$start"
}
trainers() { # one word a host: dead (never started), running, exited (finished), failed, ...
  on_all_hosts 'systemctl show eelbert --property=SubState --value'
}
logs() {
  on_all_hosts 'journalctl --unit=eelbert --lines=30 --no-pager'
}

if [[ "$dry_run" ]]; then
  create && describe && start_trainers && trainers && logs
  [[ "$keep" ]] || delete
  exit 0
fi

say() {
  echo "$(date '+%F %T') $name: $*" >&2
}

# Print the logs, give the TPU back and end: status.
finish() {
  logs || true
  [[ "$keep" ]] || delete || say "deleting failed: look for it, it costs money"
  exit "$1"
}

# Run a step that the next look may repeat; five failures in a row end it all.
failures=0
attempt() {
  if "$@"; then
    failures=0
  else
    failures=$((failures + 1))
    say "$1 failed, $failures in a row"
    if ((failures >= 5)); then
      [[ "$1" != create ]] || exit 1 # whatever has this name now, we did not make it
      finish 1
    fi
  fi
}

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

while true; do
  if ! state=$(describe 2>"$errors"); then
    # Only gcloud's word that there is none makes us ask for one: the network or a login may fail too.
    if grep -q NOT_FOUND "$errors"; then state=absent; else state="unknown: $(tr '\n' ' ' <"$errors")"; fi
  fi
  say "$state"
  case $state in
    absent) attempt create ;;
    SUSPENDED | FAILED) attempt delete ;;
    ACTIVE)
      states=$(trainers 2>/dev/null | sort -u | tr '\n' ' ') || states=unreachable
      say "trainers: $states"
      case $states in
        *failed*) finish 1 ;;
        'exited ') finish 0 ;;
        *dead*) attempt start_trainers ;;
      esac
      ;;
  esac
  sleep "$poll_seconds"
done
