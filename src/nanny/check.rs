//! What to check, as the configuration says it.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::nanny::expect::{Expect, PatternError, decode, strip_quotes};
use crate::nanny::probe::{Method, Probe};
use crate::net::addr::Protocol;

/// One real server's health check. Two equal values check the same thing in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Name of the virtual server in lvs.cf.
    pub virtual_server: String,
    /// Name of the real server in lvs.cf.
    pub server: String,
    /// What to connect to.
    pub endpoint: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port of the virtual server; 80 makes a web server the default (reference/piranha.md 2.4).
    pub virtual_port: u16,
    /// `send` as the parser gives it, with its double quotes and escapes.
    pub send: Option<String>,
    /// `expect`, likewise.
    pub expect: Option<String>,
    /// `send_program`, likewise.
    pub send_program: Option<String>,
    /// Whether `expect` is a regular expression.
    pub use_regex: bool,
    /// Pause between checks and limit of each step of one, in seconds; 0 counts as 1.
    pub timeout: u32,
    /// How long a server must be good to come back, in seconds; 0 counts as 180.
    pub reentry: u32,
}

/// A check that cannot be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckError {
    /// `expect` is no regular expression.
    #[error(
        "expect of virtual server {virtual_server} is not a regular expression: {source}; \
         correct it, or set use_regex = 0"
    )]
    Pattern {
        /// Name in lvs.cf.
        virtual_server: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A UDP server speaks only when spoken to.
    #[error(
        "virtual server {virtual_server} is UDP and has nothing to check its servers with: \
         give it send and expect, or send_program"
    )]
    SilentUdp {
        /// Name in lvs.cf.
        virtual_server: String,
    },
}

impl Check {
    /// Whether nothing is configured and the port is 80, so that a web server is assumed (reference/piranha.md 2.4).
    pub fn assumes_web(&self) -> bool {
        let configured = [&self.send, &self.expect, &self.send_program];
        self.virtual_port == 80 && configured.into_iter().all(Option::is_none)
    }

    /// Decodes the configured strings. Fails on a bad regular expression and on UDP without anything to send.
    pub fn prepare(&self) -> Result<Probe, CheckError> {
        Ok(Probe {
            endpoint: self.endpoint,
            limit: Duration::from_secs(self.timeout.max(1).into()),
            method: self.method()?,
        })
    }

    fn method(&self) -> Result<Method, CheckError> {
        if let Some(program) = &self.send_program {
            let words = strip_quotes(program).split([' ', '\t']).filter(|word| !word.is_empty());
            return Ok(Method::Program {
                words: words.map(str::to_owned).collect(),
                expect: self.expect.as_deref().map(decode),
            });
        }
        if self.assumes_web() {
            return Ok(Method::Tcp {
                send: b"GET / HTTP/1.0\r\n\r\n".to_vec(),
                expect: Some(Expect::Prefix(b"HTTP".to_vec())),
            });
        }
        let send = self.send.as_deref().map(decode).unwrap_or_default();
        let expect = self.expect.as_deref().map(|text| self.pattern(text)).transpose()?;
        match (self.protocol, send.is_empty()) {
            (Protocol::UDP, true) => {
                Err(CheckError::SilentUdp { virtual_server: self.virtual_server.clone() })
            }
            (Protocol::UDP, false) => Ok(Method::Udp { send, expect: expect.unwrap_or(Expect::Anything) }),
            _ => Ok(Method::Tcp { send, expect }),
        }
    }

    fn pattern(&self, text: &str) -> Result<Expect, CheckError> {
        Expect::new(text, self.use_regex)
            .map_err(|source| CheckError::Pattern { virtual_server: self.virtual_server.clone(), source })
    }
}
