#!/usr/bin/env bash
# Stops the Slurm that start.sh has started in the directory DIR, with its jobs:  stop.sh DIR
set -uo pipefail

dir=$(realpath "$1")
export SLURM_CONF="$dir/slurm.conf"

# Ends the process that a file names, if it lives.
end() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
}

if [ -e "$dir/slurmctld.pid" ]; then
    scancel --user="$(id -un)" 2>/dev/null
    for _ in $(seq 100); do
        [ -z "$(squeue --noheader 2>/dev/null)" ] && break
        sleep 0.2
    done
fi
end "$dir/slurmd.pid"
end "$dir/slurmctld.pid"
end "$dir/munge/munged.pid"
