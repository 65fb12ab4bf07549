//! `-v` and `-h`.

/// The version line. Scripts read it, so it is the one of the ipvsadm that this program stands in for.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

/// What `-h` prints below the version.
pub const HELP: &str = "\
The ipvsadm of xlvs: the same commands, carried out by the xlvs daemon instead of the kernel.

Usage:
  ipvsadm -A|-E SERVICE [-s SCHEDULER] [-b FLAGS] [-p [SECONDS]] [-M MASK] [--pe NAME] [-o]
  ipvsadm -D SERVICE
  ipvsadm -a|-e SERVICE -r HOST[:PORT] [-m|-g|-i] [-w WEIGHT] [-x UPPER] [-y LOWER]
  ipvsadm -d SERVICE -r HOST[:PORT]
  ipvsadm -L|-l [SERVICE] [-n] [--nosort] [--exact] [COLUMNS]
  ipvsadm -L -c | --timeout | --daemon
  ipvsadm -Z [SERVICE]
  ipvsadm -C
  ipvsadm -S [-n]
  ipvsadm -R
  ipvsadm --set TCP TCPFIN UDP
  ipvsadm -h | -v

Commands:
  -A, --add-service      new virtual service
  -E, --edit-service     replace all settings of a service
  -D, --delete-service   remove a service
  -a, --add-server       new real server
  -e, --edit-server      replace all settings of a server
  -d, --delete-server    remove a server
  -L, -l, --list         show services, connections or timeouts; also without any command
  -Z, --zero             reset counters
  -C, --clear            remove everything
  -S, --save             print the table as command lines
  -R, --restore          carry out command lines from standard input
      --set              timeouts in seconds, 0 to keep one

SERVICE:
  -t, --tcp-service HOST[:PORT]
  -u, --udp-service HOST[:PORT]
      --sctp-service HOST[:PORT]
  -f, --fwmark-service MARK, followed by -6 (--ipv6) if it is for IPv6

Service options:
  -s, --scheduler        rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh (wlc)
  -b, --sched-flags      sh-fallback,sh-port for sh; mh-fallback,mh-port for mh
  -p, --persistent       a client stays with its server for so many seconds (360)
  -M, --netmask          clients under one mask count as one client
      --pe               persistence engine
  -o, --ops              schedule every UDP packet by itself

Server options:
  -m, --masquerading     NAT
  -g, --gatewaying       direct routing (this one, if none is given)
  -i, --ipip             tunnel
  -w, --weight           share of the work (1)
  -x, --u-threshold      no new connections from so many on (0: no limit)
  -y, --l-threshold      new connections again below so many

COLUMNS: --stats, --rate, --thresholds, --persistent-conn, --tun-info
  -c, --connection       show connections
  -n, --numeric          show numbers, look up no names
  -X, --exact            never shorten numbers
      --nosort           show in the order of the table
";
