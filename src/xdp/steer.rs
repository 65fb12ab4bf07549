//! The steering program: loading, attaching, and the tables that say what comes up.

mod attach;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsRawFd;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, XskMap};
use aya::programs::ProgramError;
use aya::programs::tc::{
    self, NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcAttachType,
};
use aya::programs::xdp::Xdp;
use aya::{Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions, include_bytes_aligned};

use crate::ipvs::steering::Steering;
use crate::net::addr::PortIndex;
use crate::xdp::Buffers;
use crate::xdp::error::{XdpError, errno, reason};
use crate::xdp::exits::Exits;
use crate::xdp::front::Front;
use crate::xdp::link::Link;
use crate::xdp::ranges::{Address, Ranges, Tables};
use crate::xdp::shortcut::{ACCOUNTS, ShortcutMaps};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xlvs.bpf.o"));

/// The steering program for packets in one buffer, and in several.
pub(super) const PROGRAMS: [&str; 2] = ["xlvs_steer", "xlvs_steer_long"];
const DETOUR: &str = "xlvs_detour";

// SAFETY: `#[repr(C)]`, integers only, and every byte belongs to a field.
unsafe impl Pod for Ranges {}

/// The setting: how the program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachSetting {
    /// Native where the driver can, generic otherwise.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic (skb) mode: any interface, slower.
    Skb,
}

/// How the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Skb,
}

impl AttachedMode {
    /// `native` or `skb`.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachedMode::Native => "native",
            AttachedMode::Skb => "skb",
        }
    }
}

/// The outcome of attaching to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The mode it got.
    pub mode: AttachedMode,
    /// Why native mode was not to be had, if it was tried.
    pub why: Option<String>,
}

/// What the program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// Redirected to the AF_XDP socket.
    Up,
    /// Left to the kernel.
    Kernel,
}

/// The loaded program with its tables. Dropping it detaches it everywhere.
pub struct Steerer {
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    ports: HashMap<MapData, u32, [u32; 2]>,
    front_map: Array<MapData, Front>,
    front: Front,
    destinations: LpmTrie<MapData, Address, Ranges>,
    servers: HashMap<MapData, Address, Ranges>,
    own: HashMap<MapData, Address, u8>,
    detours: HashMap<MapData, u32, u32>,
    exits: Exits,
    shortcut_maps: Option<ShortcutMaps>,
    present: Tables,
    links: Vec<Link>,
    lasting: bool,
    detoured: Vec<(String, SchedClassifierLink)>,
    names: Vec<String>,
    ifindexes: Vec<u32>,
    queues: u32,
    buffers: Buffers,
    secret: [u64; 2],
}

impl Steerer {
    /// Loads the program with room for `ports` interfaces of `queues` queues each, and for `flows` connections that take the
    /// shortcut; with 0 there is none. `buffers` is what packets may lie in.
    pub fn load(ports: u32, queues: u32, flows: u32, buffers: Buffers) -> Result<Self, XdpError> {
        let has_shortcut = u8::from(flows != 0);
        let accounts = if flows != 0 { ACCOUNTS as u32 } else { 1 };
        let secret = [0, 1].map(|part: u64| RandomState::new().hash_one(part));
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("sockets", ports * queues)
            .map_max_entries("shortcuts_ipv4", directions(flows))
            .map_max_entries("shortcuts_ipv6", directions(flows))
            .map_max_entries("accounts", accounts)
            .override_global("envelope_secret", &secret, true)
            .override_global("has_shortcut", &has_shortcut, true)
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        program(&mut ebpf, buffers)?.load().map_err(|error| load_error(&error))?;
        Ok(Steerer {
            sockets: table(&mut ebpf, "sockets")?,
            ports: table(&mut ebpf, "ports")?,
            front_map: table(&mut ebpf, "front")?,
            front: Front::default(),
            destinations: table(&mut ebpf, "destinations")?,
            servers: table(&mut ebpf, "servers")?,
            own: table(&mut ebpf, "own")?,
            detours: table(&mut ebpf, "detours")?,
            exits: Exits::take(&mut ebpf).ok_or_else(|| missing("exits"))?,
            shortcut_maps: Some(ShortcutMaps::take(&mut ebpf)?),
            ebpf,
            present: Tables::default(),
            links: Vec::new(),
            lasting: false,
            detoured: Vec::new(),
            names: Vec::new(),
            ifindexes: Vec::new(),
            queues,
            buffers,
            secret,
        })
    }

    /// Has what this machine sends by `interface` as a real server redirected to the interface `entrance`. The filter is the
    /// kind that every supported kernel has; it outlives a process that is killed, but not the redirection.
    pub(super) fn detour(&mut self, interface: &str, ifindex: u32, entrance: u32) -> Result<(), XdpError> {
        let refused = |error: &(dyn std::error::Error + 'static)| XdpError::Detour {
            interface: interface.into(),
            source: errno(error)
                .map_or_else(|| io::Error::other(reason(error)), io::Error::from_raw_os_error),
        };
        self.detours.insert(ifindex, entrance, 0).map_err(|error| table_error("detours", &error))?;
        // Where it is there already, attaching tells what else is wrong.
        let _ = tc::qdisc_add_clsact(interface);
        let program = self.ebpf.program_mut(DETOUR).ok_or_else(|| missing(DETOUR))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|error: ProgramError| refused(&error))?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(&error))?;
        }
        let options = TcAttachOptions::Netlink(NlOptions::default());
        let id = program.attach_with_options(interface, TcAttachType::Egress, options);
        let link = id.and_then(|id| program.take_link(id)).map_err(|error| refused(&error))?;
        self.detoured.push((interface.into(), link));
        Ok(())
    }

    /// Takes the redirections back.
    pub(super) fn end_detours(&mut self) {
        for (interface, link) in self.detoured.drain(..) {
            drop(link);
            end_detour(&interface);
        }
    }

    /// Lets the packets of one receive queue come up through this AF_XDP socket.
    pub fn register(&mut self, port: PortIndex, queue: u32, socket: &impl AsRawFd) -> Result<(), XdpError> {
        let slot = u32::from(port.0) * self.queues + queue;
        self.sockets.set(slot, socket.as_raw_fd(), 0).map_err(|error| table_error("sockets", &error))
    }

    /// Has the program last when this process is killed, and drop then what would have come up: where it is attached from now on,
    /// and with [`Steerer::switch_on`] everywhere.
    pub fn make_lasting(&mut self) -> Result<(), XdpError> {
        self.lasting = true;
        self.drop_unserved(true)
    }

    /// Leaves all packets to the kernel from now on, also when this process is killed, but stays attached.
    pub(super) fn leave_to_kernel(&mut self) {
        self.lasting = false;
        // The tables are there as long as the program is.
        let _ = self.drop_unserved(false);
        self.unregister_all();
    }

    /// Lets nothing come up from now on, but stays attached.
    pub(super) fn unregister_all(&mut self) {
        for slot in 0..self.sockets.len() {
            // An empty slot cannot be emptied, and is as wanted.
            let _ = self.sockets.unset(slot);
        }
    }

    /// Whether packets for queues that nobody serves are dropped from now on, and not left to the kernel: it would answer for
    /// connections that it does not know. A program that lasts always drops them.
    pub(super) fn drop_unserved(&mut self, dropping: bool) -> Result<(), XdpError> {
        self.set_front(self.front.dropping(dropping || self.lasting))
    }

    /// Makes the tables say `steering`. Entries that stay the same are never missing in between: new ones are added
    /// before old ones go. After an error the tables hold a mixture; applying again repairs them.
    pub fn apply(&mut self, steering: &Steering) -> Result<(), XdpError> {
        let wanted = Tables::from(steering);
        self.add(&wanted)?;
        self.set_front(self.front.with_places(&wanted))?;
        self.remove_all_but(&wanted)
    }

    fn set_front(&mut self, front: Front) -> Result<(), XdpError> {
        self.front_map.set(0, front, 0).map_err(|error| table_error("front", &error))?;
        self.front = front;
        Ok(())
    }

    fn add(&mut self, wanted: &Tables) -> Result<(), XdpError> {
        for address in wanted.own.difference(&self.present.own.clone()) {
            self.own.insert(address, 1, 0).map_err(|error| table_error("own", &error))?;
            self.present.own.insert(*address);
        }
        for (prefix, ranges) in changed(&wanted.destinations, &self.present.destinations) {
            let key = Key::new(prefix.length, prefix.address);
            self.destinations.insert(&key, ranges, 0).map_err(|error| table_error("destinations", &error))?;
            self.present.destinations.insert(prefix, ranges);
        }
        for (address, ranges) in changed(&wanted.servers, &self.present.servers) {
            self.servers.insert(address, ranges, 0).map_err(|error| table_error("servers", &error))?;
            self.present.servers.insert(address, ranges);
        }
        Ok(())
    }

    fn remove_all_but(&mut self, wanted: &Tables) -> Result<(), XdpError> {
        for address in gone(&self.present.servers, &wanted.servers) {
            self.servers.remove(&address).map_err(|error| table_error("servers", &error))?;
            self.present.servers.remove(&address);
        }
        for prefix in gone(&self.present.destinations, &wanted.destinations) {
            let key = Key::new(prefix.length, prefix.address);
            self.destinations.remove(&key).map_err(|error| table_error("destinations", &error))?;
            self.present.destinations.remove(&prefix);
        }
        for address in self.present.own.clone().difference(&wanted.own) {
            self.own.remove(address).map_err(|error| table_error("own", &error))?;
            self.present.own.remove(address);
        }
        Ok(())
    }

    /// Asks the program what it would do with a frame received on queue 0 of `port`. Nothing is sent. To be called in
    /// the network namespace of the interfaces.
    pub fn ask(&mut self, port: PortIndex, frame: &[u8]) -> Result<Steered, XdpError> {
        self.ask_in_parts(port, frame, frame.len())
    }

    /// The same, for a frame of which only the first `first` bytes lie in the first buffer. The kernel refuses that before
    /// Linux 6.18, and where packets lie in one.
    pub fn ask_in_parts(&mut self, port: PortIndex, frame: &[u8], first: usize) -> Result<Steered, XdpError> {
        let redirected = self.run(port, frame, first, &mut [])?.is_some();
        Ok(if redirected { Steered::Up } else { Steered::Kernel })
    }

    /// The same, for what would leave by the shortcut: the frame as it would leave.
    pub(super) fn shorten_in_parts(
        &mut self,
        port: PortIndex,
        frame: &[u8],
        first: usize,
    ) -> Result<Option<Vec<u8>>, XdpError> {
        let mut out = vec![0; frame.len()];
        let length = self.run(port, frame, first, &mut out)?;
        out.truncate(length.unwrap_or(0));
        // What goes up is as it came.
        Ok(length.filter(|_| out != frame).map(|_| out))
    }

    /// What the program does with a frame: the length of what it redirects, which is in `out` then as far as it fits.
    fn run(
        &mut self,
        port: PortIndex,
        frame: &[u8],
        first: usize,
        out: &mut [u8],
    ) -> Result<Option<usize>, XdpError> {
        let ifindex = self.ifindexes.get(usize::from(port.0)).copied().unwrap_or(0);
        let context = context(ifindex, first);
        let data_out = (!out.is_empty()).then_some(out);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out,
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result =
            program(&mut self.ebpf, self.buffers)?.test_run(options).map_err(|error| load_error(&error))?;
        let redirected = result.return_value == libbpf_sys::XDP_REDIRECT;
        Ok(redirected.then_some(result.data_size_out as usize))
    }

    /// The interfaces by [`PortIndex`].
    pub(super) fn ifindexes(&self) -> &[u32] {
        &self.ifindexes
    }

    /// The tables of the shortcut, the first time.
    pub(super) fn take_shortcut_maps(&mut self) -> Option<ShortcutMaps> {
        self.shortcut_maps.take()
    }

    /// Whether each interface takes frames that come in by another one, or why that cannot be found out.
    pub(super) fn try_exits(&mut self) -> Result<Vec<bool>, String> {
        let names = self.names.iter().map(String::as_str);
        let interfaces: Vec<_> = names.zip(self.ifindexes.iter().copied()).collect();
        self.exits.try_all(&mut self.ebpf, &interfaces, self.buffers).map_err(|error| reason(&*error))
    }

    /// Detaches the program from every interface.
    pub(super) fn detach(&mut self) {
        self.links.clear();
    }

    /// What the program recognises its own returned frames by in generic mode.
    pub(super) fn secret(&self) -> [u64; 2] {
        self.secret
    }
}

/// `struct xdp_md` of <linux/bpf.h> for a frame that was received on queue 0 of an interface.
pub(super) fn context(ifindex: u32, frame_len: usize) -> [u8; 24] {
    let data_end = u32::try_from(frame_len).unwrap_or(u32::MAX);
    let fields = [0, data_end, 0, ifindex, 0, 0];
    let mut context = [0; 24];
    for (slot, field) in context.chunks_exact_mut(4).zip(fields) {
        slot.copy_from_slice(&field.to_ne_bytes());
    }
    context
}

/// Removes what is there of ours; it is an error if nothing is.
fn end_detour(interface: &str) {
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, DETOUR);
}

fn changed<K: Ord + Copy, V: PartialEq + Copy>(
    wanted: &BTreeMap<K, V>,
    present: &BTreeMap<K, V>,
) -> Vec<(K, V)> {
    wanted
        .iter()
        .filter(|(key, value)| present.get(key) != Some(value))
        .map(|(key, value)| (*key, *value))
        .collect()
}

fn gone<K: Ord + Copy, V>(present: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Vec<K> {
    present.keys().filter(|key| !wanted.contains_key(key)).copied().collect()
}

/// Entries for so many connections; a table cannot be without any.
fn directions(flows: u32) -> u32 {
    (2 * flows).max(1)
}

fn program(ebpf: &mut Ebpf, buffers: Buffers) -> Result<&mut Xdp, XdpError> {
    let name = PROGRAMS[buffers as usize];
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|error| load_error(&error))
}

pub(super) fn table<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, XdpError> {
    let map = ebpf.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|error| table_error(name, &error))
}

pub(super) fn missing(name: &str) -> XdpError {
    XdpError::Load { reason: format!("the object has no `{name}`"), errno: None }
}

fn load_error(error: &(dyn std::error::Error + 'static)) -> XdpError {
    XdpError::Load { reason: reason(error), errno: errno(error) }
}

fn table_error(table: &'static str, error: &MapError) -> XdpError {
    XdpError::Table { table, reason: reason(error) }
}
