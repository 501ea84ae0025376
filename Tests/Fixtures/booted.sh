#!/bin/sh
# Boots systemd in a copy of this host's files, as process 1 of namespaces of its own, until SIGTERM comes:
#   booted.sh FOLDER SWIFT
# FOLDER is the only folder that the copy shares with the host. The copy hides the folder SWIFT. Prints "ready PID",
# where PID is the number that process 1 has on the host. Run in a mount namespace of its own (unshare -m).
#
# Units that act on more than the copy must not run there: systemd-tmpfiles empties folders, and systemd-sysctl changes
# the kernel. Therefore no unit of the host is started at the boot, /tmp is the copy's own, and /proc/sys cannot be
# written to.
set -e
folder=$1 swift=$2
room=$folder/booted
mkdir "$room"
mount -t tmpfs booted "$room"
mkdir "$room/upper" "$room/work" "$room/root"
cgroups=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
group=$cgroups/pageferry-booted-$$
mkdir "$group"
boot() {
    echo 0 >"$group/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare -m -p -u -i -n -C -f --propagation private --kill-child=KILL /bin/sh -c '
        set -e
        room=$1 folder=$2 swift=$3 root=$1/root
        ip link set lo up
        hostname booted
        mount -t overlay booted -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" "$root"
        mount -t proc proc "$root/proc"
        mount --bind "$root/proc/sys" "$root/proc/sys"
        mount -o remount,bind,ro "$root/proc/sys"
        mount -t sysfs -o ro sysfs "$root/sys"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        mount -t tmpfs -o mode=755 booted "$root/run"
        mount -t tmpfs -o mode=1777 booted "$root/tmp"
        mount -t tmpfs -o mode=755 booted "$root/dev"
        # Devices of the copy itself, whose owners can change.
        for device in null zero full random urandom tty ptmx userfaultfd kvm; do
            [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "$root/dev/"
        done
        mkdir -p "$root/dev/pts" "$root/dev/shm" "$root$folder"
        mount --bind "$folder" "$root$folder"
        [ ! -d "$root$swift" ] || mount -t tmpfs hidden "$root$swift"
        rm -rf "$root/etc/fstab" "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/*.target.wants \
            "$root"/lib/systemd/system/systemd-tmpfiles-* "$root"/usr/lib/tmpfiles.d "$root"/etc/tmpfiles.d
        : >"$root/etc/machine-id"
        cd "$root"
        mkdir run/host
        pivot_root . run/host
        umount -l run/host
        exec env -i container=booted PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            /lib/systemd/systemd --system --unit=multi-user.target --log-target=null
    ' booted "$room" "$folder" "$swift"
}
boot </dev/null >&2 &
child=$!
until system=$(cat "/proc/$child/task/$child/children") && [ -n "$system" ]; do sleep 0.05; done
# The number has a space behind it.
system=${system% }
until case $(nsenter -t "$system" -a systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) false ;; esac; do
    kill -0 "$child"
    sleep 0.1
done
trap 'kill -KILL "$system"' TERM
echo "ready $system"
# The signal ends a wait early.
while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
find "$group" -depth -type d -exec rmdir {} +
