#!/usr/bin/env bash
# systemd.sh DIR MOUNT...
# Boots systemd as process 1 of a container in the network namespace in which this runs, until the standard input ends, and leaves nothing
# behind then. DIR is an empty directory of the caller's. The container has this machine's /usr, read-only but for an empty /usr/local, with
# each MOUNT at its own place, read-only, and otherwise its own of everything: /etc, /run, /var, devices, control groups. Once systemd is
# up, this prints its process number; what goes wrong until then is said at the standard error. Needs root.
set -euo pipefail
DIR=$(realpath "$1")
SELF=$(realpath "${BASH_SOURCE[0]}")

die() {
  printf 'systemd.sh: %s\n' "$1" >&2
  exit 1
}

# --- outside

# All processes of the container, and then the groups that systemd has made for them.
end_container() {
  [[ -d ${group-} ]] || return 0
  echo 1 >"$group/cgroup.kill" || true
  # Not that the shell tells of it.
  { wait; } 2>/dev/null
  for ((tries = 0; tries < 100; tries++)); do
    ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || return 0
    sleep 0.05
  done
  die "the control group $group cannot be removed"
}

enter() {
  nsenter --target "$process" --mount --uts --ipc --net --pid --cgroup -- "$@"
}

# Before systemd is there, systemctl would ask this machine's own.
await_boot() {
  local state=
  for ((tries = 0; tries < 300; tries++)); do
    kill -0 "$container" 2>/dev/null || die "systemd has ended: $(tail -n 5 "$DIR/log")"
    if [[ $(<"/proc/$process/comm") == systemd && -e /proc/$process/root/run/systemd/private ]]; then
      state=$(enter systemctl is-system-running --wait 2>&1) || true
    fi
    case $state in
    running) return ;;
    degraded) die "systemd cannot start all of the container: $(enter systemctl --failed --no-legend)" ;;
    esac
    sleep 0.1
  done
  die "systemd does not come up within 30 s: $state; $(tail -n 5 "$DIR/log")"
}

hold_container() {
  [[ -x /usr/lib/systemd/systemd ]] || die 'systemd is not installed: tests/install.sh test does that'
  # A mount of its own: where a machine has the hierarchy of version 2, if it does, is no concern of this.
  mkdir "$DIR/groups"
  mount -t cgroup2 none "$DIR/groups" || die 'the kernel has no control groups of version 2'
  group=$DIR/groups/xlvs-test-$$
  mkdir "$group"
  trap end_container EXIT
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --uts --ipc --cgroup --pid --fork --kill-child "$SELF" "$DIR" --inside "${@:2}"
  ) </dev/null >"$DIR/log" 2>&1 &
  container=$!
  process=
  for ((tries = 0; tries < 100; tries++)); do
    # There is no line end.
    read -r process _ 2>/dev/null <"/proc/$container/task/$container/children" || true
    [[ ! $process ]] || break
    sleep 0.05
  done
  [[ $process ]] || die "no namespaces can be made: $(<"$DIR/log")"
  await_boot
  echo "$process"
  cat >/dev/null
}

# --- inside, before systemd

# Nothing in here may change what belongs to the machine: its clock, its modules, its kernel's settings, its devices.
make_root() {
  local name
  mkdir "$DIR/root"
  mount -t tmpfs -o mode=755 none "$DIR/root"
  cd "$DIR/root"
  mkdir -p dev etc/systemd/system mnt proc root run sys tmp usr var/lib var/log var/tmp
  chmod 1777 tmp var/tmp
  ln -s /run var/run
  for name in bin sbin lib lib32 lib64 libx32; do
    if [[ -L /$name ]]; then cp -P "/$name" .; elif [[ -d /$name ]]; then mkdir "$name" && show "/$name"; fi
  done
  show /usr
  mount -t tmpfs -o mode=755 none usr/local
  for name in "$@"; do
    mkdir -p ".$name"
    show "$name"
  done
  make_devices
  mount -t proc none proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount --bind /proc/sys/net proc/sys/net
  mount -t sysfs none sys
  mount -o remount,bind,ro sys
  mount -t cgroup2 none sys/fs/cgroup
  mount -t bpf -o mode=700 none sys/fs/bpf
  mount -t tmpfs -o mode=755 none run
}

# show DIRECTORY: this machine's, read-only.
show() {
  mount --bind "$1" ".$1"
  mount -o remount,bind,ro ".$1"
}

make_devices() {
  local name
  mount -t tmpfs -o mode=755 none dev
  mkdir dev/net dev/pts dev/shm
  for name in null zero full random urandom tty net/tun; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
  done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 none dev/pts
  mount -t tmpfs none dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
}

# Of what systemd would start besides, only the journal is wanted.
make_etc() {
  local unit
  cp -a /etc/group /etc/ld.so.cache /etc/nsswitch.conf /etc/passwd etc/
  cp -a /etc/alternatives etc/ 2>/dev/null || true
  ln -s ../usr/lib/os-release etc/os-release
  ln -s multi-user.target etc/systemd/system/default.target
  tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
  echo router >etc/hostname
  for unit in /usr/lib/systemd/system/*.target.wants/* /usr/lib/systemd/system/systemd-udev*; do
    unit=${unit##*/}
    [[ $unit == systemd-journal* && $unit != *audit* ]] || ln -sfn /dev/null "etc/systemd/system/$unit"
  done
  mkdir -p etc/systemd/journald.conf.d
  printf '[Journal]\nStorage=volatile\nAudit=no\n' >etc/systemd/journald.conf.d/test.conf
}

become_systemd() {
  make_root "$@"
  make_etc
  mkdir old
  pivot_root . old
  cd /
  umount -l old
  rmdir old
  exec setpriv --bounding-set -audit_control,-audit_read,-mknod,-sys_module,-sys_rawio,-sys_time,-syslog \
    env -i container=xlvs-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin /usr/lib/systemd/systemd
}

((EUID == 0)) || die 'namespaces need root'
if [[ ${2-} == --inside ]]; then
  become_systemd "${@:3}"
elif [[ ${2-} == --held ]]; then
  hold_container "$DIR" "${@:3}"
else
  exec unshare --mount "$SELF" "$DIR" --held "${@:2}"
fi
