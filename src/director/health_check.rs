//! The health check of a real server, as `lvs.cf` and its `#xlvs:` lines say it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::escape::{decode, strip_quotes};
use crate::config::health::{self, CheckKind, DnsType, HealthKeys, HttpVersion};
use crate::config::lvs::{LvsConfig, Protocol, RealServer, VirtualServer};
use crate::config::posix;
use crate::nanny::{Check, DnsQuery, Expect, HttpRequest, Method, Pattern, Timing, Tls, Trust};

/// The check of the server `real` at `endpoint`, or why there cannot be one. `virtual_port` is the virtual server's.
pub(super) fn check(
    config: &LvsConfig,
    block: &VirtualServer,
    real: &RealServer,
    endpoint: SocketAddr,
    virtual_port: u16,
) -> Result<Check, String> {
    let keys = real.health.within(&block.health).within(&config.health);
    let port = keys.check_port.unwrap_or(endpoint.port());
    let said = Said { block, keys, virtual_port };
    Ok(Check {
        endpoint: SocketAddr::new(endpoint.ip(), port),
        source: said.keys.check_source.map(IpAddr::V4),
        method: said.method()?,
        timing: said.timing(),
    })
}

/// Whether nothing is configured and the port is 80, so that a web server is assumed (reference/piranha.md 2.4).
pub(super) fn assumes_web(
    config: &LvsConfig,
    block: &VirtualServer,
    real: &RealServer,
    virtual_port: u16,
) -> bool {
    let keys = real.health.within(&block.health).within(&config.health);
    Said { block, keys, virtual_port }.assumes_web()
}

/// What is said about one server's check.
struct Said<'a> {
    block: &'a VirtualServer,
    keys: HealthKeys,
    virtual_port: u16,
}

impl Said<'_> {
    fn assumes_web(&self) -> bool {
        let configured = [&self.block.send, &self.block.expect, &self.block.send_program];
        let is_piranhas = self.keys.check.is_none() && self.block.protocol == Protocol::Tcp;
        is_piranhas && self.virtual_port == 80 && configured.into_iter().all(Option::is_none)
    }

    fn timing(&self) -> Timing {
        let VirtualServer { timeout, reentry, .. } = self.block;
        let timeout = u32::try_from(*timeout).unwrap_or(0);
        let reentry = u32::try_from(*reentry).unwrap_or(1);
        let piranha = Timing::piranha(timeout, reentry);
        let interval = self.keys.check_interval.unwrap_or(piranha.interval);
        // As many checks as fit into the time that Piranha would count.
        let reentry = Duration::from_secs(if reentry == 0 { 180 } else { reentry.into() });
        let rise = u32::try_from(reentry.as_millis() / interval.as_millis().max(1)).unwrap_or(u32::MAX);
        Timing {
            interval,
            limit: self.keys.check_limit.unwrap_or(piranha.limit),
            rise: self.keys.check_rise.unwrap_or(rise),
            fall: self.keys.check_fall.unwrap_or(piranha.fall),
            jitter: self.keys.check_jitter.unwrap_or(piranha.jitter),
        }
    }

    fn method(&self) -> Result<Method, String> {
        if self.assumes_web() {
            let send = b"GET / HTTP/1.0\r\n\r\n".to_vec();
            return Ok(Method::Tcp { tls: None, send, expect: Some(Expect::Prefix(b"HTTP".to_vec())) });
        }
        match self.keys.kind(self.block) {
            CheckKind::Tcp => Ok(Method::Tcp { tls: None, send: self.send(), expect: self.expect()? }),
            CheckKind::Tls => {
                Ok(Method::Tcp { tls: Some(self.tls()), send: self.send(), expect: self.expect()? })
            }
            CheckKind::Udp => self.udp(),
            CheckKind::Program => self.program(),
            CheckKind::Http => self.http(None),
            CheckKind::Https => self.http(Some(self.tls())),
            CheckKind::Dns => self.dns(),
            CheckKind::Grpc => Ok(self.grpc(None)),
            CheckKind::Grpcs => Ok(self.grpc(Some(self.tls()))),
            CheckKind::Icmp => Ok(Method::Icmp),
        }
    }

    fn send(&self) -> Vec<u8> {
        self.block.send.as_deref().map(decode).unwrap_or_default()
    }

    fn expect(&self) -> Result<Option<Expect>, String> {
        let Some(text) = &self.block.expect else { return Ok(None) };
        let bytes = decode(text);
        Ok(Some(match bytes.as_slice() {
            b"" => Expect::Anything,
            _ if self.block.use_regex => Expect::Pattern(pattern(&bytes).map_err(|error| {
                format!(
                    "expect of virtual server {} is not a regular expression that can be used: {error}; correct it, \
                     or set use_regex = 0",
                    self.block.name
                )
            })?),
            b"*" => Expect::Anything,
            _ => Expect::Prefix(bytes),
        }))
    }

    /// A UDP server speaks only when spoken to.
    fn udp(&self) -> Result<Method, String> {
        let send = self.send();
        if send.is_empty() {
            return Err(format!(
                "virtual server {} is UDP and has nothing to check its servers with: give it send and expect, or \
                 send_program",
                self.block.name
            ));
        }
        Ok(Method::Udp { send, expect: self.expect()?.unwrap_or(Expect::Anything) })
    }

    fn program(&self) -> Result<Method, String> {
        let text = self.block.send_program.as_deref().map(strip_quotes).unwrap_or_default();
        let words = text.split([' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned);
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return Err(format!("virtual server {} has no program in send_program", self.block.name));
        }
        Ok(Method::Program { words, expect: self.block.expect.as_deref().map(decode) })
    }

    fn tls(&self) -> Tls {
        let trust = match &self.keys.tls_verify {
            None | Some(health::Trust::Nothing) => Trust::Anybody,
            Some(health::Trust::System) => Trust::System,
            Some(health::Trust::File(path)) => Trust::File(PathBuf::from(path)),
        };
        let name = self.keys.tls_name.clone();
        let name = name.or_else(|| self.keys.http_host.as_deref().map(without_port).map(str::to_owned));
        Tls { name, trust, expiry_days: self.keys.tls_expiry }
    }

    fn http(&self, tls: Option<Tls>) -> Result<Method, String> {
        let keys = &self.keys;
        let header = match &keys.http_header {
            Some(header) => Some((header.name.clone(), pattern(&header.pattern)?)),
            None => None,
        };
        Ok(Method::Http(HttpRequest {
            tls,
            http2: keys.http_version == Some(HttpVersion::Two),
            path: keys.http_path.clone().unwrap_or_else(|| "/".to_owned()),
            host: keys.http_host.clone(),
            statuses: keys.http_status.clone().unwrap_or_else(|| vec![(200, 399)]),
            header,
            body: keys.http_body.as_deref().map(pattern).transpose()?,
        }))
    }

    fn dns(&self) -> Result<Method, String> {
        let name = self.keys.dns_name.clone();
        Ok(Method::Dns(DnsQuery {
            tcp: self.block.protocol == Protocol::Tcp,
            name: name
                .ok_or_else(|| format!("virtual server {} has no dns_name to ask for", self.block.name))?,
            record_type: self.keys.dns_type.unwrap_or(DnsType::A).word().to_owned(),
            answer: self.keys.dns_answer.clone(),
        }))
    }

    fn grpc(&self, tls: Option<Tls>) -> Method {
        let service = self.keys.grpc_service.clone().unwrap_or_default();
        Method::Grpc { tls, host: self.keys.http_host.clone(), service }
    }
}

fn pattern(bytes: &[u8]) -> Result<Pattern, String> {
    let text = posix::checked(bytes).map_err(|error| error.to_string())?;
    Pattern::new(&text).map_err(|error| error.to_string())
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name)
}
