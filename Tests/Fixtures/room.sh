#!/bin/sh
# Makes a copy of this host's files in which packages can be installed, without Swift, and keeps it until it is killed:
#   room.sh FOLDER SWIFT
# FOLDER is on the host and becomes the place of the copy. SWIFT is a folder that the copy hides. The copy shares /tmp
# and the processes of the host. Run in a mount namespace of its own (unshare -m).
set -e
folder=$1 swift=$2
mount -t tmpfs room "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay room -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
root=$folder/root
mount --rbind /proc "$root/proc"
mount --rbind /tmp "$root/tmp"
mount -t tmpfs room "$root/run"
mount -t tmpfs -o mode=755 room "$root/dev"
# Devices of the room's own, whose owners can change.
for device in null zero full random urandom tty userfaultfd kvm; do
    [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "$root/dev/"
done
[ ! -d "$root$swift" ] || mount -t tmpfs hidden "$root$swift"
# Before that, a command that enters this process would be outside of the copy.
exec chroot "$root" /bin/sh -c 'echo ready; exec sleep infinity'
