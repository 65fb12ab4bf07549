#!/usr/bin/env bash
# demo.sh [--programs DIR] [--keep] | --down
# The article's load balancer in network namespaces: 40 clients, a router that runs xlvs on config/lvs.cf and
# config/iptables as they are, two nginx servers. Shows what xlvs claims, one line each; exits 0 if all holds.
#   --programs DIR  where xlvs and ipvsadm are (default target/release)
#   --keep          leave the lab up afterwards
#   --down          remove a lab that was left up
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
RUN=/run/xlvs-demo
. tests/lab/processes.sh
. tests/lab/network.sh
. tests/lab/web.sh
. tests/lab/claims.sh

VIP=10.10.1.30
PROGRAMS=target/release
KEEP=
DOWN=
export XLVS_SOCKET=$RUN/control.sock

die() {
  printf 'demo: %s\n' "$1" >&2
  exit 2
}

tear_down() {
  trap '' INT TERM HUP
  stop_all
  remove_network
  rm -rf "$RUN"
}

# --- the daemon

start_daemon() {
  spawn xlvs-router xlvs "$PROGRAMS/xlvs" run --forceactive --config "$RUN/lvs.cf" --marks "$RUN/iptables" \
    --marks6 "$RUN/ip6tables" --settings "$RUN/xlvs.toml"
  within 10 answering || expected 'xlvs status answers within 10 s of the start'
}

answering() {
  ! running xlvs || "$PROGRAMS/xlvs" status >/dev/null 2>&1
}

attached() {
  ip -n xlvs-router -details link show "$1" | grep -q 'prog/xdp'
}

# What the daemon finds, and has to leave.
router_state() {
  ip -n xlvs-router -4 -o addr show
  ip -n xlvs-router -4 route show
}

starts() {
  start_daemon || return
  running xlvs || expected 'the daemon stays up' || return
  attached eth0 && attached eth1 || expected 'an XDP program on eth0 and eth1'
}

in_table() {
  "$PROGRAMS/ipvsadm" -Ln 2>/dev/null | grep -qF "$1:"
}

not_in_table() {
  "$PROGRAMS/ipvsadm" -Ln >/dev/null 2>&1 && ! in_table "$1"
}

both_in_table() {
  in_table 10.8.8.33 && in_table 10.8.8.34
}

enter_table() {
  within 10 both_in_table || expected '10.8.8.33 and 10.8.8.34 in the table within 10 s'
}

# --- the clients

# fetch CLIENT URL...: a new connection for each URL.
fetch() {
  local client=$1
  shift
  ip netns exec xlvs-client curl -sS --noproxy '*' --connect-timeout 3 --max-time 20 --fail \
    --cacert "$RUN/site/certificate.pem" --interface "$client" -H 'Connection: close' "$@"
}

# everyone URL...: every client fetches them; $RUN/seen then has "CLIENT SERVER" for each answer.
everyone() {
  local client
  for client in "${CLIENTS[@]}"; do
    fetch "$client" "$@" | sed "s/^/$client /"
  done >"$RUN/seen" 2>"$RUN/errors"
}

seen_from() {
  grep -c " $1\$" "$RUN/seen" || true
}

all_answered() {
  local wanted=$((${#CLIENTS[@]} * $#))
  everyone "$@"
  (($(wc -l <"$RUN/seen") == wanted)) || {
    head -n 3 "$RUN/errors"
    expected "$wanted answers; there were $(wc -l <"$RUN/seen")" || return
  }
  echo "$wanted connections"
}

browse_both_ports() {
  all_answered "http://$VIP/" "https://$VIP/" "http://$VIP/" "https://$VIP/"
}

faithful_clients() {
  local pairs
  pairs=$(sort -u "$RUN/seen" | wc -l)
  ((pairs == ${#CLIENTS[@]})) || {
    sort "$RUN/seen" | uniq -c
    expected 'one server for each client'
  }
}

both_servers_used() {
  local third fourth
  third=$(seen_from lvs-03) fourth=$(seen_from lvs-04)
  echo "lvs-03 answered $third times, lvs-04 $fourth times"
  ((third * 4 >= fourth && fourth * 4 >= third)) || expected 'neither has more than four times what the other has'
}

intact() {
  local sum
  sum=$(fetch "$1" "$2" | sha256sum)
  [[ $sum == "$(<"$RUN/site/body.sha256")" ]] || expected "the body with sha256 $(<"$RUN/site/body.sha256"), not $sum"
}

thousand_connections() {
  local client
  for client in "${CLIENTS[@]}"; do
    fetch "$client" -w '%{num_connects} %{http_code}\n' -o /dev/null "http://$VIP/?[1-25]" || true
  done >"$RUN/thousand"
  local good
  good=$(grep -c '^1 200$' "$RUN/thousand" || true)
  ((good == 1000)) || expected "1000 answers, each over a connection of its own; there were $good"
}

router_answers() {
  local said
  said=$(fetch "${CLIENTS[0]}" "http://$VIP:2222/") || expected "the router's service on port 2222 answers" || return
  [[ $said == router ]] || expected "the router's own answer, not '$said'"
}

vip_answers_ping() {
  ip netns exec xlvs-client ping -c 3 -i 0.2 -W 1 "$VIP" | grep -q ' 3 received' || expected 'three echo replies'
}

# --- failure, reload, stop

# Claims run in subshells: the time is kept in a file.
start_stopwatch() {
  echo "${EPOCHREALTIME/./}" >"$RUN/stopwatch"
}

read_stopwatch() {
  local tenths=$(((${EPOCHREALTIME/./} - $(<"$RUN/stopwatch")) / 100000))
  echo "after $((tenths / 10)).$((tenths % 10)) s"
}

server_leaves() {
  start_stopwatch
  signal nginx-lvs-04 KILL || expected 'nginx of lvs-04 was running' || return
  within 9 not_in_table 10.8.8.34 || expected '10.8.8.34 gone from the table within 9 s' || return
  read_stopwatch
}

one_serves_all() {
  all_answered "http://$VIP/" "https://$VIP/" || return
  (($(seen_from lvs-03) == 2 * ${#CLIENTS[@]})) || expected 'every answer from lvs-03'
}

# A download that takes five seconds, in the background; its sum is looked at when it has ended.
start_slow_download() {
  # shellcheck disable=SC2016 # the inner shell expands them
  spawn xlvs-client download bash -c \
    'curl -sS --noproxy "*" --max-time 30 --interface "$1" --limit-rate 4M "$2" | sha256sum >"$3"' \
    - "${CLIENTS[7]}" "http://$VIP/body" "$RUN/download.sha256"
}

new_port_answers() {
  fetch "${CLIENTS[0]}" "http://$VIP:8080/" >/dev/null 2>&1
}

# use_marks FILE: what --marks names.
use_marks() {
  ln -sfn "$1" "$RUN/iptables"
}

marks_with_8080() {
  local rule='-A PREROUTING -d 10.10.1.30/32 -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x50/0xffffffff'
  sed "0,/^-A PREROUTING.*/s||&\n$rule|" config/iptables
}

reload_takes_effect() {
  ! new_port_answers || expected 'nobody answers on port 8080 before the reload' || return
  marks_with_8080 >"$RUN/iptables.8080"
  use_marks "$RUN/iptables.8080"
  signal xlvs HUP
  within 3 new_port_answers || expected 'port 8080 balanced within 3 s of SIGHUP'
}

download_survived() {
  within 15 gone download || expected 'the download ends within 15 s' || return
  cat "$RUN/download.log"
  [[ $(<"$RUN/download.sha256") == "$(<"$RUN/site/body.sha256")" ]] || expected 'the sum of what was sent'
}

server_returns() {
  within 20 in_table 10.8.8.34 || expected '10.8.8.34 in the table again within 20 s' || return
  read_stopwatch
}

packet_balance() {
  local status
  status=$("$PROGRAMS/xlvs" status) || return
  local form='received ([0-9]+) = transmitted ([0-9]+) \+ passed ([0-9]+) \+ handed over ([0-9]+) \+ dropped ([0-9]+)'
  [[ $status =~ $form ]] || { echo "$status"; return 1; }
  echo "${BASH_REMATCH[0]}"
  local n=("${BASH_REMATCH[@]:1}")
  ((n[0] > 0 && n[1] > 0 && n[0] == n[1] + n[2] + n[3] + n[4]))
}

# A packet may be between two counters just when they are read.
books_balance() {
  local result=0
  within 2 packet_balance >"$RUN/balance" 2>&1 || result=1
  tail -n 1 "$RUN/balance"
  ((result == 0)) || expected 'the count of received packets on the left, the same in sum on the right'
}

stops_clean() {
  stop xlvs || expected 'an end within 3 s of SIGTERM' || return
  ! attached eth0 && ! attached eth1 || expected 'no XDP program on eth0 and eth1' || return
  diff "$RUN/router-before" <(router_state) || expected 'addresses and routes as before the start'
}

survives_kill() {
  signal xlvs KILL && within 3 gone xlvs
  starts && enter_table && all_answered "http://$VIP/" "https://$VIP/"
}

# --- the whole

prepare() {
  mkdir -m 700 "$RUN"
  ln -s "$PWD/config/lvs.cf" "$RUN/lvs.cf"
  use_marks "$PWD/config/iptables"
  # With IPVS's default a client that comes again from a port whose connection is still bound to a deleted server gets no
  # answer; this setting ends such connections.
  printf 'ports = ["eth0", "eth1"]\ncontrol_socket = "%s"\n[sysctl]\nexpire_nodest_conn = 1\n' "$XLVS_SOCKET" >"$RUN/xlvs.toml"
  build_network
  make_site
  start_web_server lvs-03
  start_web_server lvs-04
  start_router_service
  router_state >"$RUN/router-before"
}

serve() {
  claim 'the health checks enter both servers' enter_table || return
  claim '40 clients browse ports 80 and 443 of the VIP' browse_both_ports || return
  claim 'each client stays on one server over both ports' faithful_clients || true
  claim 'both servers get their share' both_servers_used || true
  say "$PROGRAMS/ipvsadm" -Ln
  claim '20 MB over HTTP arrive intact' intact "${CLIENTS[5]}" "http://$VIP/body" || true
  claim '20 MB over HTTPS arrive intact' intact "${CLIENTS[6]}" "https://$VIP/body" || true
  claim '1,000 connections one after the other, none fails' thousand_connections || true
  claim 'another port of the VIP is the router'\''s own' router_answers || true
  claim 'the VIP answers ping' vip_answers_ping || true
}

fail_and_reload() {
  claim 'a server whose nginx is killed leaves the table' server_leaves || true
  claim 'from then on no request fails' one_serves_all || true
  start_web_server lvs-04
  start_stopwatch
  start_slow_download
  claim 'reload by SIGHUP: port 8080 joins the mark' reload_takes_effect || true
  claim 'the server that is back enters the table again' server_returns || true
  claim 'a download that ran through all this is intact' download_survived || true
  claim 'every packet is accounted for' books_balance || true
}

end_and_restart() {
  use_marks "$PWD/config/iptables"
  claim 'a stop leaves no XDP program and no address' stops_clean || true
  claim 'it starts again' starts || return
  claim 'killed with -9 it starts again and serves' survives_kill || true
}

demonstrate() {
  claim 'a lab: 40 clients, a router, two nginx servers' prepare || return
  claim 'xlvs starts on config/lvs.cf and config/iptables' starts || return
  serve || return
  fail_and_reload
  end_and_restart
}

tell_failure() {
  printf '\n  the last lines of the daemon'\''s log:\n'
  tail -n 25 "$RUN/xlvs.log" 2>/dev/null | sed 's/^/    /'
}

tell_how_to_use() {
  cat <<TEXT

  The lab is up.
    browse        ip netns exec xlvs-client curl --interface 10.10.1.100 http://$VIP/
    as others     --interface 10.10.1.100 to 10.10.1.139; https://$VIP/ with --cacert $RUN/site/certificate.pem
    the table     XLVS_SOCKET=$XLVS_SOCKET $PROGRAMS/ipvsadm -Ln        (watch -n1 …)
    the daemon    XLVS_SOCKET=$XLVS_SOCKET $PROGRAMS/xlvs status        its log: tail -f $RUN/xlvs.log
    go inside     ip netns exec xlvs-router bash     also xlvs-client, xlvs-lvs-03, xlvs-lvs-04
    fail a server ip -n xlvs-switch link set lvs-04 down            pulls its cable; up plugs it in again
    remove it     make demo-down
TEXT
}

read_arguments() {
  while (($#)); do
    case $1 in
    --programs) PROGRAMS=${2:?} && shift ;;
    --keep) KEEP=yes ;;
    --down) DOWN=yes ;;
    --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit ;;
    *) die "what is $1? (--programs DIR, --keep, --down)" ;;
    esac
    shift
  done
}

read_arguments "$@"
((EUID == 0)) || die 'network namespaces need root: run this with sudo'
# The directory itself is the lock: no file to leave behind.
exec 9</run
# The last step of a run that was killed may still be on its way.
flock -w 10 9 || die 'another demo is running'
# What an earlier run may have left, by the names and pids it recorded.
tear_down
trap - INT TERM HUP
if [[ -n $DOWN ]]; then exit; fi
for program in xlvs ipvsadm; do
  [[ -x $PROGRAMS/$program ]] || die "$PROGRAMS/$program is missing: run make build"
done
trap tear_down EXIT
trap 'exit 130' INT TERM HUP

echo
demonstrate || true
((${#FAILED[@]} == 0)) || tell_failure
result=0
summary || result=1
if [[ -n $KEEP ]]; then
  trap - EXIT
  tell_how_to_use
fi
exit "$result"
