#!/usr/bin/env bash
# boot.sh [OPTION...] -- COMMAND: boots a Debian kernel in a virtual machine that needs no KVM, and runs one command there.
# The root directory in there is this machine's, copy-on-write: every program and every file is at its place, and what is
# written is lost, but for the directory $OUT. Output and exit code are the command's.
#   --kernel 6.1|6.12  Debian's cloud kernel (default 6.12); fetched by apt at its first use
#   --cpus N           processors (default 2)
#   --memory N         memory in MB (default 1024)
#   --cards N          pairs of network cards (virtio), each wired to its other: card0a and card0b, card1a and … (default 0)
#   --queues N         receive and transmit queues of each card (default 1)
#   --count            count instructions: one processor, on which one instruction takes one nanosecond
#   --out DIRECTORY    what the command writes there remains; its name is in $OUT in there
#   --timeout N        seconds after which the guest is given up (default 300)
#   --verbose          show the messages of the guest's kernel
# Exit codes of its own: 124 for a command that took too long, 125 for a guest that could not start or died.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/cards.sh"
KERNEL=6.12 CPUS=2 MEMORY=1024 CARDS=0 QUEUES=1 COUNT='' OUT='' TIMEOUT=300 VERBOSE=''

die() {
  printf 'guest: %s\n' "$1" >&2
  exit 125
}

tell_help() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

number() {
  [[ $2 =~ ^[0-9]+$ ]] || die "$1 takes a number, not '$2'"
  echo "$2"
}

# Sets COMMAND to what follows the options.
read_arguments() {
  while (($#)); do
    case $1 in
    --) shift && break ;;
    --count) COUNT=yes ;;
    --verbose) VERBOSE=yes ;;
    --help) tell_help && exit ;;
    --kernel | --cpus | --memory | --cards | --queues | --out | --timeout)
      (($# > 1)) || die "$1 takes a value"
      read_option "$1" "$2"
      shift
      ;;
    *) die "what is $1? --help lists the options" ;;
    esac
    shift
  done
  (($#)) || die 'there is no command; --help tells more'
  COMMAND="$*"
}

read_option() {
  case $1 in
  --kernel) KERNEL=$2 ;;
  --out) OUT=$2 ;;
  --cpus) CPUS=$(number "$@") ;;
  --memory) MEMORY=$(number "$@") ;;
  --cards) CARDS=$(number "$@") ;;
  --queues) QUEUES=$(number "$@") ;;
  --timeout) TIMEOUT=$(number "$@") ;;
  esac
}

find_programs() {
  ((EUID == 0)) || die 'the share of the root directory needs root'
  command -v qemu-system-x86_64 >/dev/null || die 'qemu-system-x86_64 is missing: tests/install.sh guest'
  local file
  for file in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do
    [[ ! -x $file ]] || VIRTIOFSD=$file
  done
  [[ -n ${VIRTIOFSD-} ]] || die 'virtiofsd is missing: tests/install.sh guest'
}

PIDS=()
tear_down() {
  local result=$?
  trap '' EXIT INT TERM HUP
  ((${#PIDS[@]} == 0)) || kill "${PIDS[@]}" 2>/dev/null || true
  wait
  remove_cards
  rm -rf "$RUN"
  exit "$result"
}

write_orders() {
  printf '%s=%q\n' OUT "$OUT" MODULES "$(realpath "$KERNEL/modules")" CARDS "$CARDS" QUEUES "$QUEUES" >"$RUN/guest"
  {
    printf 'cd %q || exit\n' "$PWD"
    echo "ulimit -n 65536"
    ((CARDS == 0)) || echo ". '$HERE/cards.sh' && name_cards || exit 125"
    printf '%s\n' "$COMMAND"
  } >"$RUN/start"
}

# The guest's root directory.
share_root() {
  "$VIRTIOFSD" --socket-path="$RUN/root" -o source=/ -o sandbox=chroot -o cache=always -o xattr >"$RUN/virtiofsd.log" 2>&1 &
  PIDS+=($!)
  local tries=0
  until [[ -S $RUN/root ]]; do
    kill -0 "${PIDS[-1]}" 2>/dev/null && ((++tries < 100)) || die "virtiofsd does not start: $(<"$RUN/virtiofsd.log")"
    sleep 0.05
  done
}

# Standard output and standard error of the command come by a port each.
open_ports() {
  mkfifo "$RUN"/{out,err}.{in,out}
  cat "$RUN/out.out" &
  READERS=($!)
  cat "$RUN/err.out" >&2 &
  READERS+=($!)
  PIDS+=("${READERS[@]}")
  : >"$RUN/console"
  [[ -n $VERBOSE ]] || return 0
  tail -f -n +1 "$RUN/console" >&2 &
  PIDS+=($!)
}

processor() {
  if [[ -n $COUNT ]]; then
    CPUS=1
    MACHINE+=(-accel 'tcg,tb-size=512' -icount 'shift=0,sleep=on')
  else
    MACHINE+=(-accel 'tcg,thread=multi,tb-size=512')
  fi
  MACHINE+=(-cpu max -smp "$CPUS" -m "$MEMORY")
}

# Mitigations would only slow the guest down; what is counted is said to be without them.
describe_machine() {
  local share="memory-backend-memfd,id=memory,size=${MEMORY}M,share=on" arguments='console=ttyS0 quiet panic=-1 mitigations=off nopti tsc=reliable no_timer_check net.ifnames=0 random.trust_cpu=on cryptomgr.notests'
  MACHINE=(-nodefaults -no-user-config -display none -no-reboot -machine 'q35,memory-backend=memory' -object "$share"
    -kernel "$KERNEL/vmlinuz" -initrd "$KERNEL/initrd" -append "$arguments xlvs.run=$RUN" -serial "file:$RUN/console"
    -chardev "socket,id=root,path=$RUN/root" -device 'vhost-user-fs-pci,chardev=root,tag=machine,queue-size=1024'
    -device virtio-rng-pci -device virtio-serial-pci
    -chardev "pipe,id=out,path=$RUN/out" -device 'virtserialport,chardev=out,name=out,nr=1'
    -chardev "pipe,id=err,path=$RUN/err" -device 'virtserialport,chardev=err,name=err,nr=2')
  processor
  local pair
  for ((pair = 0; pair < CARDS; pair++)); do card_arguments "$pair"; done
}

run_machine() {
  local result=0
  # In the background, so that a signal to this script is heard at once.
  "${WITHIN_CARDS[@]}" timeout --kill-after 5 "$TIMEOUT" qemu-system-x86_64 "${MACHINE[@]}" </dev/null 2>"$RUN/qemu.log" &
  PIDS+=($!)
  wait "$!" || result=$?
  wait "${READERS[@]}" 2>/dev/null || true
  if ((result == 124 || result == 137)); then
    tail -n 5 "$RUN/console" >&2
    printf 'guest: the command took more than %s s\n' "$TIMEOUT" >&2
    exit 124
  fi
  [[ -s $RUN/result ]] || {
    tail -n 30 "$RUN/console" >&2
    die "the guest ended without a result (QEMU: $result) $(<"$RUN/qemu.log")"
  }
  exit "$(<"$RUN/result")"
}

read_arguments "$@"
find_programs
KERNEL=$("$HERE/kernel.sh" "$KERNEL") || die 'there is no kernel to boot'
RUN=$(mktemp -d "${TMPDIR:-/tmp}/xlvs-guest.XXXXXX")
trap tear_down EXIT
trap 'exit 130' INT TERM HUP
OUT=${OUT:-$RUN/out-directory}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
write_orders
make_cards
share_root
open_ports
describe_machine
run_machine
