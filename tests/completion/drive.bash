#!/usr/bin/env bash
# drive.bash COMPLETION LINE: has bash complete LINE, the cursor at its end, and prints the replies.
# The line is cut into COMP_WORDS as bash does it, where colons and equal signs are words.
completion=$1 COMP_LINE=$2
COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
# shellcheck source=/dev/null
source "$completion"

COMP_WORDS=()
word=''
for ((i = 0; i < ${#COMP_LINE}; i++)); do
  letter=${COMP_LINE:i:1}
  case $letter in
  ' ')
    if [[ -n $word ]]; then COMP_WORDS+=("$word"); fi
    word=''
    ;;
  ':' | '=')
    if [[ -n $word && $word != [:=]* ]]; then
      COMP_WORDS+=("$word")
      word=''
    fi
    word+=$letter
    ;;
  *)
    if [[ $word == [:=]* ]]; then
      COMP_WORDS+=("$word")
      word=''
    fi
    word+=$letter
    ;;
  esac
done
COMP_WORDS+=("$word")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))

read -ra spec < <(complete -p "${COMP_WORDS[0]}")
"${spec[2]}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
if ((${#COMPREPLY[@]})); then printf '%s\n' "${COMPREPLY[@]}"; fi
