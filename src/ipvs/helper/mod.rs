//! Protocols whose payload names addresses and ports, so that rewriting headers is not enough.

pub mod control;
pub mod ftp;
pub mod sequence;

use std::ops::RangeInclusive;

/// Virtual ports whose connections the FTP helper reads, like the `ports=` option of the kernel's helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FtpPorts(pub Vec<u16>);

/// The ports that data connections of passive mode go to.
pub const PASSIVE_PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

impl Default for FtpPorts {
    /// 21.
    fn default() -> Self {
        FtpPorts(vec![ftp::CONTROL_PORT])
    }
}

impl FtpPorts {
    /// Whether connections to a virtual port are read.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}
