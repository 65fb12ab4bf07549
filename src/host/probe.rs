//! Asks the hosts on a link whether they have addresses that are about to be put up.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, LinkAddr, MsgFlags};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::spawn_blocking;

use super::announce::packet_address;
use super::clock::Clock;
use crate::net::addr::MacAddr;
use crate::net::announce::{claimed, probe};

/// Who has which address.
pub type Owners = BTreeMap<IpAddr, MacAddr>;

/// ETH_P_ARP and ETH_P_ALL.
const ARP: u16 = 0x0806;
const EVERYTHING: u16 = 3;
/// More than any frame that could be an answer.
const FRAME_LEN_MAX: usize = 256;

/// Asks `times` times, and waits `wait` each time, for `addresses` on the interface `link` whose hardware address is `mac`.
/// Returns who answered, the first for each address. Needs `CAP_NET_RAW`.
pub async fn ask(
    link: u32,
    mac: MacAddr,
    addresses: Vec<IpAddr>,
    times: u32,
    wait: Duration,
) -> io::Result<Owners> {
    let asked = spawn_blocking(move || ask_and_wait(link, mac, &addresses, times, wait)).await;
    asked.map_err(io::Error::other)?
}

fn ask_and_wait(
    link: u32,
    mac: MacAddr,
    addresses: &[IpAddr],
    times: u32,
    wait: Duration,
) -> io::Result<Owners> {
    let out = packet_address(link)?.ok_or(io::ErrorKind::NotFound)?;
    let socket = listen(&out, addresses.iter().any(IpAddr::is_ipv6))?;
    let mut owners = Owners::new();
    for _ in 0..times {
        for address in addresses.iter().filter(|address| !owners.contains_key(*address)) {
            socket::sendto(socket.as_raw_fd(), &probe(mac, *address), &out, MsgFlags::empty())?;
        }
        hear(&socket, mac, addresses, wait, &mut owners)?;
    }
    Ok(owners)
}

/// All protocols if IPv6 is asked about: ARP and IPv6 do not fit one filter.
fn listen(link: &LinkAddr, with_ipv6: bool) -> io::Result<Socket> {
    let protocol = if with_ipv6 { EVERYTHING } else { ARP };
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol.to_be()))))?;
    socket.set_nonblocking(true)?;
    socket::bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

/// Until the time is over, or all have answered.
fn hear(
    socket: &Socket,
    mac: MacAddr,
    asked: &[IpAddr],
    wait: Duration,
    owners: &mut Owners,
) -> io::Result<()> {
    let clock = Clock::start();
    let end = clock.now() + wait;
    let mut frame = [0; FRAME_LEN_MAX];
    while owners.len() < asked.len() {
        let left = end.saturating_since(clock.now()).as_millis();
        if left == 0 {
            break;
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout)?;
        let length = match socket::recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Err(nix::Error::EAGAIN) => continue,
            received => received?,
        };
        if let Some((address, owner)) = claimed(&frame[..length])
            && owner != mac
            && asked.contains(&address)
        {
            owners.entry(address).or_insert(owner);
        }
    }
    Ok(())
}
