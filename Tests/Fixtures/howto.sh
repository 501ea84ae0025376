#!/bin/bash
# Runs the blocks of an article in a room of its own, and prints the number of each block before it:
#   howto.sh PAGEFERRY SCRIPT
# The room has its own /run, /srv, /tmp, processes and network namespaces; run as: unshare -m --propagation private
# --pid --fork --kill-child --mount-proc. PAGEFERRY is the program; SCRIPT calls `block` before each block, and
# `agents N` after a block that starts N programs which print `ready`.
set -euo pipefail
program=$1
script=$(cat "$2")
for folder in /run /srv /tmp; do mount -t tmpfs room "$folder"; done
mkdir -p /run/room /run/netns
cp "$program" /run/room/pageferry
export PATH=/run/room:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
log=/run/room/log
started=0
block() { echo "block $1" >&3; }
# Waits until the programs that a block has started are ready.
agents() {
    started=$((started + $1))
    until [ "$(grep -c '^ready' "$log")" -ge "$started" ]; do
        [ "$(jobs -pr | wc -l)" -gt 0 ] || return 1
        sleep 0.05
    done
}
exec 3>&1 >"$log" 2>&1
trap 'cat "$log" >&3' EXIT
cd /tmp
eval "$script"
