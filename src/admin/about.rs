//! What every switch of ipvsadm is for. `-h`, the manual page and the completion take it from here; a command or an option
//! without a description does not compile.

use super::options::{Choice, Command, Meaning};

/// A switch in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What its value is called, or what words follow; empty if there are none.
    pub value: &'static str,
    /// A line without a full stop.
    pub brief: &'static str,
    /// Further sentences for the manual page, in its markup; may be empty.
    pub detail: &'static str,
}

const fn about(value: &'static str, brief: &'static str, detail: &'static str) -> About {
    About { value, brief, detail }
}

impl Meaning {
    /// What the switch is for.
    pub fn about(self) -> About {
        match self {
            Meaning::Command(command) => command.about(),
            Meaning::Option(choice) => choice.about(),
            Meaning::Tcp => about("HOST[:PORT]", "the TCP service of this address and port", ADDRESSES),
            Meaning::Udp => about("HOST[:PORT]", "the UDP service of this address and port", ""),
            Meaning::Sctp => about("HOST[:PORT]", "the SCTP service of this address and port", ""),
            Meaning::FwMark => about(
                "MARK",
                "the service of all packets with this firewall mark",
                "A number from 1 to 4294967295. The marks are those that the saved iptables rules give.",
            ),
            Meaning::Ipv6 => about("", "behind -f: the mark's IPv6 packets, not its IPv4 ones", ""),
            Meaning::Route => about(
                "",
                "direct routing; this one, if none is given",
                "The packet goes to the server's hardware address as it is. Server and router share an \
                 Ethernet, and the server has the virtual address without announcing it.",
            ),
            Meaning::Tunnel => about(
                "",
                "tunnel",
                "The packet goes to the server inside another one. The server has the virtual address \
                 without announcing it.",
            ),
            Meaning::Masquerade => {
                about("", "NAT", "Addresses and ports are rewritten; the router is the server's gateway.")
            }
            Meaning::Sort => about("", "show in sorted order, as always", ""),
        }
    }
}

const ADDRESSES: &str = "An IPv4 address, an IPv6 address (in brackets if a port follows), or a host name \
     of an IPv4 address. Port 0, or none, is any port and needs `-p`.";

impl Command {
    /// What the command does.
    pub fn about(self) -> About {
        match self {
            Command::AddService => about("SERVICE", "new virtual service", ""),
            Command::EditService => about(
                "SERVICE",
                "replace all settings of a service",
                "What is not given gets its default: without `-s` the scheduler becomes wlc, without `-p` \
                 persistence ends.",
            ),
            Command::DeleteService => about(
                "SERVICE",
                "remove a service",
                "Its connections are dealt with as net.ipv4.vs.expire_nodest_conn says.",
            ),
            Command::Flush => about("", "remove all services", ""),
            Command::List => about(
                "[SERVICE]",
                "show services, connections, timeouts or daemons; also without any command",
                "",
            ),
            Command::AddServer => about("SERVICE", "new real server", ""),
            Command::DeleteServer => about("SERVICE", "remove a server", ""),
            Command::EditServer => about(
                "SERVICE",
                "replace all settings of a server",
                "What is not given gets its default. In particular, without `-m` or `-i` forwarding \
                 becomes `-g`.",
            ),
            Command::Set => about(
                "TCP TCPFIN UDP",
                "timeouts in seconds, 0 to keep one",
                "Of idle TCP connections, of those after a FIN, and of UDP; at most 2678400.",
            ),
            Command::StartDaemon => about(
                "master|backup",
                "note a synchronisation daemon",
                "It is listed and can be stopped again, but this version neither sends nor receives \
                 connections.",
            ),
            Command::StopDaemon => about("master|backup", "end a synchronisation daemon", ""),
            Command::Restore => about(
                "",
                "carry out command lines from standard input",
                "All of them or, if one is wrong or refused, none. `ipvsadm-restore` removes all services \
                 first and takes lines that begin with # for comments.",
            ),
            Command::Save => about(
                "",
                "print the table as command lines",
                "For `-R`. Thresholds, timeouts and daemons are not among them. `ipvsadm-save` does the \
                 same.",
            ),
            Command::Zero => {
                about("[SERVICE]", "reset counters", "Those of one service and its servers, or all.")
            }
            Command::Help => about("", "a summary of this page", ""),
            Command::Version => about("", "the version of the ipvsadm that this one stands in for", ""),
        }
    }
}

impl Choice {
    /// What the option is for.
    pub fn about(self) -> About {
        match self {
            Choice::ServiceAddress => about("SERVICE", "which service", ""),
            Choice::Forwarding => about("", "how packets reach the server", ""),
            Choice::Scheduler | Choice::SchedulerFlags | Choice::OnePacket | Choice::Engine => {
                self.of_service()
            }
            Choice::Persistent | Choice::Netmask => self.of_service(),
            Choice::RealServer | Choice::Weight | Choice::UpperThreshold | Choice::LowerThreshold => {
                self.of_server()
            }
            Choice::TunType | Choice::TunPort => self.of_server(),
            Choice::TunNocsum | Choice::TunCsum | Choice::TunRemcsum => self.of_server(),
            Choice::McastInterface | Choice::McastGroup | Choice::McastPort | Choice::McastTtl => {
                self.of_daemon()
            }
            Choice::SyncId | Choice::SyncMaxlen => self.of_daemon(),
            Choice::Numeric => about("", "show numbers, look up no names", ""),
            Choice::Connection => about("", "show connections", ""),
            Choice::Timeout => about("", "show the timeouts that --set sets", ""),
            Choice::Daemon => about("", "show the synchronisation daemons", ""),
            Choice::Stats => about("", "show connections, packets and bytes since the last -Z", ""),
            Choice::Rate => about("", "show connections, packets and bytes a second", ""),
            Choice::Thresholds => about("", "show the servers' thresholds", ""),
            Choice::PersistentConn => about(
                "",
                "show how many clients stay with each server",
                "With `-c`: show what a persistence engine knows of each connection.",
            ),
            Choice::TunInfo => about("", "show the servers' tunnels", ""),
            Choice::NoSort => about("", "show in the order of the table", ""),
            Choice::Exact => about("", "never shorten numbers", "Else large ones end in K, M, G or T."),
            Choice::Json => about(
                "",
                "print as JSON, for programs",
                "All numbers at once, whatever columns are asked for.",
            ),
            Choice::Compat => about(
                "",
                "line by line: a wrong line leaves those before it done",
                "As the original does it. A line that is refused is reported and the next one follows; the \
                 exit status is that of the last line.",
            ),
        }
    }

    fn of_service(self) -> About {
        match self {
            Choice::Scheduler => about("NAME", "who takes the next connection (wlc)", "See SCHEDULERS."),
            Choice::SchedulerFlags => about(
                "FLAG,...",
                "flags of the scheduler",
                "sh-fallback or mh-fallback: a client whose server has weight 0 gets another. sh-port or \
                 mh-port: the client's port counts too. flag-1, flag-2 and flag-3 are the names of the \
                 flags of any scheduler.",
            ),
            Choice::Persistent => about(
                "[SECONDS]",
                "a client stays with its server for so long (360)",
                "From 1 to 2678400 seconds after its last connection.",
            ),
            Choice::Netmask => about(
                "MASK",
                "with -p: clients under one mask count as one client",
                "A netmask such as 255.255.255.0; of an IPv6 service, which has to stand before it, the \
                 length of a prefix.",
            ),
            Choice::OnePacket => about("", "UDP and marks: schedule every packet by itself", ""),
            _ => about(
                "NAME",
                "persistence engine",
                "sip: what belongs to one SIP call goes to one server. Needs `-p`.",
            ),
        }
    }

    fn of_server(self) -> About {
        match self {
            Choice::RealServer => about(
                "HOST[:PORT]",
                "the server",
                "Without a port it has the service's, if that stands before. With `-g` and `-i` it always \
                 has.",
            ),
            Choice::Weight => about(
                "N",
                "share of the work beside those of the others (1)",
                "From 0 to 2147483647. With 0 a server gets no new connections and keeps those that it has.",
            ),
            Choice::UpperThreshold => {
                about("N", "no new connections from so many on (0: no limit)", "From 0 to 2147483647.")
            }
            Choice::LowerThreshold => about(
                "N",
                "new connections again below so many",
                "With 0, below three quarters of the upper one.",
            ),
            Choice::TunType => about("TYPE", "with -i: ipip, gue or gre (ipip)", ""),
            Choice::TunPort => about("PORT", "with -i, gue: the UDP port that the server receives at", ""),
            Choice::TunNocsum => about("", "with -i, gue and gre: no checksum", ""),
            Choice::TunCsum => about("", "with -i, gue and gre: with a checksum", ""),
            _ => about("", "with -i, gue: remote checksum offload", ""),
        }
    }

    fn of_daemon(self) -> About {
        match self {
            Choice::McastInterface => about("NAME", "interface (eth0)", ""),
            Choice::McastGroup => about("ADDRESS", "multicast group (224.0.0.81)", ""),
            Choice::McastPort => about("PORT", "UDP port (8848)", ""),
            Choice::McastTtl => about("N", "time to live, 1 to 255 (1)", ""),
            Choice::SyncId => about("N", "number of the pair, 0 to 255 (0)", ""),
            _ => about("BYTES", "longest message, 1 to 65507", "By default what the interface's MTU allows."),
        }
    }
}
