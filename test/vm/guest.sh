#!/bin/busybox sh
# What the guest does as PID 1 once it stands in the host's root: completes the mounts, runs the
# job, leaves its exit status in the job folder, turns the machine off. The job folder holds
# `environment` (what the command line of the host decided) and `command`.
. /run/job/environment

mkdir -p /dev/pts /dev/shm /dev/hugepages /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t mqueue mqueue /dev/mqueue
mount -t debugfs debugfs /sys/kernel/debug
# The host's leftovers are not the guest's; but the checkout may live there.
[ "$HIDE_TMP" = no ] || mount -t tmpfs -o mode=1777 tmp /tmp
ln -sf /proc/self/fd /dev/fd
busybox hostname vfiod-guest
busybox ip link set lo up

# The second serial port is the host's stdout; the first is the kernel's. The command sees a pipe,
# not a terminal: nothing animates, and no line ends in a carriage return.
busybox stty 115200 -onlcr -F /dev/ttyS1
mkfifo /run/output
cat /run/output >/dev/ttyS1 &
pump=$!
sh /run/job/command >/run/output 2>&1 </dev/null
status=$?

# A process the command left behind keeps the pipe open: it does not keep the machine up.
(sleep 3; kill $pump) 2>/dev/null &
wait $pump
echo $status >/run/job/status
busybox poweroff -f
