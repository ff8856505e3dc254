#!/usr/bin/env bash
# Starts a Slurm of one controller and one node on this machine, as root, with all of its files in the directory DIR:
#
#     start.sh DIR
#     export SLURM_CONF=DIR/slurm.conf      # for sbatch, squeue, scontrol, scancel
#     stop.sh DIR
#
# Debian: apt-get install slurm-wlm munge. Nothing in /etc is read or written.
set -euo pipefail
umask 022

dir=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
host=$(hostname -s)
cpus=$(nproc)
mkdir -p "$dir/state" "$dir/spool" "$dir/munge" "$dir/log"

# A port that nobody listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# Waits for a command to succeed.
await() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then
            echo "start.sh: no $what after 60 seconds" >&2
            tail -n 20 "$dir"/log/* >&2
            "$here/stop.sh" "$dir"
            exit 1
        fi
        sleep 0.2
    done
}

dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
chmod 600 "$dir/munge/key"
# --force: the directory may lie below one that others may write to.
munged --force --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed"
await munged munge --socket="$dir/munge/socket" --no-input

# cred_expire: Slurm lets a requeued job wait until the credentials of its last start have expired, 120 s by default.
cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SchedulerTimeSlice=5
KillWait=10
MinJobAge=600
ReturnToService=2
SwitchType=switch/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$dir/slurm.conf"
slurmctld -c
slurmd -N "$host"
node_is_idle() { sinfo --noheader --format=%t | grep -qx idle; }
await "idle node" node_is_idle
