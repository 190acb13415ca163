#!/usr/bin/env bash
# Train on all GPUs of this host, one process a GPU, and keep it going.
#
#   launch/gpu_host.sh -- eelbert pretrain --config=configs/pretrain.py:base --workdir=runs/base ...
#
# Options:
#   --gpus=N          how many GPUs (default: all that nvidia-smi lists)
#   --port=PORT       where process 0 listens (default: 8476)
#   --max_restarts=N  how often to start again after a crash (default: 3)
#   --dry_run         print the commands and run nothing
#
# Variables that are set already are left as they are. The exit status is that of launch/local.sh.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/common.sh
source "$here/common.sh"

gpus='' options=()
while (($#)); do
  case "$1" in
    --gpus=*) gpus=${1#*=} ;;
    --port=* | --max_restarts=* | --dry_run) options+=("$1") ;;
    --help) print_help && exit 0 ;;
    --) shift && break ;;
    *) fail "Unknown option '$1'; the command comes after --." ;;
  esac
  shift
done
if [[ -z "$gpus" ]]; then
  gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)
  ((gpus)) || fail "nvidia-smi lists no GPU on this host; name their number with --gpus=N."
fi
check_count --gpus "$gpus"
(($#)) || fail "No command: give it after --, for example -- eelbert pretrain --workdir=runs/base."

# O1 lets XLA hide communication and fuse more at some cost of compile time; the cache saves that on a restart.
variables=(
  JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"
  JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/eelbert_jax/compiled}"
  XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"
  XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
)
exec "$here/local.sh" --processes="$gpus" --gpus "${options[@]}" -- env "${variables[@]}" "$@"
