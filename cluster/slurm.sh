#!/usr/bin/env bash
# One study as a Slurm job: Ray on every node of the allocation, `raysd run` on the first. In the repository's root,
# with the environment active in which raysd is installed (one that all nodes see):
#   sbatch cluster/slurm.sh augmentation --data-root /shared/dcase --results /shared/results --cache /tmp/raysd-cache \
#     --set scale.gpus_per_worker=1
# What follows the script's name goes to `raysd run`. Out of time, preempted or killed: the same command goes on.
# Partition, account and another size: sbatch --partition=... --nodes=4 cluster/slurm.sh ...
#SBATCH --job-name=raysd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=4G
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=raysd-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"

# A token of this job alone, which srun passes on.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

# Other jobs and users may be on the same nodes: folder and ports by the job's number. Ray's workers have 10002 to
# 19999, and what is above 32767 is given out at random.
address="$(hostname -I | cut -d ' ' -f 1)"
port=$((20000 + SLURM_JOB_ID % 4000))
folder="/tmp/ray-$SLURM_JOB_ID"
export RAY_ADDRESS="$address:$port"

steps=()
stop() {
  kill "${steps[@]}" 2>/dev/null || true # srun passes it on, and Ray stops
  wait
  srun --ntasks-per-node=1 rm -rf "$folder"
}
trap stop EXIT

on=(--ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK")
options=(--num-cpus="$SLURM_CPUS_PER_TASK" --dashboard-agent-listen-port=0 --temp-dir="$folder")
srun --nodes=1 --nodelist="$SLURMD_NODENAME" "${on[@]}" cluster/start-head.sh "$address" "${options[@]}" \
  --port="$port" --ray-client-server-port=$((port + 8000)) \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 4000)) &
steps+=($!)
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  srun --nodes="$others" --exclude="$SLURMD_NODENAME" "${on[@]}" cluster/start-node.sh "$RAY_ADDRESS" "${options[@]}" &
  steps+=($!)
fi

# A study is started on the nodes that are there, so it waits for all.
all_there='import ray, sys; ray.init(); sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]))'
until timeout 60 python -c "$all_there" "$SLURM_JOB_NUM_NODES" >/dev/null 2>&1; do
  if (($(jobs -rp | wc -l) < ${#steps[@]})); then
    echo "Ray did not start on all nodes" >&2
    exit 1
  fi
  sleep 2
done

raysd run "$@"
