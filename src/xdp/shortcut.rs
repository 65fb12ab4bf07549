//! The shortcut's tables, as `bpf/shortcut.h` has them.

use std::ffi::c_void;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray};

use crate::ipvs::shortcut::{Account, FastPath, NoShortcut, Shortcut, Traffic, Usage};
use crate::net::checksum::{Change, Sum};
use crate::net::flow::FlowKey;
use crate::net::rewrite::End;
use crate::net::time::Instant;
use crate::xdp::error::XdpError;
use crate::xdp::steer::{missing, table};

/// `max_entries` of the table `accounts`.
pub(super) const ACCOUNTS: usize = 8192;

/// What taking one from the TTL does to the word that it is in, as a ones' complement sum.
const ONE_HOP: u16 = !0x0100;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct FlowIpv4 {
    source: [u8; 4],
    destination: [u8; 4],
    ports: [[u8; 2]; 2],
    protocol: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct FlowIpv6 {
    source: [u8; 16],
    destination: [u8; 16],
    ports: [[u8; 2]; 2],
    protocol: u32,
}

/// A table's key.
enum Key {
    Ipv4(FlowIpv4),
    Ipv6(FlowIpv6),
}

impl Key {
    fn of(flow: &FlowKey) -> Option<Key> {
        let ports = [flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes()];
        let protocol = flow.protocol.0.into();
        match (flow.source, flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                Some(Key::Ipv4(FlowIpv4 { source, destination, ports, protocol }))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                Some(Key::Ipv6(FlowIpv6 { source, destination, ports, protocol }))
            }
            _ => None,
        }
    }

    fn pointer(&self) -> *const c_void {
        match self {
            Key::Ipv4(key) => std::ptr::from_ref(key).cast(),
            Key::Ipv6(key) => std::ptr::from_ref(key).cast(),
        }
    }
}

/// `struct shortcut`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    used: u64,
    packets: u64,
    generation: u32,
    ingress: u32,
    exit: u32,
    account: u32,
    mtu: u32,
    address: [u8; 16],
    ethernet: [[u8; 6]; 2],
    addressed: [u8; 6],
    port: [u8; 2],
    header_change: [u8; 2],
    transport_change: [u8; 2],
    pseudo_header: [u8; 2],
    at_source: u8,
    in_parts: u8,
}

impl Entry {
    fn new(flow: &FlowKey, shortcut: &Shortcut, way: Way) -> Self {
        let Shortcut { generation, addressed, end, new, egress, account, packets, .. } = *shortcut;
        let (old, old_port) = match end {
            End::Source => (flow.source, flow.source_port),
            End::Destination => (flow.destination, flow.destination_port),
        };
        let change = Change::default().address(old, new.ip());
        let pseudo_header =
            Sum::default().address(flow.source).address(flow.destination).word(flow.protocol.0.into());
        let mut address = [0; 16];
        match new.ip() {
            IpAddr::V4(new) => address[..4].copy_from_slice(&new.octets()),
            IpAddr::V6(new) => address = new.octets(),
        }
        Entry {
            used: 0,
            packets,
            generation,
            ingress: way.ingress,
            exit: egress.port.0.into(),
            account: account.0,
            mtu: egress.mtu,
            address,
            ethernet: [egress.destination.0, egress.source.0],
            addressed: addressed.0,
            port: new.port().to_be_bytes(),
            header_change: change.sum().word(ONE_HOP).fold().to_be_bytes(),
            transport_change: change.word(old_port, new.port()).sum().fold().to_be_bytes(),
            pseudo_header: pseudo_header.fold().to_be_bytes(),
            at_source: (end == End::Source).into(),
            in_parts: way.in_parts.into(),
        }
    }
}

/// The tables that the program and user space share.
pub(super) struct ShortcutMaps {
    pub(super) ipv4: MapData,
    pub(super) ipv6: MapData,
    pub(super) generation: MapData,
    /// `struct traffic`.
    pub(super) accounts: PerCpuArray<MapData, [u64; 4]>,
}

impl ShortcutMaps {
    /// Takes them out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        let mut take = |name| match ebpf.take_map(name) {
            Some(Map::HashMap(data) | Map::Array(data)) => Ok(data),
            _ => Err(missing(name)),
        };
        let (ipv4, ipv6) = (take("shortcuts_ipv4")?, take("shortcuts_ipv6")?);
        let generation = take("generation")?;
        Ok(ShortcutMaps { ipv4, ipv6, generation, accounts: table(ebpf, "accounts")? })
    }
}

/// One interface as the shortcut sees it.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    pub(super) ifindex: u32,
    /// In generic mode packets can leave by any interface.
    pub(super) generic: bool,
    /// Whether its driver takes frames that come in by another one.
    pub(super) usable: Arc<AtomicBool>,
    /// And those that lie in several buffers.
    pub(super) takes_parts: Arc<AtomicBool>,
}

/// How packets can go from one port straight to another.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The interface that they come by.
    ingress: u32,
    /// Whether they may lie in several buffers.
    in_parts: bool,
}

/// Plain packets are forwarded by the steering program itself.
pub(super) struct XdpFastPath {
    maps: ShortcutMaps,
    /// By [`crate::net::addr::PortIndex`].
    exits: Vec<Exit>,
    /// The monotonic clock, in nanoseconds, when the product's own was at its start.
    start: u64,
}

impl fmt::Debug for XdpFastPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpFastPath").field("exits", &self.exits).finish_non_exhaustive()
    }
}

impl XdpFastPath {
    /// The fast path between `exits`; the product's clock reads `now`.
    pub(super) fn new(maps: ShortcutMaps, exits: Vec<Exit>, now: Instant) -> Self {
        XdpFastPath { maps, exits, start: monotonic().saturating_sub(now.as_nanos()) }
    }

    /// Whether packets can go from one port straight to the other; `None` if there is no such port.
    fn way(&self, shortcut: &Shortcut) -> Option<Way> {
        let ingress = self.exits.get(usize::from(shortcut.ingress.0))?;
        let exit = self.exits.get(usize::from(shortcut.egress.port.0))?;
        let in_parts = ingress.generic || exit.takes_parts.load(Ordering::Relaxed);
        (ingress.generic || exit.usable.load(Ordering::Relaxed))
            .then_some(Way { ingress: ingress.ifindex, in_parts })
    }

    fn table(&self, key: &Key) -> &MapData {
        match key {
            Key::Ipv4(_) => &self.maps.ipv4,
            Key::Ipv6(_) => &self.maps.ipv6,
        }
    }
}

impl FastPath for XdpFastPath {
    fn install(&self, flow: &FlowKey, shortcut: &Shortcut) -> Result<(), NoShortcut> {
        let way = self.way(shortcut).ok_or(NoShortcut::Impossible)?;
        let key = Key::of(flow).ok_or(NoShortcut::Impossible)?;
        let entry = Entry::new(flow, shortcut, way);
        match put(self.table(&key), key.pointer(), &entry) {
            0 => Ok(()),
            _ => Err(NoShortcut::Full),
        }
    }

    fn remove(&self, flow: &FlowKey) {
        let Some(key) = Key::of(flow) else { return };
        let table = self.table(&key).fd().as_fd().as_raw_fd();
        // SAFETY: the key has the layout and the size of the table's keys. What is not there need not go.
        unsafe { libbpf_sys::bpf_map_delete_elem(table, key.pointer()) };
    }

    fn usage(&self, flow: &FlowKey) -> Option<Usage> {
        let key = Key::of(flow)?;
        let table = self.table(&key).fd().as_fd().as_raw_fd();
        let mut entry = Entry::default();
        let value = std::ptr::from_mut(&mut entry).cast();
        // SAFETY: key and entry have the layout and the size of the table's keys and values.
        let found = unsafe { libbpf_sys::bpf_map_lookup_elem(table, key.pointer(), value) } == 0;
        let last = || Instant::from_nanos(entry.used.saturating_sub(self.start));
        found.then(|| Usage { last: (entry.used != 0).then(last), packets: entry.packets })
    }

    fn traffic(&self, account: Account) -> Traffic {
        let Ok(counts) = self.maps.accounts.get(&account.0, 0) else { return Traffic::default() };
        counts.iter().fold(Traffic::default(), |sum, [packets, bytes, ..]| Traffic {
            packets: sum.packets.wrapping_add(*packets),
            bytes: sum.bytes.wrapping_add(*bytes),
        })
    }

    fn accounts(&self) -> usize {
        ACCOUNTS
    }

    fn set_generation(&self, generation: u32) {
        let slot = 0_u32;
        put(&self.maps.generation, std::ptr::from_ref(&slot).cast(), &generation);
    }
}

/// Writes an entry; 0, or a negative error number. `key` and `V` must be what the table holds.
fn put<V>(table: &MapData, key: *const c_void, value: &V) -> i32 {
    let table = table.fd().as_fd().as_raw_fd();
    // SAFETY: the callers give keys and values of the table's own layout and size, which live as long as the call.
    unsafe { libbpf_sys::bpf_map_update_elem(table, key, std::ptr::from_ref(value).cast(), 0) }
}

/// The kernel's monotonic clock, which the program reads the coarse form of, in nanoseconds.
fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec, which the call fills in; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
