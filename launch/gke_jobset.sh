#!/usr/bin/env bash
# Train on a TPU slice of a GKE cluster: build a JobSet for it and hand it to kubectl.
#
#   launch/gke_jobset.sh --name=base --image=REGISTRY/eelbert:1 --accelerator=tpu-v5-lite-podslice \
#     --topology=16x16 -- eelbert pretrain --config=configs/pretrain.py:base \
#     --config.data.rows=gs://BUCKET/rows --workdir=gs://BUCKET/base
#
# Options:
#   --name=NAME           of the JobSet (required)
#   --image=IMAGE         container image with the package installed (required)
#   --accelerator=LABEL   tpu-v5-lite-podslice, tpu-v5p-slice or tpu-v6e-slice (required)
#   --topology=AxB[xC]    of the slice's chips (required)
#   --claim=NAME          persistent volume claim, ReadWriteMany, to mount at /mnt/eelbert, in place of a bucket
#   --chips_per_host=N    (default: 4, right for every slice of several hosts)
#   --max_restarts=N      restarts of the whole set, preemptions included (default: 100)
#   --on_demand           no spot nodes
#   --dry_run             print the manifest and the command, and run nothing
#
# Needs the JobSet controller, 0.6 or newer, in the cluster. One lost host restarts all of them, and the trainer
# resumes; bad input (status 2) ends the set. `--connect_seconds=1800` is added to a command that has none, since
# the hosts' containers do not start at one time.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' image='' accelerator='' topology='' claim='' chips_per_host=4 max_restarts=100 spot=yes dry_run=''
while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --chips_per_host=*) chips_per_host=${1#*=} ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --on_demand) spot='' ;;
    --dry_run) dry_run=yes ;;
    --help) print_help && exit 0 ;;
    --) shift && break ;;
    *) fail "Unknown option '$1'; the command comes after --." ;;
  esac
  shift
done
for option in name image accelerator topology; do
  [[ -n "${!option}" ]] || fail "Give --$option."
done
[[ "$name" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "--name must be lower-case letters, digits and -, got '$name'."
[[ "$topology" =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || fail "--topology must be AxB or AxBxC, got '$topology'."
check_count --chips_per_host "$chips_per_host"
check_count --max_restarts "$max_restarts"
(($#)) || fail "No command: give it after --, for example -- eelbert pretrain --workdir=gs://BUCKET/base."
[[ " $* " == *" --connect_seconds="* ]] || set -- "$@" --connect_seconds=1800
chips=$((${topology//x/*}))
((chips % chips_per_host == 0)) || fail "$topology has $chips chips, no multiple of --chips_per_host=$chips_per_host."
hosts=$((chips / chips_per_host))

# Print words as the items of a JSON list, with $( kept from Kubernetes, which would expand it.
json_list() {
  local word separator=''
  for word in "$@"; do
    word=${word//\\/\\\\}
    word=${word//\"/\\\"}
    printf '%s"%s"' "$separator" "${word//\$(/\$\$(}"
    separator=', '
  done
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
    - name: badInput
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: trainer
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        completions: $hosts
        parallelism: $hosts
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: trainer, operator: In, values: [2]}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 120
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $accelerator
              cloud.google.com/gke-tpu-topology: $topology
${spot:+              cloud.google.com/gke-spot: \"true\"
}            containers:
            - name: trainer
              image: "$image"
              command: [$(json_list "$@")]
              ports:
              - containerPort: 8471
              - containerPort: 8482
              securityContext: {privileged: true}
              resources:
                limits: {google.com/tpu: $chips_per_host}
YAML
  [[ -z "$claim" ]] || cat <<YAML
              volumeMounts:
              - {name: shared, mountPath: /mnt/eelbert}
            volumes:
            - name: shared
              persistentVolumeClaim: {claimName: $claim}
YAML
}

if [[ "$dry_run" ]]; then
  manifest "$@"
  echo "# kubectl apply --filename=-"
else
  manifest "$@" | kubectl apply --filename=-
fi
