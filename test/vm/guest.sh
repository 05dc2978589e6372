#!/bin/busybox sh
# What the guest does as PID 1 once it stands in the host's root: completes the mounts and runs
# the job, by itself or under systemd. The job folder holds `environment` (what the host's command
# line decided), `command` and job.sh.
. /run/job/environment

mkdir -p /dev/pts /dev/shm /dev/hugepages /dev/mqueue
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t mqueue mqueue /dev/mqueue
mount -t debugfs debugfs /sys/kernel/debug
# The host's leftovers are not the guest's; but the checkout may live there.
[ "$HIDE_TMP" = no ] || mount -t tmpfs -o mode=1777 tmp /tmp
ln -sf /proc/self/fd /dev/fd
# As with CONFIG_IOMMUFD_VFIO_CONTAINER, but that it charges users and not processes (docs/conformance.md).
if [ "$VFIO_CONTAINER" = iommufd ]; then
  busybox rm /dev/vfio/vfio
  IFS=: read -r major minor </sys/class/misc/iommu/dev
  busybox mknod -m 666 /dev/vfio/vfio c "$major" "$minor"
fi
busybox hostname vfiod-guest
busybox ip link set lo up

[ "$INIT" = systemd ] || exec sh /run/job/job.sh

# The only target, so nothing that the host has enabled starts here.
mkdir -p /run/systemd/system /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/run/systemd/journald.conf.d/job.conf
cat >/run/systemd/system/job.target <<UNIT
[Unit]
Requires=job.service
After=job.service
UNIT
cat >/run/systemd/system/job.service <<UNIT
[Unit]
After=basic.target
Requires=basic.target
[Service]
Type=oneshot
ExecStart=/bin/busybox sh /run/job/job.sh
UNIT
# Debian's tmp.conf empties /tmp at boot, file by file over 9p, and the checkout may live there.
mkdir -p /etc/tmpfiles.d
ln -sf /dev/null /etc/tmpfiles.d/tmp.conf
exec /lib/systemd/systemd --unit=job.target
