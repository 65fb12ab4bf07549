//! Fragments: the decision is about the whole datagram, and what leaves is as finely cut as what came.
//!
//! All workers share one reassembler. NICs spread fragments over queues by addresses alone, so that those of a datagram
//! usually meet in one worker anyway; but some hash the first fragment's ports too, and a bond's members or a switch of
//! paths bring fragments in by different ports. A lock that only fragments take costs less than losing those datagrams.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::{Arc, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use sdd::Guard;

use super::transmit::ETHERNET_LEN;
use super::{Burst, Datapath, Passage};
use crate::ipvs::outbox::{Exit, Outbox};
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::fragment::{Admission, Cut, Datagram, Lapse, Outcome, Reassembler, ReceivedFrame, Refusal};
use crate::net::frame::Frame;
use crate::net::icmp::IcmpError;
use crate::net::parse::{Packet, parse_frame};
use crate::net::rewrite;
use crate::net::route::Egress;
use crate::net::time::Instant;

/// Room behind a datagram, for what grows on its way.
const ROOM: usize = 2048;
/// RFC 8200 section 5: every link takes so many bytes, so Linux never cuts IPv6 finer.
const IPV6_MTU_MIN: usize = 1280;
pub(super) const IPV6_FRAGMENT_HEADER_LEN: usize = 8;
const PORTS_LEN: usize = 4;

/// How a datagram that was put together had come.
#[derive(Clone, Debug)]
pub(super) struct Origin<'a> {
    pub(super) lengths: &'a [usize],
    /// Length of what every fragment repeats, but for an IPv6 fragment header.
    pub(super) header_len: usize,
    /// Length of the largest fragment's IP packet.
    pub(super) largest: usize,
    /// Linux has lost the fragments' borders: of IPv4 for this machine's own address (golden `fragments-unequal`), and of what
    /// a persistence engine has read (golden `sip-fragments`).
    merged: Cell<bool>,
}

impl Origin<'_> {
    pub(super) fn merge(&self) {
        self.merged.set(true);
    }

    /// How long the datagram's fragments may be on a way out that takes `mtu` bytes.
    pub(super) fn size(&self, packet: &Packet, mtu: usize) -> usize {
        let received = if packet.is_ipv4() { self.largest } else { self.largest.max(IPV6_MTU_MIN) };
        received.min(mtu)
    }

    /// Where to cut the datagram, `bytes` now, whose way out takes `mtu` bytes; `None` if it may leave in one piece. A whole
    /// datagram that came as one fragment (RFC 6946) is none any more (golden `ipv6-atomic-fragments`).
    fn cut(&self, packet: &Packet, bytes: &[u8], mtu: usize) -> Option<Cut<'_>> {
        let payload: usize = self.lengths.iter().sum();
        let unchanged = bytes.len() == self.header_len + payload;
        let size = self.size(packet, mtu);
        let header_len = self.header_len + if packet.is_ipv4() { 0 } else { IPV6_FRAGMENT_HEADER_LEN };
        let fits = self.lengths.iter().all(|length| length + header_len <= size);
        if unchanged && fits && !self.merged.get() {
            return (self.lengths.len() > 1).then_some(Cut::Lengths(self.lengths));
        }
        // Linux makes IPv6 a fragment again, if only one.
        let limit = if packet.is_ipv4() || !self.merged.get() { size } else { self.largest.min(size) };
        (bytes.len() > limit).then_some(Cut::Size(size))
    }
}

/// Identifications of IPv6 datagrams, which nobody can guess (RFC 7739).
#[derive(Debug, Default)]
pub(super) struct FragmentIds {
    secret: RandomState,
    count: u64,
}

impl FragmentIds {
    pub(super) fn next(&mut self) -> u32 {
        self.count += 1;
        self.secret.hash_one(self.count) as u32
    }
}

impl Passage<'_, '_> {
    /// Linux judges an IPv4 fragment on its way through before it puts the datagram together (golden `fragments-replies`).
    fn is_refused_fragment(&self) -> bool {
        let destination = self.packet.destination;
        let passes = self.packet.is_ipv4() && !self.burst.snapshot.routes.is_local(destination);
        passes && self.way(destination).is_ok_and(|egress| self.is_refused_to_pass(egress))
    }
}

impl Datapath {
    fn reassembler(&self) -> MutexGuard<'_, Reassembler> {
        self.tables.fragments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fragment: kept until the others are there. One that cannot be put together goes on as a packet of its own, and one
    /// that the kernel would refuse to forward it gets.
    pub(super) fn fragment(&mut self, burst: &Burst<'_>, frame: &mut Frame<'_>, packet: Packet) -> Verdict {
        let passage = Passage { burst, frame, packet, origin: None };
        if passage.is_refused_fragment() {
            return Verdict::Pass;
        }
        let frame = passage.frame;
        let Admission { outcome, spoilt, evicted } = self.reassembler().add(burst.now, frame, &packet);
        self.discard(evicted, DropReason::FragmentMemory);
        match outcome {
            Outcome::Kept => Verdict::Hold,
            Outcome::Whole(datagram) => {
                self.datagram(burst, *datagram, frame);
                Verdict::Hold
            }
            Outcome::Refused(refusal) => {
                let reason = reason_of(refusal);
                self.discard(spoilt, reason);
                if refusal == Refusal::Unaligned {
                    return self.whole_packet(&mut Passage { burst, frame, packet, origin: None });
                }
                Verdict::Drop(reason)
            }
        }
    }

    fn discard(&mut self, fragments: u32, reason: DropReason) {
        if fragments > 0 {
            self.outbox.discard(fragments, reason);
        }
    }

    /// Decides about a datagram, whose latest fragment is in `last`, and sends what becomes of it.
    fn datagram(&mut self, burst: &Burst<'_>, mut datagram: Datagram, last: &Frame<'_>) {
        let held = datagram.fragments.len() as u32;
        let len = datagram.frame.len();
        datagram.frame.resize(len + ROOM, 0);
        let mut frame = match last.is_outgoing() {
            true => Frame::outgoing(&mut datagram.frame, len, last.port()),
            false => Frame::new(&mut datagram.frame, len, last.port()),
        };
        let packet = match parse_frame(frame.bytes()) {
            Ok(packet) => packet,
            Err(error) => return self.discard(held, super::reason_of(error)),
        };
        let merged = packet.is_ipv4() && burst.snapshot.routes.is_local(packet.destination);
        let header_len = packet.ip_len() - datagram.lengths.iter().sum::<usize>();
        let origin = Origin {
            lengths: &datagram.lengths,
            header_len,
            largest: datagram.largest,
            merged: Cell::new(merged),
        };
        let addressed = frame.bytes()[..header_end(&packet)].to_vec();
        let passes_by = !packet.is_ipv4() && !burst.snapshot.routes.is_local(packet.destination);
        let mut passage = Passage { burst, frame: &mut frame, packet, origin: Some(origin) };
        let verdict = match self.whole_packet(&mut passage) {
            // Linux puts IPv6 together and cuts it anew even where it is only forwarded.
            Verdict::Pass if !passes_by && passage.frame.bytes().starts_with(&addressed) => {
                give_back(&datagram.fragments, &mut self.outbox);
                return self.outbox.absorb(held);
            }
            Verdict::Pass => self.pass_cut(&passage),
            verdict => verdict,
        };
        let exit = match verdict {
            Verdict::Transmit(port) => Exit::Port(port),
            Verdict::HandOver => Exit::Kernel,
            Verdict::Pass => Exit::Stack(frame.port()),
            // One of the frames is accounted for by whoever decided so.
            Verdict::Hold => return self.outbox.absorb(held - 1),
            Verdict::Drop(reason) => return self.discard(held, reason),
        };
        self.outbox.send(exit, &[frame.bytes()]);
        self.outbox.absorb(held);
    }

    /// A datagram that has been translated for this machine's own stack, or on its way from there.
    fn pass_cut(&mut self, passage: &Passage<'_, '_>) -> Verdict {
        let Some(origin) = &passage.origin else { return Verdict::Pass };
        let (bytes, packet) = (passage.frame.bytes(), &passage.packet);
        let Some(cut) = origin.cut(packet, &bytes[packet.l3..], usize::MAX) else { return Verdict::Pass };
        self.send_fragments(bytes, packet.l3, cut, Exit::Stack(passage.frame.port()))
    }

    /// Gives up the datagrams whose time is over, and tells their senders.
    pub(super) fn lapse_fragments(&mut self, now: Instant) {
        loop {
            let Some(Lapse { fragments, first }) = self.reassembler().lapse(now) else { return };
            self.discard(fragments, DropReason::FragmentTimeout);
            if let Some(first) = first {
                self.tell_lapse(now, &first);
            }
        }
    }

    /// RFC 792, RFC 4443 section 3.3: "fragment reassembly time exceeded", if the first fragment has come. What was to be
    /// forwarded has lost a hop by then, in IPv4 (golden `fragments-timeout`).
    fn tell_lapse(&mut self, now: Instant, first: &ReceivedFrame) {
        let snapshot = Arc::clone(self.snapshot.load());
        let mut buffer = first.bytes.to_vec();
        buffer.resize(first.bytes.len() + ROOM, 0);
        let mut frame = Frame::new(&mut buffer, first.bytes.len(), first.port);
        let Ok(packet) = parse_frame(frame.bytes()) else { return };
        let own = if snapshot.routes.is_local(packet.destination) {
            Some(packet.destination)
        } else {
            snapshot.routes.port_address(first.port, packet.source)
        };
        let Some(own) = own.filter(|_| !snapshot.routes.is_local(packet.source)) else { return };
        if packet.is_ipv4() && own != packet.destination && packet.ttl > 0 {
            rewrite::decrement_ttl(frame.bytes_mut(), &packet);
        }
        let guard = Guard::new();
        let burst = Burst { now, snapshot: &snapshot, guard: &guard };
        let mut passage = Passage { burst: &burst, frame: &mut frame, packet, origin: None };
        let reason = DropReason::FragmentTimeout;
        match self.answer_from(own, &mut passage, IcmpError::ReassemblyTimeExceeded, reason) {
            Verdict::Transmit(port) => self.outbox.send(Exit::Port(port), &[frame.bytes()]),
            Verdict::HandOver => self.outbox.send(Exit::Kernel, &[frame.bytes()]),
            Verdict::Pass | Verdict::Drop(_) | Verdict::Hold => {}
        }
    }

    /// Cuts what goes out of a port or to the kernel; the verdict if it had to be cut.
    pub(super) fn cut(&mut self, passage: &mut Passage<'_, '_>, egress: Option<Egress>) -> Option<Verdict> {
        let mtu = egress.map_or(usize::MAX, |egress| egress.mtu as usize);
        let exit = egress.map_or(Exit::Kernel, |egress| Exit::Port(egress.port));
        // Only an ICMP error is both (golden `mtu-edges-icmp`).
        if passage.origin.is_none() && passage.packet.is_ipv4() && passage.is_too_big(egress) {
            rewrite::allow_fragments(passage.frame.bytes_mut(), &passage.packet);
        }
        let (bytes, packet) = (passage.frame.bytes(), &passage.packet);
        let cut = match &passage.origin {
            Some(origin) => origin.cut(packet, &bytes[ETHERNET_LEN..], mtu)?,
            None if passage.is_too_big(egress) && !packet.is_ipv4() => {
                return Some(Verdict::Drop(DropReason::TooBig));
            }
            None if passage.is_too_big(egress) => Cut::Size(mtu),
            None => return None,
        };
        Some(self.send_fragments(bytes, ETHERNET_LEN, cut, exit))
    }
}

/// The kernel's stack gets what came, and puts it together for itself.
fn give_back(fragments: &[ReceivedFrame], outbox: &mut Outbox) {
    for fragment in fragments {
        outbox.send(Exit::Stack(fragment.port), &[&fragment.bytes]);
    }
}

/// Offset behind the addresses and ports of a packet.
fn header_end(packet: &Packet) -> usize {
    (packet.l4 + PORTS_LEN).min(packet.end)
}

fn reason_of(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Duplicate => DropReason::FragmentDuplicate,
        Refusal::Overlap => DropReason::FragmentOverlap,
        Refusal::Contradiction | Refusal::TooLong | Refusal::Unaligned => DropReason::FragmentMismatch,
        Refusal::Truncated => DropReason::Truncated,
    }
}
