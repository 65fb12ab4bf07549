# shellcheck shell=bash
# One line on the screen for each claim, as it is shown or refuted, and all of them again at the end.

BEGAN=${EPOCHREALTIME/./}
PASSED=()
FAILED=()
if [[ -t 1 ]]; then
  GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
  GREEN='' RED='' DIM='' PLAIN=''
fi

elapsed() {
  local tenths=$(((${EPOCHREALTIME/./} - BEGAN) / 100000))
  printf '%3d.%d s' $((tenths / 10)) $((tenths % 10))
}

# claim TEXT COMMAND...: holds if the command succeeds. What the command prints is shown beside the text of a claim
# that holds, and below that of one that does not: what was expected and what was found.
claim() {
  local text=$1 told
  shift
  [[ -z $DIM ]] || printf '  … %s  %s' "$(elapsed)" "$text"
  if told=$("$@" 2>&1); then
    PASSED+=("$text")
    printf '%s  %s✓%s %s  %s%s\n' "${DIM:+$'\r\e[K'}" "$GREEN" "$PLAIN" "$(elapsed)" "$text" "${told:+$DIM ($told)$PLAIN}"
  else
    FAILED+=("$text")
    printf '%s  %s✗%s %s  %s\n' "${DIM:+$'\r\e[K'}" "$RED" "$PLAIN" "$(elapsed)" "$text"
    printf '%s\n' "${told:-no further word}" | sed 's/^/               /'
    return 1
  fi
}

# say COMMAND...: what an administrator would see, indented.
say() {
  printf '\n               %s# %s%s\n' "$DIM" "$*" "$PLAIN"
  "$@" 2>&1 | sed 's/^/               /'
  echo
}

expected() {
  printf 'expected: %s\n' "$1"
  return 1
}

summary() {
  printf '\n'
  ((${#PASSED[@]} == 0)) || printf "  ${GREEN}PASS${PLAIN}  %s\n" "${PASSED[@]}"
  ((${#FAILED[@]} == 0)) || printf "  ${RED}FAIL${PLAIN}  %s\n" "${FAILED[@]}"
  printf '\n  %d of %d claims hold; %s\n' ${#PASSED[@]} $((${#PASSED[@]} + ${#FAILED[@]})) "$(elapsed)"
  ((${#FAILED[@]} == 0 && ${#PASSED[@]} > 0))
}
