#!/usr/bin/env bash
# A real SLURM on this machine alone: one controller, two virtual nodes on loopback, a faked GPU on each.
#   cluster.sh start DIR    any user; returns when jobs can be submitted. Then: export SLURM_CONF=DIR/slurm.conf
#   cluster.sh stop DIR
# Needs, installed once: slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
do=${1:?start or stop} dir=$(realpath -m "${2:?a folder}") user=$(id -un) port=${PORT:-27000}
export SLURM_CONF=$dir/slurm.conf
if [ "$do" = stop ]; then
    for name in node1 node2 slurmctld munged; do
        pid=$(cat "$dir/run/$name.pid" 2>/dev/null) && kill "$pid" 2>/dev/null || continue
        while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.05; done
    done
    exit 0
fi
mkdir -p "$dir"/{run,log,state,spool/node1,spool/node2}
(umask 077; head -c 128 /dev/urandom >"$dir/munge.key")
cat >"$dir/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
MailProg=/bin/true
# no cgroups: a container seldom has them
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 RealMemory=4000 Gres=gpu:1
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=4000 Gres=gpu:1
PartitionName=gpu Nodes=node1,node2 Default=YES MaxTime=60 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=node1,node2 MaxTime=60 PriorityTier=9 PreemptMode=OFF
CONF
echo 'NodeName=node[1-2] Name=gpu File=/dev/null' >"$dir/gres.conf" # a device file that is always there
# 'disabled' is known from 23.02 on; before, autodetect must find one mounted, though no plugin uses it
version=$(slurmd -V | grep -o '[0-9]*\.[0-9]*' | head -1)
plugin=disabled; [ "$(printf '%s\n' 23.02 "$version" | sort -V | head -1)" = 23.02 ] || plugin=autodetect
echo "CgroupPlugin=$plugin" >"$dir/cgroup.conf"
munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/run/munge.seed"
slurmctld
for node in node1 node2; do slurmd -N $node; done
# sinfo says idle before slurmd has answered
for _ in $(seq 150); do srun -p gpu -N2 --immediate=5 true >/dev/null 2>&1 && exit 0; sleep 0.1; done
tail -n 5 "$dir"/log/*.log >&2
exit 1
