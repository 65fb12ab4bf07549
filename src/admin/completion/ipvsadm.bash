
# Understands one word before the cursor.
_ipvsadm_read() {
  local word=$1 letters what name switch takes
  if [[ -n $awaited ]] && ! [[ $awaited_takes == maybe && $word == -* ]]; then
    _ipvsadm_note "$awaited" "$awaited_switch" "$word"
    awaited=''
    return
  fi
  awaited=''
  case $word in
  --*=*)
    _ipvsadm_switch "${word%%=*}"
    _ipvsadm_note "$name" "$switch" "${word#*=}"
    ;;
  --*)
    _ipvsadm_switch "$word"
    _ipvsadm_begin
    ;;
  -?*)
    letters=${word#-}
    while [[ -n $letters ]]; do
      _ipvsadm_switch "-${letters:0:1}"
      letters=${letters:1}
      if [[ $takes != nothing && -n $letters ]]; then
        _ipvsadm_note "$name" "$switch" "${letters#=}"
        letters=''
      else
        _ipvsadm_begin
      fi
    done
    ;;
  esac
}

# A switch without its value, which may be the next word.
_ipvsadm_begin() {
  _ipvsadm_note "$name" "$switch" ''
  if [[ $takes != nothing ]]; then awaited=$name awaited_switch=$switch awaited_takes=$takes; fi
}

# What a switch and its value say.
_ipvsadm_note() {
  if [[ ${what-option} == command && -z $command ]]; then command=$1; fi
  given+=" $1 "
  case $1 in
  service-address) service_switch=$2 service=$3 ;;
  ipv6) family=-6 ;;
  scheduler) scheduler=$3 ;;
  esac
}

# Offers values of an option, behind what stands before them in the word.
_ipvsadm_values() {
  local name=$1 switch=$2 before=$3 flag list path
  local -a found=() flags
  case $name in
  scheduler) _xlvs_offer_behind "$before" "${schedulers[@]}" ;;
  sched-flags)
    list=${current#"$before"}
    if [[ $list == *,* ]]; then list=${list%,*},; else list=''; fi
    _ipvsadm_flags "$scheduler"
    for flag in "${flags[@]}"; do
      if [[ ,$list != *,"$flag",* ]]; then _xlvs_offer_behind "$before$list" "$flag"; fi
    done
    ;;
  service-address)
    if [[ $command == add-service ]]; then return; fi
    _xlvs_running -A "$switch"
    # A mark of IPv6 has -6 behind it only later.
    if [[ $switch == -f ]]; then
      _xlvs_offer_behind "$before" "${found[@]}"
      _xlvs_running -A "$switch" -6
    fi
    _xlvs_offer_behind "$before" "${found[@]}"
    ;;
  real-server)
    case $command in
    edit-server | delete-server)
      _xlvs_running -a "$service_switch" ${family:+"$family"} "$service"
      _xlvs_offer_behind "$before" "${found[@]}"
      ;;
    esac
    ;;
  start-daemon | stop-daemon) _xlvs_offer_behind "$before" master backup ;;
  mcast-interface)
    for path in /sys/class/net/*; do
      if [[ -d $path ]]; then _xlvs_offer_behind "$before" "${path##*/}"; fi
    done
    ;;
  tun-type) _xlvs_offer_behind "$before" "${tunnels[@]}" ;;
  pe) _xlvs_offer_behind "$before" "${engines[@]}" ;;
  esac
}

# Offers what the command still takes.
_ipvsadm_offer_options() {
  local option name
  local -a options=() exclusive=()
  _ipvsadm_options "$command"
  for name in "${exclusive[@]}"; do
    if [[ $given == *" $name "* ]]; then given+=" ${exclusive[*]} "; fi
  done
  for option in "${options[@]}"; do
    name=${option%%:*}
    if [[ $given == *" $name "* || ($name == ipv6 && $service_switch != -f) ]]; then continue; fi
    _xlvs_offer "${option#*:}"
  done
}

_ipvsadm() {
  local current command='' given='' service_switch='' service='' family='' scheduler='' word letters
  local awaited='' awaited_switch='' awaited_takes='' what='' name='' switch='' takes=''
  local -a words commands schedulers tunnels engines
  COMPREPLY=()
  _xlvs_words
  if ((${#words[@]} < 2)); then return; fi
  _ipvsadm_tables
  for word in "${words[@]:1:${#words[@]}-2}"; do _ipvsadm_read "$word"; done
  if [[ -n $awaited ]] && ! [[ $awaited_takes == maybe && $current == -* ]]; then
    _ipvsadm_values "$awaited" "$awaited_switch" ''
    return
  fi
  case $current in
  --*=*)
    _ipvsadm_switch "${current%%=*}"
    _ipvsadm_values "$name" "$switch" "${current%%=*}="
    return
    ;;
  -[!-]?*)
    letters=${current#-}
    while [[ -n $letters ]]; do
      _ipvsadm_switch "-${letters:0:1}"
      letters=${letters:1}
      if [[ -z $name ]]; then return; fi
      if [[ $takes != nothing && -n $letters ]]; then
        _ipvsadm_note "$name" "$switch" ''
        _ipvsadm_values "$name" "$switch" "${current%"$letters"}"
        return
      fi
      _ipvsadm_note "$name" "$switch" ''
    done
    # As it is, so that a blank follows.
    _xlvs_offer "$current"
    return
    ;;
  esac
  if [[ -n $command ]]; then
    _ipvsadm_offer_options
  elif ((${#words[@]} == 2)); then
    _xlvs_offer "${commands[@]}"
  fi
}

complete -F _ipvsadm ipvsadm
