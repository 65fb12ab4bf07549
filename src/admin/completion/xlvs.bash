
_xlvs_offer_files() {
  local -a paths
  compopt -o filenames 2>/dev/null
  mapfile -t paths < <(compgen -f -- "$current")
  _xlvs_offer "${paths[@]}"
}

# Offers running services of a kind, or the servers of one: what the words of a service are to ipvsadm.
_xlvs_offer_running() {
  local command=$1 kind=$2
  local -a found=() switch
  case $kind in
  tcp) switch=(-t) ;;
  udp) switch=(-u) ;;
  sctp) switch=(--sctp-service) ;;
  fwmark) switch=(-f) ;;
  fwmark6) switch=(-f -6) ;;
  *) return ;;
  esac
  _xlvs_running "$command" "${switch[@]}" "${@:3}"
  _xlvs_offer "${found[@]}"
}

_xlvs_offer_interfaces() {
  local -a paths=(/sys/class/net/*)
  if [[ -e ${paths[0]} ]]; then _xlvs_offer "${paths[@]##*/}"; fi
}

_xlvs() {
  local current word awaited='' command=''
  local -a words commands plain=() options=()
  COMPREPLY=()
  _xlvs_words
  if ((${#words[@]} < 2)); then return; fi
  _xlvs_tables
  for word in "${words[@]:1:${#words[@]}-2}"; do
    if [[ -n $awaited ]]; then
      awaited=''
    elif [[ -z $command ]]; then
      command=$word
      _xlvs_options "$command"
    elif [[ $word == -* ]]; then
      if _xlvs_takes_value "$command $word"; then awaited=$word; fi
    else
      plain+=("$word")
    fi
  done
  if [[ $current == --*=* && $COMP_WORDBREAKS == *=* ]]; then
    # Readline leaves what stands before the equal sign alone.
    _xlvs_takes_value "$command ${current%%=*}" || return
    awaited=${current%%=*} current=${current#*=}
  fi
  if [[ -n $awaited ]]; then
    _xlvs_value "$command $awaited"
  elif [[ -z $command ]]; then
    _xlvs_offer "${commands[@]}"
  elif [[ $current == -* ]]; then
    _xlvs_offer "${options[@]}" --help
  else
    _xlvs_value "$command ${#plain[@]}"
  fi
}

complete -F _xlvs xlvs
