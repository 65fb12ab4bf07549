//! What `#xlvs:` lines say about health checks.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::complaint::{Fault, Reason};
use super::escape::decode;
use super::lvs::{Choice, VirtualServer, choice};
use super::posix;
use super::value::{Read, Value};

choice! {
    /// `check`.
    CheckKind {
        /// `send` and `expect` over TCP.
        Tcp = "tcp",
        /// `send` and `expect` over UDP.
        Udp = "udp",
        /// `send_program`.
        Program = "program",
        /// `send` and `expect` over TLS; with neither, the handshake.
        Tls = "tls",
        /// A request over HTTP.
        Http = "http",
        /// The same over TLS.
        Https = "https",
        /// A query.
        Dns = "dns",
        /// The health service of gRPC.
        Grpc = "grpc",
        /// The same over TLS.
        Grpcs = "grpcs",
        /// An echo request.
        Icmp = "icmp",
    }
}

choice! {
    /// `http_version`.
    HttpVersion {
        /// HTTP/1.1.
        One = "1",
        /// HTTP/2, without asking for it by HTTP/1.1.
        Two = "2",
    }
}

choice! {
    /// `dns_type`.
    DnsType {
        /// IPv4 address.
        A = "A",
        /// IPv6 address.
        Aaaa = "AAAA",
        /// Another name.
        Cname = "CNAME",
        /// Mail exchanger.
        Mx = "MX",
        /// Name server.
        Ns = "NS",
        /// Name of an address.
        Ptr = "PTR",
        /// Start of authority.
        Soa = "SOA",
        /// Service.
        Srv = "SRV",
        /// Text.
        Txt = "TXT",
    }
}

/// `tls_verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Any certificate.
    Nothing,
    /// Certificates of the system's authorities.
    System,
    /// Certificates of the authorities in this PEM file.
    File(String),
}

/// `http_header`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Name.
    pub name: String,
    /// Extended regular expression for the value, escapes converted.
    pub pattern: Vec<u8>,
}

/// The keys of one block; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthKeys {
    /// What is checked.
    pub check: Option<CheckKind>,
    /// Port in place of the server's.
    pub check_port: Option<u16>,
    /// Address that checks come from.
    pub check_source: Option<Ipv4Addr>,
    /// Pause between checks.
    pub check_interval: Option<Duration>,
    /// Limit of each step of a check.
    pub check_limit: Option<Duration>,
    /// Good checks in a row that bring a server back.
    pub check_rise: Option<u32>,
    /// Failed checks in a row that take it out.
    pub check_fall: Option<u32>,
    /// By how many percent a pause may be shorter or longer.
    pub check_jitter: Option<u32>,
    /// HTTP version.
    pub http_version: Option<HttpVersion>,
    /// Path and query.
    pub http_path: Option<String>,
    /// `Host`.
    pub http_host: Option<String>,
    /// Good statuses, as ranges with both ends.
    pub http_status: Option<Vec<(u16, u16)>>,
    /// A header that the answer must have.
    pub http_header: Option<HeaderMatch>,
    /// Extended regular expression for the body, escapes converted.
    pub http_body: Option<Vec<u8>>,
    /// Name of the server in its certificate, and in SNI.
    pub tls_name: Option<String>,
    /// Whether the certificate is verified, and by what.
    pub tls_verify: Option<Trust>,
    /// A warning is logged when the certificate expires in so many days.
    pub tls_expiry: Option<u32>,
    /// Name that is asked for.
    pub dns_name: Option<String>,
    /// Type of record.
    pub dns_type: Option<DnsType>,
    /// Record that must be among the answers.
    pub dns_answer: Option<String>,
    /// Name of the gRPC service; empty for the server as a whole.
    pub grpc_service: Option<String>,
}

impl HealthKeys {
    /// These keys, and those of the blocks around where these say nothing.
    pub fn within(&self, outer: &HealthKeys) -> HealthKeys {
        macro_rules! merge {
            ($($key:ident)+) => {
                HealthKeys { $($key: self.$key.clone().or_else(|| outer.$key.clone())),+ }
            };
        }
        merge! {
            check check_port check_source check_interval check_limit check_rise check_fall check_jitter
            http_version http_path http_host http_status http_header http_body
            tls_name tls_verify tls_expiry dns_name dns_type dns_answer grpc_service
        }
    }

    /// What is checked: as said, or as Piranha decides by the keys of the virtual block.
    pub fn kind(&self, block: &VirtualServer) -> CheckKind {
        let piranhas = || match block.protocol {
            _ if block.send_program.is_some() => CheckKind::Program,
            super::lvs::Protocol::Tcp => CheckKind::Tcp,
            super::lvs::Protocol::Udp => CheckKind::Udp,
        };
        self.check.unwrap_or_else(piranhas)
    }

    /// Reads one line. `Ok(false)`: not a key.
    pub fn assign(&mut self, key: &str, value: Value<'_>) -> Read<bool> {
        match key {
            "check" => self.check = Some(value.choice()?),
            "check_port" => self.check_port = Some(port(value)?),
            "check_source" => self.check_source = value.address()?,
            "check_interval" => self.check_interval = Some(seconds(value)?),
            "check_limit" => self.check_limit = Some(seconds(value)?),
            "check_rise" => self.check_rise = Some(number(value, 1, 1000)?),
            "check_fall" => self.check_fall = Some(number(value, 1, 1000)?),
            "check_jitter" => self.check_jitter = Some(number(value, 0, 50)?),
            "http_version" => self.http_version = Some(value.choice()?),
            "http_path" => self.http_path = Some(path(value)?),
            "http_host" => self.http_host = Some(name(value)?),
            "http_status" => self.http_status = Some(statuses(value)?),
            "http_header" => self.http_header = Some(header(value)?),
            "http_body" => self.http_body = Some(pattern(value)?),
            "tls_name" => self.tls_name = Some(name(value)?),
            "tls_verify" => self.tls_verify = Some(trust(value)?),
            "tls_expiry" => self.tls_expiry = Some(number(value, 1, 3650)?),
            "dns_name" => self.dns_name = Some(domain_name(value)?),
            "dns_type" => self.dns_type = Some(value.choice()?),
            "dns_answer" => self.dns_answer = Some(value.string()?),
            "grpc_service" => self.grpc_service = Some(value.string()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn invalid(word: &str, expected: impl Into<String>) -> Fault {
    Fault::word(Reason::InvalidArgument, word, expected)
}

fn number(value: Value<'_>, least: u32, most: u32) -> Read<u32> {
    let number = u32::try_from(value.integer()?).ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        let word = value.words.first().map_or("", |word| word.text);
        invalid(word, format!("a whole number from {least} to {most}"))
    })
}

fn port(value: Value<'_>) -> Read<u16> {
    let port = value.integer().ok().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    match port {
        Some(port) => Ok(port),
        None => Err(invalid(value.word()?, "a port from 1 to 65535")),
    }
}

/// Whole milliseconds are what the timers of checks keep.
fn seconds(value: Value<'_>) -> Read<Duration> {
    let word = value.word()?;
    let is_decimal = word.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let seconds = word.parse::<f64>().ok().filter(|seconds| is_decimal && (0.1..=86_400.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| invalid(word, "seconds from 0.1 to 86400, such as 2 or 0.5"))?;
    Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
}

fn path(value: Value<'_>) -> Read<String> {
    let word = value.word()?;
    let good = word.starts_with('/') && word.chars().all(|letter| letter.is_ascii_graphic() && letter != '#');
    if good {
        Ok(word.to_owned())
    } else {
        Err(invalid(word, "a path that begins with /, without blanks or #"))
    }
}

fn name(value: Value<'_>) -> Read<String> {
    let word = value.word()?;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    let good = !word.is_empty() && word.len() <= 255 && word.chars().all(fits);
    if good {
        Ok(word.to_owned())
    } else {
        Err(invalid(word, "a host name in ASCII, such as www.example.com"))
    }
}

fn domain_name(value: Value<'_>) -> Read<String> {
    let word = value.word()?;
    let labels = word.strip_suffix('.').unwrap_or(word);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|letter| letter.is_ascii_graphic() && letter != '\\')
    };
    let good = word == "." || (word.len() <= 253 && labels.split('.').all(is_label));
    if good {
        Ok(word.to_owned())
    } else {
        Err(invalid(word, "a domain name in ASCII, such as www.example.com"))
    }
}

fn statuses(value: Value<'_>) -> Read<Vec<(u16, u16)>> {
    let word = value.word()?;
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some((status(from)?, status(to)?)).filter(|(from, to)| from <= to),
        None => status(part).map(|status| (status, status)),
    };
    let ranges: Option<Vec<(u16, u16)>> = word.split(',').map(range).collect();
    ranges.ok_or_else(|| invalid(word, "statuses from 100 to 599, such as 200 or 200-299,401"))
}

fn header(value: Value<'_>) -> Read<HeaderMatch> {
    let word = value.word()?;
    let (name, text) = word.split_once(':').unwrap_or_default();
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(invalid(word, "\"NAME: PATTERN\", such as \"Content-Type: ^text/\""));
    }
    Ok(HeaderMatch { name: name.to_owned(), pattern: regular(text.trim_start_matches([' ', '\t']))? })
}

fn pattern(value: Value<'_>) -> Read<Vec<u8>> {
    regular(value.word()?)
}

fn regular(word: &str) -> Read<Vec<u8>> {
    let pattern = decode(word);
    match posix::checked(&pattern) {
        Ok(_) => Ok(pattern),
        Err(error) => Err(invalid(word, format!("an extended regular expression: {error}"))),
    }
}

fn trust(value: Value<'_>) -> Read<Trust> {
    match value.word()? {
        "none" => Ok(Trust::Nothing),
        "system" => Ok(Trust::System),
        path if path.starts_with('/') => Ok(Trust::File(path.to_owned())),
        other => Err(invalid(other, "none, system, or the absolute path of a PEM file")),
    }
}
