//! What `lvs.cf` and `xlvs.toml` say about the pair, on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path as FilePath;
use std::time::Duration;

use std::os::unix::fs::PermissionsExt as _;

use super::peers::PeerWay;
use crate::config::lvs::{LvsConfig, port_number};
use crate::config::pair::{PulseSettings, ReplicaSwitch};
use crate::config::settings::Auto;
use crate::ipvs::replica::{self, Side};
use crate::net::route::HostNetwork;
use crate::pulse::wire::{KEY_LEN_MIN, Key};
use crate::pulse::{Path, Role, Settings};

const DEFAULT_PORT: u16 = 539;

/// One way to the partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which one.
    pub path: Path,
    /// This machine's address on it.
    pub own: Ipv4Addr,
    /// The partner's.
    pub partner: Ipv4Addr,
    /// Index of the interface that has the own address; `None` if none has.
    pub link: Option<u32>,
}

/// How this router and its partner tell each other of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlan {
    /// Which one this is.
    pub side: Side,
    /// By these paths.
    pub ways: Vec<PeerWay>,
    /// Silence that means that the partner is not there.
    pub silence: Duration,
    /// Time from one comparison to the next.
    pub compare: Duration,
}

/// Everything that the heart has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairPlan {
    /// For the state machine.
    pub settings: Settings,
    /// UDP port of the heartbeats.
    pub port: u16,
    /// The ways to the partner; none of a single director.
    pub ways: Vec<Way>,
    /// How connections are told of; `None` if they are not.
    pub replica: Option<ReplicaPlan>,
    /// Program that fences the partner, if there is one.
    pub fence: Option<String>,
    /// How long it may take.
    pub fence_timeout: Duration,
    /// What else an administrator should know.
    pub notes: Vec<String>,
}

impl PairPlan {
    /// The plan, or why this machine cannot be one of these directors. Role by address as in reference/piranha.md 4.1, but an
    /// interface's second addresses are seen too.
    pub fn new(lvs: &LvsConfig, pulse: &PulseSettings, network: &HostNetwork) -> Result<PairPlan, String> {
        let mut notes = Vec::new();
        let backup = lvs.backup.filter(|_| lvs.backup_active);
        if lvs.backup_active && backup.is_none() {
            notes.push("Undefined backup node marked as active? -- clearing that!".to_owned());
        }
        let role = match lvs.primary {
            Some(primary) if !has(network, primary) => Role::Backup,
            Some(_) => Role::Primary,
            None if backup.is_some() => {
                return Err(
                    "primary is missing in lvs.cf, so this router cannot know which of the two it is; \
                            add primary = ADDRESS"
                        .to_owned(),
                );
            }
            None => Role::Primary,
        };
        let primary = lvs.primary.unwrap_or(Ipv4Addr::UNSPECIFIED);
        if role == Role::Backup && backup.is_none() {
            return Err(format!(
                "We are backup node and backup is marked inactive -- exiting pulse: primary = {primary} of \
                 lvs.cf is not an address of this machine; correct it, or set backup and backup_active = 1"
            ));
        }
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(1).max(1));
        let settings = Settings {
            role,
            pair: backup.is_some(),
            keepalive: seconds(lvs.keepalive),
            deadtime: seconds(lvs.deadtime),
            monitor_links: lvs.monitor_links != 0,
            fence: !pulse.fence.trim().is_empty(),
            fence_required: pulse.fence_required,
            wait: Duration::ZERO,
        };
        if settings.pair && pulse.key_file.as_os_str().is_empty() {
            notes.push(
                "heartbeats are not authenticated: whoever can send from the partner's address decides which \
                 router is active; set the key_file of [pulse] on both routers"
                    .to_owned(),
            );
        }
        let ways = backup.map(|backup| ways(lvs, role, (primary, backup), network)).unwrap_or_default();
        let replica = replica(lvs, pulse, &settings, &ways);
        let wait = if replica.is_some() { pulse.replica_wait } else { 0 };
        let settings = Settings { wait: Duration::from_secs(wait.into()), ..settings };
        Ok(PairPlan {
            ways,
            replica,
            settings,
            port: port_number(lvs.heartbeat_port).filter(|port| *port != 0).unwrap_or(DEFAULT_PORT),
            fence: Some(pulse.fence.clone()).filter(|line| !line.trim().is_empty()),
            fence_timeout: Duration::from_secs(pulse.fence_timeout.into()),
            notes,
        })
    }
}

/// How the routers tell each other of connections, if they do: by the same paths as heartbeats.
fn replica(lvs: &LvsConfig, pulse: &PulseSettings, settings: &Settings, ways: &[Way]) -> Option<ReplicaPlan> {
    let keyed = !pulse.key_file.as_os_str().is_empty();
    let wanted = match pulse.replica {
        ReplicaSwitch::Switch(switch) => switch && keyed,
        ReplicaSwitch::Word(Auto::Auto) => keyed && !lvs.syncdaemon,
    };
    if !wanted || ways.is_empty() {
        return None;
    }
    let place = |address: Ipv4Addr| SocketAddr::new(address.into(), pulse.replica_port);
    let peer_way = |way: &Way| PeerWay {
        path: match way.path {
            Path::Public => replica::Path::Public,
            Path::Private => replica::Path::Private,
        },
        own: place(way.own),
        partner: place(way.partner),
    };
    Some(ReplicaPlan {
        side: match settings.role {
            Role::Primary => Side::Primary,
            Role::Backup => Side::Backup,
        },
        ways: ways.iter().map(peer_way).collect(),
        silence: settings.deadtime,
        compare: Duration::from_secs(pulse.replica_compare.into()),
    })
}

fn ways(lvs: &LvsConfig, role: Role, public: (Ipv4Addr, Ipv4Addr), network: &HostNetwork) -> Vec<Way> {
    let private = lvs.primary_private.zip(lvs.backup_private);
    let distinct = private.filter(|private| *private != public);
    let pairs = [(Path::Public, Some(public)), (Path::Private, distinct)];
    let known = pairs.into_iter().filter_map(|(path, addresses)| Some((path, addresses?)));
    known
        .map(|(path, (primary, backup))| {
            let (own, partner) = match role {
                Role::Primary => (primary, backup),
                Role::Backup => (backup, primary),
            };
            Way { path, own, partner, link: link_of(network, own) }
        })
        .collect()
}

fn has(network: &HostNetwork, address: Ipv4Addr) -> bool {
    link_of(network, address).is_some()
}

fn link_of(network: &HostNetwork, address: Ipv4Addr) -> Option<u32> {
    let mut present = network.addresses.iter();
    present.find(|present| present.address == IpAddr::V4(address)).map(|present| present.link)
}

/// Reads the key of authenticated heartbeats; a line end at its end is not part of it. `None` without a file.
pub fn read_key(settings: &PulseSettings) -> Result<Option<Key>, String> {
    let path: &FilePath = &settings.key_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let fault = |text: String| format!("{}: {text}", path.display());
    let about = std::fs::metadata(path).map_err(|error| fault(format!("cannot read the key: {error}")))?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(fault(format!("others can read the key (mode {mode:03o}); chmod 600 it")));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot read the key: {error}")))?;
    let key = Key::new(bytes.trim_ascii_end());
    let short =
        || fault(format!("the key is shorter than {KEY_LEN_MIN} bytes; head -c 32 /dev/urandom | base64"));
    key.ok_or_else(short).map(Some)
}
