#!/usr/bin/env bash
# run.sh [--kernel 6.1|6.12] [--programs DIR] [OPTION of compare.py...]: counts the instructions that a packet costs the router,
# for routing, nft, kernel IPVS, xlvs and XDP programs in one guest; the table goes to target/bench/guest.md and guest.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
TARGET=${CARGO_TARGET_DIR:-target}
KERNEL=6.12 PROGRAMS=$TARGET/release TIMEOUT=${BENCH_TIMEOUT:-900}

die() {
  printf 'bench-vm: %s\n' "$1" >&2
  exit 1
}

while (($#)); do
  case $1 in
  --kernel) KERNEL=${2:?} && shift 2 ;;
  --programs) PROGRAMS=${2:?} && shift 2 ;;
  --help)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' benches/guest/run.sh
    exec /usr/bin/python3 -B benches/guest/compare.py --help
    ;;
  *) break ;;
  esac
done
for program in xlvs ipvsadm; do
  [[ -x $PROGRAMS/$program ]] || die "$PROGRAMS/$program is missing: run make build"
done
mkdir -p "$TARGET/bench" "$TARGET/guest"
clang -O2 -g -Wall -Wextra -Werror -target bpf -I bpf "-I/usr/include/$(uname -m)-linux-gnu" \
  -c benches/guest/packets.bpf.c -o "$TARGET/guest/packets.o"
printf -v command '%q ' /usr/bin/python3 -B benches/guest/compare.py --programs "$PROGRAMS" --object "$TARGET/guest/packets.o" \
  --forwarder "$TARGET/bench/tools/peer" \
  --out "$(realpath "$TARGET/bench")" "$@"
tests/guest/boot.sh --kernel "$KERNEL" --count --timeout "$TIMEOUT" --out "$TARGET/bench" -- "$command"
