#!/usr/bin/env bash
# Joins this machine to a cluster, in the foreground; Ctrl-C takes it out again. It waits five minutes for the head.
#
#   cluster/start-node.sh 10.0.0.1:6379                  the address that cluster/start-head.sh was given
#   cluster/start-node.sh 10.0.0.1:6379 --num-gpus=2     what follows goes to `ray start`
set -euo pipefail

head="${1:?usage: cluster/start-node.sh HEAD_ADDRESS:6379 [options of ray start]}"
shift

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
if ! ray get-auth-token >/dev/null 2>&1; then
  echo "no token here: copy ~/.ray/auth_token from the head node (readable by you alone)" >&2
  exit 2
fi

for ((second = 0; second < 300; second++)); do
  (: </dev/tcp/"${head%:*}"/"${head##*:}") 2>/dev/null && break
  sleep 1
done

exec ray start --block --disable-usage-stats --address="$head" --dashboard-agent-listen-port=0 "$@"
