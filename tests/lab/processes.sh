# shellcheck shell=bash
# Background processes of a rig. Each is known by a name and ended by the pid recorded for it under $RUN/processes,
# together with its start time, so that a number the kernel has given to another process since is left alone.

# start_time PID: in clock ticks since boot; fails for a process that is gone or only waits to be reaped.
start_time() {
  local stat fields
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The command's name may hold spaces: count from its closing bracket.
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] || return 1
  echo "${fields[19]}"
}

# spawn NAMESPACE NAME COMMAND...: its output goes to $RUN/NAME.log. A session of its own keeps the terminal's Ctrl-C
# from it, so that it is ended in order.
spawn() {
  local namespace=$1 name=$2
  shift 2
  mkdir -p "$RUN/processes"
  setsid ip netns exec "$namespace" "$@" >>"$RUN/$name.log" 2>&1 </dev/null 9>&- &
  local pid=$!
  disown "$pid"
  echo "$pid $(start_time "$pid")" >"$RUN/processes/$name"
}

# running NAME
running() {
  local pid started
  { read -r pid started <"$RUN/processes/$1"; } 2>/dev/null || return 1
  [[ $(start_time "$pid") == "$started" ]]
}

# signal NAME SIGNAL
signal() {
  local pid
  running "$1" && read -r pid _ <"$RUN/processes/$1" && kill "-$2" "$pid" 2>/dev/null
}

# within SECONDS COMMAND...: tries every tenth of a second until the command succeeds.
within() {
  local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME/./} < deadline)) || return 1
    sleep 0.1
  done
}

gone() {
  ! running "$1"
}

# stop NAME: in order, or by force after three seconds, which is a failure.
stop() {
  local result=0
  if signal "$1" TERM && ! within 3 gone "$1"; then
    signal "$1" KILL && within 3 gone "$1"
    result=1
  fi
  rm -f "$RUN/processes/$1"
  return "$result"
}

stop_all() {
  local record
  for record in "$RUN"/processes/*; do
    [[ ! -e $record ]] || stop "${record##*/}" || true
  done
}
