
# The words up to the cursor, the last of which is to be completed. COMP_WORDS has them in pieces, since a colon ends a word there.
_xlvs_words() {
  local line=${COMP_LINE:0:COMP_POINT}
  read -ra words <<<"$line"
  if [[ -z $line || $line == *[[:blank:]] ]]; then words+=(''); fi
  current=${words[${#words[@]} - 1]}
}

# Offers those of the given words that go on like the one to be completed. Readline replaces only what stands behind its last
# colon or equal sign, so the rest is cut off.
_xlvs_offer() {
  local kept=$current word
  while [[ -n $kept ]]; do
    case ${kept: -1} in
    ':' | '=') if [[ ${COMP_WORDBREAKS-} == *"${kept: -1}"* ]]; then break; fi ;;
    esac
    kept=${kept%?}
  done
  for word in "$@"; do
    if [[ $word == "$current"* ]]; then COMPREPLY+=("${word#"$kept"}"); fi
  done
}

# Offers words behind something that stands before them in the same word, such as --scheduler=.
_xlvs_offer_behind() {
  local before=$1
  shift
  _xlvs_offer "${@/#/$before}"
}

# Reads one running service or server a line into `found`: what ipvsadm -Sn prints, if it prints anything.
# _xlvs_running -A SWITCH [-6] are services, _xlvs_running -a SWITCH [-6] SERVICE are servers. Without -6 a mark is that of IPv4.
_xlvs_running() {
  local command=$1 switch=$2 family='' line
  local -a row
  shift 2
  if [[ ${1-} == -6 ]]; then
    family=-6
    shift
  fi
  found=()
  while read -ra row; do
    line=${row[0]-}
    if [[ $line != "$command" || ${row[1]-} != "$switch" ]]; then continue; fi
    if [[ ${row[3]-} == -6 ]]; then
      if [[ $family != -6 ]]; then continue; fi
      row=("${row[@]:0:3}" "${row[@]:4}")
    elif [[ $family == -6 ]]; then
      continue
    fi
    if [[ $command == -A ]]; then
      found+=("${row[2]}")
    elif [[ ${row[2]} == "${1-}" && ${row[3]-} == -r ]]; then
      found+=("${row[4]}")
    fi
  done < <(ipvsadm -Sn 2>/dev/null </dev/null)
}
