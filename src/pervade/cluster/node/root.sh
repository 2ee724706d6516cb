#!/bin/sh
# Make a node's own root file system and become its PID 1. Runs inside fresh mount, pid, uts and ipc namespaces.
# usage: root.sh STATE NAME ADDRESS DNS INIT PIDFILE   (STATE holds what must outlive the node; all else is on tmpfs)
set -e
state=$1 name=$2 address=$3 dns=$4 init=$5 pidfile=$6
# /proc is still the host's here, so this is the pid that the host knows; the shell becomes the init.
read -r pid _ </proc/self/stat
root=$state/rootfs
mkdir -p "$root" "$state/root" "$state/sock" "$state/net.d" "$state/cnibin" "$state/kubelet" "$state/log" "$state/cnilib"
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=256m pervade-node "$root"
cp "$init" "$root/.init.py"
cp "$state/containerd.toml" "$root/.containerd.toml"
cd "$root"
mkdir -p usr etc .etc/u .etc/w proc sys dev run tmp var opt/cni/bin root home mnt srv media boot old
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount --rbind /usr usr
mount -o remount,bind,ro usr
mount -t overlay -o lowerdir=/etc,upperdir=.etc/u,workdir=.etc/w pervade-etc etc
rm -rf etc/cni/net.d
mkdir -p etc/cni/net.d
mount --bind "$state/net.d" etc/cni/net.d
mount --bind "$state/cnibin" opt/cni/bin
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$address" "$name" >etc/hosts
rm -f etc/resolv.conf
printf 'nameserver %s\n' "$dns" >etc/resolv.conf
mount -t tmpfs -o mode=755 tmpfs run
ln -s /run var/run
ln -s /run/lock var/lock
mkdir -p run/netns run/lock run/containerd run/cri var/lib/kubelet var/lib/cni var/lib/containerd var/log var/tmp var/cache
mount --bind "$state/root" var/lib/containerd
mount --bind "$state/kubelet" var/lib/kubelet
mount --bind "$state/log" var/log
mount --bind "$state/cnilib" var/lib/cni
mount --bind "$state/sock" run/cri
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
hostname "$name"
pivot_root . old
cd /
echo "$pid" >"/old$pidfile.fresh"
mv "/old$pidfile.fresh" "/old$pidfile"
umount -l /old
rmdir /old
# After the pivot, so that mount propagation into and out of pods works as on any node.
mount --make-rshared /
exec /usr/bin/python3 -IS /.init.py
