//! The `net.ipv4.vs` settings that the engine obeys.

use thiserror::Error;

/// Values of one snapshot; the names are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctls {
    /// Bit 0: a SYN on a connection in TIME_WAIT or CLOSE is scheduled anew.
    pub conn_reuse_mode: i32,
    /// Not 0: connections of a deleted server end at their next packet instead of losing it; a SYN on a connection of a
    /// server of weight 0 is scheduled anew.
    pub expire_nodest_conn: i32,
    /// Not 0: a template of a server of weight 0 no longer counts.
    pub expire_quiescent_template: i32,
    /// Not 0: a packet of a real server without a connection is answered by a port unreachable.
    pub nat_icmp_send: i32,
    /// Above 1: connections follow the `secure_tcp` state tables.
    pub secure_tcp: i32,
    /// Not 0: any SCTP packet but an ABORT may create a connection.
    pub sloppy_sctp: i32,
    /// Not 0: any TCP packet but a RST may create a connection.
    pub sloppy_tcp: i32,
}

impl Default for Sysctls {
    fn default() -> Self {
        Sysctls {
            conn_reuse_mode: 1,
            expire_nodest_conn: 0,
            expire_quiescent_template: 0,
            nat_icmp_send: 0,
            secure_tcp: 0,
            sloppy_sctp: 0,
            sloppy_tcp: 0,
        }
    }
}

/// Why a sysctl could not be read or set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SysctlError {
    /// No such name.
    #[error("net.ipv4.vs.{0}: no such setting; known are {names}", names = NAMES.join(", "))]
    Unknown(String),
    /// Not a number.
    #[error("net.ipv4.vs.{0}: `{1}' is not a whole number")]
    NotANumber(String, String),
}

const NAMES: [&str; 7] = [
    "conn_reuse_mode",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "nat_icmp_send",
    "secure_tcp",
    "sloppy_sctp",
    "sloppy_tcp",
];

impl Sysctls {
    fn slot(&mut self, name: &str) -> Result<&mut i32, SysctlError> {
        match name {
            "conn_reuse_mode" => Ok(&mut self.conn_reuse_mode),
            "expire_nodest_conn" => Ok(&mut self.expire_nodest_conn),
            "expire_quiescent_template" => Ok(&mut self.expire_quiescent_template),
            "nat_icmp_send" => Ok(&mut self.nat_icmp_send),
            "secure_tcp" => Ok(&mut self.secure_tcp),
            "sloppy_sctp" => Ok(&mut self.sloppy_sctp),
            "sloppy_tcp" => Ok(&mut self.sloppy_tcp),
            _ => Err(SysctlError::Unknown(name.to_owned())),
        }
    }

    /// Whether the `secure_tcp` state tables apply (ipvs.md section 6.6).
    pub fn is_tcp_secure(&self) -> bool {
        self.secure_tcp > 1
    }

    /// The value of a setting by its name without `net.ipv4.vs.`.
    pub fn get(mut self, name: &str) -> Result<i32, SysctlError> {
        self.slot(name).copied()
    }

    /// Sets it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let slot = self.slot(name)?;
        let wrong = || SysctlError::NotANumber(name.to_owned(), value.to_owned());
        *slot = value.trim().parse().map_err(|_| wrong())?;
        Ok(())
    }
}
