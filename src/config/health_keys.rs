//! Every key of an `#xlvs:` line. Piranha takes such a line for a comment. A key in a block is about that block; outside of the
//! innermost it is about all blocks inside that do not have it themselves. The manual page is made from this table.

use super::health::{CheckKind, DnsType, HttpVersion};
use super::keys::{Key, Standing, Takes, key};
use super::lvs::Choice;

const fn obeyed(
    name: &'static str,
    takes: Takes,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Key {
    key(name, takes, default, Standing::Obeyed, meaning)
}

/// What begins such a line.
pub const MARKER: &str = "#xlvs:";

/// The keys.
pub const HEALTH: [Key; 21] = [
    obeyed(
        "check",
        Takes::OneOf(CheckKind::words),
        None,
        "How the servers are checked. tcp, udp and tls send `send` and want `expect`; program runs \
         `send_program`; http and https ask for a page; dns asks for a name; grpc and grpcs ask gRPC's health \
         service; icmp sends an echo request. The s stands for TLS; tls with neither `send` nor `expect` is \
         content with the handshake. Without this key: program if there is a `send_program`, else as \
         `protocol` says.",
    ),
    obeyed("check_port", Takes::PortNumber, None, "The port that is checked, in place of the server's own."),
    obeyed(
        "check_source",
        Takes::Address,
        None,
        "The address of this machine that checks come from, in place of the kernel's choice.",
    ),
    obeyed(
        "check_interval",
        Takes::Seconds,
        None,
        "From the end of one check to the next; in place of `timeout`.",
    ),
    obeyed(
        "check_limit",
        Takes::Seconds,
        None,
        "How long each step of a check may take: to connect, to agree on TLS, to send, and to get the whole \
         answer; a program has it once. In place of `timeout`.",
    ),
    obeyed(
        "check_rise",
        Takes::Count,
        None,
        "How many good checks in a row bring a server back; in place of `reentry` divided by the interval. \
         The very first check of a server brings it in at once.",
    ),
    obeyed("check_fall", Takes::Count, Some("1"), "How many failed checks in a row take a server out."),
    obeyed(
        "check_jitter",
        Takes::Percent,
        Some("0"),
        "By how many percent of the interval each pause is longer or shorter, by chance.",
    ),
    obeyed(
        "http_version",
        Takes::OneOf(HttpVersion::words),
        Some("1"),
        "HTTP/1.1, or HTTP/2 from the first byte on.",
    ),
    obeyed("http_path", Takes::UrlPath, Some("/"), "What is asked for, with a query if need be."),
    obeyed("http_host", Takes::Name, None, "The host that is asked for; else the server's address."),
    obeyed("http_status", Takes::Statuses, Some("200-399"), "The good statuses."),
    obeyed(
        "http_header",
        Takes::Header,
        None,
        "A header that must be in the answer, and be matched by the pattern. The name's capitals do not \
         matter; the pattern has the escapes of `expect`.",
    ),
    obeyed(
        "http_body",
        Takes::Pattern,
        None,
        "What must be found in the first 65536 bytes of the body. It has the escapes of `expect`.",
    ),
    obeyed(
        "tls_name",
        Takes::Name,
        None,
        "The name that the server is told in SNI, and that its certificate must have if that is verified; \
         else `http_host`, else the server's address, which is not told.",
    ),
    obeyed(
        "tls_verify",
        Takes::Trust,
        Some("none"),
        "Whose certificates are good: anybody's, those of the system's authorities, or those of the \
         authorities in a file.",
    ),
    obeyed(
        "tls_expiry",
        Takes::Days,
        None,
        "Log a warning when the certificate has no more days than these. The server stays in.",
    ),
    obeyed("dns_name", Takes::Name, None, "The name that is asked for; check = dns needs it."),
    obeyed("dns_type", Takes::OneOf(DnsType::words), Some("A"), "The type of record that is asked for."),
    obeyed(
        "dns_answer",
        Takes::Word,
        None,
        "A record that must be among the answers, as dig prints its data. Else every answer without an error \
         is good, one without records as well.",
    ),
    obeyed(
        "grpc_service",
        Takes::Word,
        Some("\"\""),
        "The service that is asked about; without a name it is the server as a whole.",
    ),
];
