#!/bin/bash
# One Ray cluster over the nodes of the allocation, for the time of the run:
#   sbatch --nodes=4 slurm.sh /shared/sources.yaml
# Output and sources lie on a file system that all nodes mount, or at URIs. A requeued or resubmitted job goes on.
#SBATCH --job-name=human-motion
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=human-motion-%j.log
set -euo pipefail
sources=$1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk '{print $1; exit}')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}   # of this cluster alone
started=$(mktemp -u)   # a Ray that cannot be started ends with 0 all the same
trap 'rm -f "$started"' EXIT
# Ray leaves its process group: without cgroups, Slurm ends neither it with a cancelled or requeued job, nor what such a
# job left here, and a second Ray does not start beside it. The nodes are this job's alone.
srun bash -c 'trap "ray stop --force" EXIT; ray stop --force; "$@"' _ \
    ray symmetric-run --address "$address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_ON_NODE" -- sh -c 'touch "$0" && exec python -m curation.run "$1"' "$started" "$sources"
[ -e "$started" ] || { echo "Ray could not be started, nothing was run" >&2; exit 1; }
