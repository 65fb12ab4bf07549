//! The way to a server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::nanny::failure::ProbeFailure;

/// Where a check goes, where it comes from, and how long each step may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub server: SocketAddr,
    pub source: Option<IpAddr>,
    pub limit: Duration,
}

impl Target {
    /// A TCP connection.
    pub async fn tcp(&self) -> Result<TcpStream, ProbeFailure> {
        let server = self.server;
        let connecting = async { self.tcp_socket()?.connect(server).await };
        let connected = timeout(self.limit, connecting).await;
        connected
            .map_err(|_| ProbeFailure::ConnectTimeout(server))?
            .map_err(|error| ProbeFailure::Connect(server, error))
    }

    fn tcp_socket(&self) -> io::Result<TcpSocket> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            // Otherwise the port is chosen here, for no server in particular: all checks together could have only as many
            // connections, closed ones included, as there are ports.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind((source, 0).into())?;
        }
        Ok(socket)
    }

    /// A UDP socket that receives from the server alone, and hears when its port is closed.
    pub async fn udp(&self) -> Result<UdpSocket, ProbeFailure> {
        let connected = async {
            let socket = UdpSocket::bind((self.source_or_any(), 0)).await?;
            socket.connect(self.server).await?;
            Ok(socket)
        };
        connected.await.map_err(|error| ProbeFailure::Connect(self.server, error))
    }

    /// The address to bind to.
    pub fn source_or_any(&self) -> IpAddr {
        let any = if self.server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        self.source.unwrap_or(any)
    }

    /// Has `work` done within the limit; `None` if it takes longer.
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout(self.limit, work).await.ok()
    }
}
