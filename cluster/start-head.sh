#!/usr/bin/env bash
# Starts the first node of a Ray cluster in the foreground; Ctrl-C stops all that it started.
#
#   cluster/start-head.sh                          this machine; its dashboard takes jobs from this machine alone
#   cluster/start-head.sh 10.0.0.1                 10.0.0.1: this machine's address in the cluster's network
#   cluster/start-head.sh 10.0.0.1 --num-gpus=2    what follows goes to `ray start`
set -euo pipefail

address=(--dashboard-host=127.0.0.1)
if [[ $# -gt 0 && $1 != -* ]]; then
  address=(--node-ip-address="$1" --dashboard-host="$1")
  shift
fi

# Whoever has the token can run code here. The first start makes it; all nodes and submitting machines need the same.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
(umask 077 && ray get-auth-token --generate >/dev/null)

# The dashboard takes jobs, and Ray Train needs it to clean up after a trial that is stopped. Nodes take jobs at a free
# port: that of Ray's own choice may be another Ray's, for instance that of a `raysd run`.
exec ray start --head --block --disable-usage-stats --include-dashboard=true \
  "${address[@]}" --port=6379 --dashboard-port=8265 --dashboard-agent-listen-port=0 "$@"
