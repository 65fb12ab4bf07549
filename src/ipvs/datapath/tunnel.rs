//! Tunnels: the packet goes to the server inside another one (goldens `tun-ipip`, `tun-gue`, `tun-gre`, `tun-ipv6`, `tun-mixed`).

use std::net::IpAddr;

use super::fragments::IPV6_FRAGMENT_HEADER_LEN;
use super::transmit::ETHERNET_LEN;
use super::{Datapath, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::Forward;
use crate::ipvs::outbox::Exit;
use crate::ipvs::protocol::Direction;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::fragment::Cut;
use crate::net::icmp::IcmpError;
use crate::net::parse::Transport;
use crate::net::rewrite;
use crate::net::route::{Egress, NextHop};
use crate::net::tunnel::{Outer, TunnelQuote, encapsulate, parse_tunnel_quote, quoted_packet};

/// What the kernel takes off the MTU that it tells of, whatever the tunnel (golden `tun-icmp-error`).
const IPV4_LEN: u32 = 20;
const IPV6_LEN: usize = 40;
/// ICMP "fragmentation needed".
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);

impl Datapath {
    /// A client's packet to a server at the other end of a tunnel. A server that is this machine gets the packet as it came
    /// (golden `dr-local`).
    pub(super) fn send_through_tunnel(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: &Connection,
    ) -> Verdict {
        let server = connection.server_address().ip();
        let egress = match passage.way(server) {
            _ if server.is_loopback() => return Verdict::Pass,
            Ok(egress) => egress,
            Err(NextHop::Local) => return Verdict::Pass,
            Err(_) => return self.answer(passage, IcmpError::HostUnreachable, DropReason::Unreachable),
        };
        let Some(source) = passage.burst.snapshot.routes.source_towards(server) else {
            return Verdict::Drop(DropReason::Unreachable);
        };
        if passage.packet.ttl <= 1 {
            return self.answer(passage, IcmpError::TimeExceeded, DropReason::TtlExceeded);
        }
        let mtu = mtu_of(passage, connection, egress);
        let room = mtu.saturating_sub(connection.server.tunnel().overhead(server));
        let refusable = passage.may_not_be_fragmented() && passage.must_stay_whole();
        if refusable && passage.largest_len() > room {
            return self.tell_mtu(passage, room);
        }
        self.wrap(passage, connection, source, egress.map(|egress| Egress { mtu: mtu as u32, ..egress }))
    }

    fn wrap(
        &mut self,
        passage: &mut Passage<'_, '_>,
        connection: &Connection,
        source: IpAddr,
        egress: Option<Egress>,
    ) -> Verdict {
        let destination = connection.server_address().ip();
        let tunnel = connection.server.tunnel();
        let size = passage.tunnel_size(destination, egress);
        let fits =
            passage.packet.ip_len() + tunnel.overhead(destination) <= passage.tunnel_limit(destination, size);
        let dont_fragment = passage.packet.is_ipv4() && passage.may_not_be_fragmented();
        // An atomic datagram needs no identification (RFC 6864 section 4.1). The kernel gives none to an ICMP error either that
        // asks not to be fragmented, and must be (golden `mtu-edges-icmp`).
        let id = if dont_fragment { 0 } else { self.take_id() };
        let outer = Outer {
            source,
            destination,
            id,
            dont_fragment: dont_fragment && (fits || passage.origin.is_some()),
        };
        rewrite::decrement_ttl(passage.frame.bytes_mut(), &passage.packet);
        if !encapsulate(passage.frame, &passage.packet, tunnel, &outer, &egress.unwrap_or(Egress::NONE)) {
            return Verdict::Drop(DropReason::NoRoom);
        }
        if !fits {
            let exit = egress.map_or(Exit::Kernel, |egress| Exit::Port(egress.port));
            let borders = passage.borders(destination, tunnel.overhead(destination), size);
            let cut = borders.as_deref().map_or(Cut::Size(size), Cut::Lengths);
            return self.send_fragments(passage.frame.bytes(), ETHERNET_LEN, cut, exit);
        }
        egress.map_or(Verdict::HandOver, |egress| Verdict::Transmit(egress.port))
    }

    /// An error about a tunnel packet that one of this machine's addresses sent: the client is told (golden
    /// `tun-icmp-error`). `None` if it is about something else.
    pub(super) fn tunnel_error(&mut self, passage: &mut Passage<'_, '_>) -> Option<Verdict> {
        let packet = passage.packet;
        let quote = parse_tunnel_quote(passage.frame.bytes(), &packet)?;
        let (connection, direction) = self.find_key(passage.burst, &quote.inner.flow)?;
        let ours = quote.source == packet.destination && direction == Direction::In;
        if !ours || !is_about(&quote, &connection) {
            return None;
        }
        if !rewrite::icmp_checksum_ok(passage.frame.bytes(), &packet) {
            return Some(Verdict::Drop(DropReason::BadIcmpChecksum));
        }
        let error = relayed(passage, &connection, &quote)?;
        passage.packet = quoted_packet(&quote.inner, packet.end);
        self.count_out(&connection, passage.packet.ip_len());
        let verdict = self.answer(passage, error, DropReason::TunnelError);
        if let Verdict::Transmit(_) | Verdict::HandOver = verdict {
            self.count_out(&connection, passage.frame.len() - ETHERNET_LEN);
        }
        Some(verdict)
    }
}

impl Passage<'_, '_> {
    /// IPv6 routers never fragment; with `pmtu_disc` = 0 a tunnel packet around IPv4 always may be.
    fn may_not_be_fragmented(&self) -> bool {
        let obey = !self.packet.is_ipv4() || self.burst.snapshot.sysctls.pmtu_disc != 0;
        self.packet.dont_fragment && obey
    }

    /// Size of the largest packet or fragment to send to the tunnel's other end. What came in fragments leaves as finely cut
    /// (golden `fragments-kinds`).
    fn tunnel_size(&self, destination: IpAddr, egress: Option<Egress>) -> usize {
        let mtu = egress.map_or(usize::MAX, |egress| egress.mtu as usize);
        let origin = self.origin.as_ref().filter(|_| self.packet.is_ipv4() == destination.is_ipv4());
        origin.map_or(mtu, |origin| origin.size(&self.packet, mtu))
    }

    /// Length above which the tunnel packet is made fragments of `size`, or one: IPv6 in IPv6 above the largest fragment that
    /// came (golden `ipv6-atomic-fragments`).
    fn tunnel_limit(&self, destination: IpAddr, size: usize) -> usize {
        let origin = self.origin.as_ref().filter(|_| !self.packet.is_ipv4() && !destination.is_ipv4());
        origin.map_or(size, |origin| origin.largest.min(size))
    }

    /// Lengths of the tunnel packet's fragments, of at most `size` bytes, if an IPv6 datagram in it came in fragments: the
    /// kernel keeps their borders unless the tunnel's header makes the first one odd (golden `fragments-tunnels`).
    fn borders(&self, destination: IpAddr, overhead: usize, size: usize) -> Option<Vec<usize>> {
        let origin = self.origin.as_ref().filter(|_| !self.packet.is_ipv4())?;
        let outer = if destination.is_ipv4() { IPV4_LEN as usize } else { IPV6_LEN };
        let header = if destination.is_ipv4() { outer } else { outer + IPV6_FRAGMENT_HEADER_LEN };
        let mut lengths = origin.lengths.to_vec();
        *lengths.first_mut()? += origin.header_len + overhead - outer;
        let kept = lengths[0] % 8 == 0 && lengths.iter().all(|length| length + header <= size);
        kept.then_some(lengths)
    }
}

/// Size of the largest packet that reaches the other end of the tunnel, as far as is known.
fn mtu_of(passage: &Passage<'_, '_>, connection: &Connection, egress: Option<Egress>) -> usize {
    let link = egress.map_or(u32::MAX, |egress| egress.mtu);
    let path = connection.server.path_mtu(passage.burst.now).unwrap_or(u32::MAX);
    link.min(path) as usize
}

fn is_about(quote: &TunnelQuote, connection: &Connection) -> bool {
    connection.forward == Forward::Tunnel
        && connection.server_address().ip() == quote.destination
        && quote.wrap.fits(connection.server.tunnel())
}

/// What the client is told; the MTU of the way is kept. Without "don't fragment" nobody asked for it.
fn relayed(passage: &Passage<'_, '_>, connection: &Connection, quote: &TunnelQuote) -> Option<IcmpError> {
    let Transport::Icmp { kind, code } = passage.packet.transport else { return None };
    let bytes = &passage.frame.bytes()[passage.packet.l4..];
    let rest = *bytes.get(4..)?.first_chunk::<4>()?;
    if (kind, code) != FRAGMENTATION_NEEDED {
        return Some(IcmpError::Relayed { kind, code, rest });
    }
    let told = u32::from(u16::from_be_bytes([rest[2], rest[3]]));
    let now = passage.burst.now;
    // The kernel tells what its route said before it learnt of this; the next packet that is too large gets the right answer.
    let known = connection.server.path_mtu(now).or_else(|| {
        let way = passage.way(quote.destination).ok().flatten();
        way.map(|egress| egress.mtu)
    });
    connection.server.set_path_mtu(now, told);
    let mtu = known.unwrap_or(told).saturating_sub(IPV4_LEN);
    quote.dont_fragment.then(|| IcmpError::Relayed { kind, code, rest: mtu.to_be_bytes() })
}
