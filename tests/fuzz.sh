#!/usr/bin/env bash
# fuzz.sh [SECONDS [TARGET...]]: runs each fuzz target (default: all of tests/fuzz/targets) for so many seconds (15), as many
# at a time as there are processors. The first inputs are the scenarios and sample files of tests/; what is worth keeping
# stays in the build directory for the next time. A target that fails leaves its input there, and this script fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-15}
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
  for path in tests/fuzz/targets/*.rs; do targets+=("$(basename "$path" .rs)"); done
fi
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export work=$build/fuzz seconds programs
programs=$build/$(rustc -vV | sed -n 's/^host: //p')/release

# libFuzzer's instrumentation is reached by compiler flags that a stable compiler takes only so. Without a sanitizer: there
# is hardly any unsafe code for one to watch, and the build takes half the time.
RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$build cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none
rm -rf "$work/seeds"
"$programs/seeds" "$work/seeds"

fuzz() {
  local target=$1
  local corpus=$work/corpus/$target found=$work/found/$target log=$work/$target.log
  rm -rf "$found"
  mkdir -p "$corpus" "$found"
  if "$programs/$target" -max_total_time="$seconds" -timeout=20 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$found/" "$corpus" "$work/seeds/$target" >"$log" 2>&1; then
    awk -v target="$target" '/stat::number_of_executed_units/ { print "fuzz " target ": " $2 " inputs" }' "$log"
    return
  fi
  grep -v '^#' "$log" | tail -n 60
  local input
  for input in "$found"/*; do
    printf 'fuzz %s: FAILED\n  input:  %s\n  replay: %s %s\n' "$target" "$input" "$programs/$target" "$input"
  done
  return 1
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
