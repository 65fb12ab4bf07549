#!/usr/bin/env bash
# test.sh [--programs DIR] [--kernel 6.1|6.12] [CASE...]: the cases of cases.sh in guests with either kernel, or one of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PROGRAMS=${CARGO_TARGET_DIR:-target}/release
KERNELS=(6.12 6.1)

die() {
  printf 'test-guest: %s\n' "$1" >&2
  exit 2
}

while (($#)); do
  case $1 in
  --programs) PROGRAMS=${2:?} && shift 2 ;;
  --kernel) KERNELS=("${2:?}") && shift 2 ;;
  --*) die "what is $1? (--programs DIR, --kernel 6.1|6.12)" ;;
  *) break ;;
  esac
done
for program in xlvs ipvsadm; do
  [[ -x $PROGRAMS/$program ]] || die "$PROGRAMS/$program is missing: run make build"
done
printf -v command '%q ' env "PROGRAMS=$(realpath "$PROGRAMS")" tests/guest/cases.sh "$@"
result=0
for kernel in "${KERNELS[@]}"; do
  printf '\nLinux %s\n' "$kernel"
  tests/guest/boot.sh --kernel "$kernel" --cards 2 --queues 2 --timeout 900 -- "$command" || result=1
done
exit "$result"
