//! A fast path inside this process: does with packets of lent flows what the XDP program does.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use xlvs::ipvs::shortcut::{Account, FastPath, NoShortcut, Shortcut, Traffic, Usage};
use xlvs::net::addr::{PortIndex, Protocol};
use xlvs::net::flow::FlowKey;
use xlvs::net::frame::Frame;
use xlvs::net::parse::{Fragment, Packet, TcpFlags, Transport, parse_frame};
use xlvs::net::rewrite;
use xlvs::net::time::Instant;

const ETHERNET: usize = 14;
const ACCOUNTS: usize = 64;

#[derive(Debug)]
struct Entry {
    shortcut: Shortcut,
    usage: Usage,
}

#[derive(Debug)]
struct Inner {
    entries: Mutex<HashMap<FlowKey, Entry>>,
    traffic: Mutex<HashMap<Account, Traffic>>,
    generation: AtomicU32,
    room: usize,
    taken: AtomicU64,
    interruption: Interruption,
}

/// What happens elsewhere while a flow is being entered.
#[derive(Default)]
struct Interruption(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interruption")
    }
}

/// The fast path; copies share it.
#[derive(Clone, Debug)]
pub struct Fake(Arc<Inner>);

impl Fake {
    /// With room for so many directions of flows.
    pub fn new(room: usize) -> Self {
        Fake(Arc::new(Inner {
            entries: Mutex::default(),
            traffic: Mutex::default(),
            generation: AtomicU32::new(0),
            room,
            taken: AtomicU64::new(0),
            interruption: Interruption::default(),
        }))
    }

    /// Has something happen just before the next flow is entered, as if another worker had done it.
    pub fn interrupt(&self, interruption: impl FnOnce() + Send + 'static) {
        *self.0.interruption.0.lock().unwrap() = Some(Box::new(interruption));
    }

    /// How many packets it has forwarded.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// How many directions of flows it has.
    pub fn len(&self) -> usize {
        self.0.entries.lock().unwrap().len()
    }

    /// Forwards the frame, if it is a plain packet of a lent flow: the port it leaves by, and the frame then.
    pub fn take(&self, now: Instant, port: PortIndex, bytes: &[u8]) -> Option<(PortIndex, Vec<u8>)> {
        let packet = parse_frame(bytes).ok().filter(|packet| is_plain(bytes, packet))?;
        let mut entries = self.0.entries.lock().unwrap();
        let Entry { shortcut, usage } = entries.get_mut(&packet.flow()?)?;
        let Shortcut { generation, ingress, addressed, end, new, egress, account, .. } = *shortcut;
        let mut bytes = bytes.to_vec();
        let len = bytes.len();
        let mut frame = Frame::new(&mut bytes, len, port);
        let current = generation == self.0.generation.load(Ordering::Relaxed);
        let expected = port == ingress && frame.destination() == Some(addressed);
        if !current || !expected || packet.ip_len() > egress.mtu as usize {
            return None;
        }
        rewrite::set_end(frame.bytes_mut(), &packet, end, new);
        rewrite::decrement_ttl(frame.bytes_mut(), &packet);
        rewrite::set_ethernet(&mut frame, &packet, &egress);
        *usage = Usage { last: Some(now), packets: usage.packets + 1 };
        let mut traffic = self.0.traffic.lock().unwrap();
        let traffic = traffic.entry(account).or_default();
        traffic.packets += 1;
        traffic.bytes += packet.ip_len() as u64;
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Some((egress.port, frame.bytes().to_vec()))
    }
}

fn is_plain(bytes: &[u8], packet: &Packet) -> bool {
    let header = if packet.is_ipv4() { 20 } else { 40 };
    let transport = match packet.transport {
        Transport::Tcp { flags, .. } => flags == TcpFlags { ack: true, ..TcpFlags::default() },
        Transport::Udp { .. } => bytes[packet.l4 + 6..packet.l4 + 8] != [0, 0],
        _ => false,
    };
    let half_made = rewrite::complete_checksum(&mut bytes.to_vec(), packet);
    let protocol = matches!(packet.protocol, Protocol::TCP | Protocol::UDP);
    packet.l3 == ETHERNET
        && packet.l4 == ETHERNET + header
        && packet.fragment == Fragment::Whole
        && packet.ttl > 1
        && protocol
        && transport
        && !half_made
}

impl FastPath for Fake {
    fn install(&self, flow: &FlowKey, shortcut: &Shortcut) -> Result<(), NoShortcut> {
        let interruption = self.0.interruption.0.lock().unwrap().take();
        if let Some(interruption) = interruption {
            interruption();
        }
        let mut entries = self.0.entries.lock().unwrap();
        if entries.len() >= self.0.room && !entries.contains_key(flow) {
            return Err(NoShortcut::Full);
        }
        let usage = Usage { last: None, packets: shortcut.packets };
        entries.insert(*flow, Entry { shortcut: *shortcut, usage });
        Ok(())
    }

    fn remove(&self, flow: &FlowKey) {
        self.0.entries.lock().unwrap().remove(flow);
    }

    fn usage(&self, flow: &FlowKey) -> Option<Usage> {
        self.0.entries.lock().unwrap().get(flow).map(|entry| entry.usage)
    }

    fn traffic(&self, account: Account) -> Traffic {
        self.0.traffic.lock().unwrap().get(&account).copied().unwrap_or_default()
    }

    fn accounts(&self) -> usize {
        ACCOUNTS
    }

    fn set_generation(&self, generation: u32) {
        self.0.generation.store(generation, Ordering::Relaxed);
    }
}
