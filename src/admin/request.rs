//! What it means: a command line as a request to the tables or as a listing, and the checks that need all of it.

use super::args::{Arguments, TunnelType};
use super::options::{Choice, Command, Rule};
use super::usage::UsageError;
use crate::ipvs::edit::{
    ClientMask, Edit, Forward, Persistence, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use crate::net::addr::{Family, Protocol};
use crate::net::tunnel::{Encapsulation, GueChecksum};

/// What ipvsadm is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Change the tables.
    Edit(Edit),
    /// Print.
    List(Listing),
    /// `-S`: print the tables as command lines; with numbers only if `true`.
    Save(bool),
    /// `-R`: carry out command lines; with `true` as the original does, line by line.
    Restore(bool),
    /// `-h`.
    Help,
    /// `-v`.
    Version,
}

/// What `-L` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Of what.
    pub subject: Subject,
    /// How.
    pub layout: Layout,
}

/// What a listing is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All services.
    Services,
    /// One service.
    Service(ServiceId),
    /// `-c`.
    Connections,
    /// `--timeout`.
    Timeouts,
    /// `--daemon`.
    Daemon,
}

/// How a listing looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which numbers.
    pub columns: Columns,
    /// `--exact`.
    pub exact: bool,
    /// `-n`.
    pub numeric: bool,
    /// Not `--nosort`.
    pub sorted: bool,
    /// `--json`: for programs, all numbers at once.
    pub json: bool,
}

/// Which numbers a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding method, weight, connections.
    Plain,
    /// `--stats`.
    Stats,
    /// `--rate`.
    Rate,
    /// `--thresholds`.
    Thresholds,
    /// `--persistent-conn`.
    PersistentConn,
    /// `--tun-info`.
    TunInfo,
}

impl Action {
    /// What `arguments` ask for.
    pub fn of(arguments: &Arguments) -> Result<Action, UsageError> {
        let service =
            arguments.service.ok_or(UsageError::Missing("service-address", arguments.command.name()));
        Ok(match arguments.command {
            Command::AddService => Action::Edit(Edit::AddService(service_spec(service?, arguments)?)),
            Command::EditService => Action::Edit(Edit::EditService(service_spec(service?, arguments)?)),
            Command::DeleteService => Action::Edit(Edit::DeleteService(service?)),
            Command::Flush => Action::Edit(Edit::Flush),
            Command::AddServer | Command::EditServer => server_action(service?, arguments)?,
            Command::DeleteServer => Action::Edit(Edit::DeleteServer(service?, server_id(arguments)?)),
            Command::Zero => Action::Edit(Edit::Zero(arguments.service)),
            Command::Set => {
                let [tcp, tcp_fin, udp] = arguments.timeouts;
                Action::Edit(Edit::SetTimeouts { tcp, tcp_fin, udp })
            }
            Command::List => Action::List(listing(arguments)?),
            Command::Save => Action::Save(arguments.has(Choice::Numeric)),
            Command::Restore => Action::Restore(arguments.has(Choice::Compat)),
            Command::StartDaemon => Action::Edit(Edit::StartDaemon(arguments.daemon.clone())),
            Command::StopDaemon => Action::Edit(Edit::StopDaemon(arguments.daemon.role)),
            Command::Help => Action::Help,
            Command::Version => Action::Version,
        })
    }
}

fn service_spec(id: ServiceId, arguments: &Arguments) -> Result<ServiceSpec, UsageError> {
    if matches!(id, ServiceId::Address { port: 0, .. }) && arguments.persistent.is_none() {
        return Err(UsageError::ZeroPort);
    }
    let one_packet = arguments.has(Choice::OnePacket);
    if one_packet && matches!(id, ServiceId::Address { protocol, .. } if protocol != Protocol::UDP) {
        return Err(UsageError::OnePacketNotUdp);
    }
    let scheduler = if arguments.scheduler.is_empty() { "wlc" } else { &arguments.scheduler };
    let mask = client_mask(id.family(), arguments.mask);
    Ok(ServiceSpec {
        id,
        scheduler: scheduler.to_owned(),
        flags: arguments.flags,
        one_packet,
        persistence: arguments.persistent.map(|timeout| Persistence { timeout, mask }),
        engine: arguments.engine.clone(),
    })
}

/// A mask that was written before the service turned out to be IPv6 is forgotten, as by the original.
fn client_mask(family: Family, mask: Option<ClientMask>) -> ClientMask {
    match (family, mask) {
        (Family::V4, None) => ClientMask::V4(u32::MAX),
        (Family::V6, None | Some(ClientMask::V4(_))) => ClientMask::V6(128),
        (_, Some(mask)) => mask,
    }
}

fn server_id(arguments: &Arguments) -> Result<ServerId, UsageError> {
    arguments.server.ok_or(UsageError::Missing("real-server", arguments.command.name()))
}

fn server_action(service: ServiceId, arguments: &Arguments) -> Result<Action, UsageError> {
    let mut id = server_id(arguments)?;
    let forward = arguments.forward;
    // Only NAT can change a port, so the other methods get the service's, whatever was written.
    if let (ServiceId::Address { port, .. }, Forward::Route | Forward::Tunnel) = (service, forward) {
        id.port = port;
    }
    if Family::from(id.address) != service.family() && forward != Forward::Tunnel {
        return Err(UsageError::ForeignFamily);
    }
    check_tunnel(arguments)?;
    let spec = ServerSpec {
        id,
        forward,
        tunnel: encapsulation(arguments),
        weight: arguments.weight,
        upper_threshold: arguments.upper_threshold,
        lower_threshold: arguments.lower_threshold,
    };
    Ok(Action::Edit(match arguments.command {
        Command::AddServer => Edit::AddServer(service, spec),
        _ => Edit::EditServer(service, spec),
    }))
}

fn encapsulation(arguments: &Arguments) -> Encapsulation {
    let has = |choice| arguments.has(choice);
    match arguments.tunnel {
        TunnelType::Ipip => Encapsulation::Ipip,
        TunnelType::Gre => Encapsulation::Gre { checksum: has(Choice::TunCsum) },
        TunnelType::Gue => {
            let checksum = match (has(Choice::TunCsum), has(Choice::TunRemcsum)) {
                (true, _) => GueChecksum::Udp,
                (false, true) => GueChecksum::Remote,
                (false, false) => GueChecksum::None,
            };
            Encapsulation::Gue { port: arguments.tunnel_port, checksum }
        }
    }
}

const TUNNEL_OPTIONS: [Choice; 4] = [Choice::TunPort, Choice::TunNocsum, Choice::TunCsum, Choice::TunRemcsum];

fn tunnel_rule(tunnel: TunnelType, option: Choice) -> Rule {
    match (tunnel, option) {
        (TunnelType::Gue, Choice::TunPort) => Rule::Required,
        (TunnelType::Gue, _) | (TunnelType::Gre, Choice::TunNocsum | Choice::TunCsum) => Rule::Exclusive,
        _ => Rule::Illegal,
    }
}

fn check_tunnel(arguments: &Arguments) -> Result<(), UsageError> {
    let any = arguments.has(Choice::TunType) || TUNNEL_OPTIONS.iter().any(|&option| arguments.has(option));
    if arguments.forward != Forward::Tunnel {
        return if any { Err(UsageError::TunnelOptions) } else { Ok(()) };
    }
    let tunnel = match arguments.tunnel {
        TunnelType::Ipip => "ipip",
        TunnelType::Gue => "gue",
        TunnelType::Gre => "gre",
    };
    let mut exclusive = None;
    for option in TUNNEL_OPTIONS {
        let name = option.name();
        match (tunnel_rule(arguments.tunnel, option), arguments.has(option)) {
            (Rule::Required, false) => return Err(UsageError::TunnelMissing(name, tunnel)),
            (Rule::Illegal, true) => return Err(UsageError::TunnelIllegal(name, tunnel)),
            (Rule::Exclusive, true) => match exclusive.replace(name) {
                Some(earlier) => return Err(UsageError::TunnelExclusive(name, earlier, tunnel)),
                None => continue,
            },
            _ => continue,
        }
    }
    Ok(())
}

fn listing(arguments: &Arguments) -> Result<Listing, UsageError> {
    let has = |choice| arguments.has(choice);
    let counts = has(Choice::Stats) || has(Choice::Rate) || has(Choice::Thresholds);
    let settings = has(Choice::Timeout) || has(Choice::Daemon);
    if (has(Choice::Connection) || settings) && counts || settings && has(Choice::PersistentConn) {
        return Err(UsageError::ListConflict);
    }
    let subject = match arguments.service {
        Some(service) => Subject::Service(service),
        None if has(Choice::Connection) => Subject::Connections,
        None if has(Choice::Timeout) => Subject::Timeouts,
        None if has(Choice::Daemon) => Subject::Daemon,
        None => Subject::Services,
    };
    let layout = Layout {
        columns: columns(arguments),
        exact: has(Choice::Exact),
        numeric: has(Choice::Numeric),
        sorted: !has(Choice::NoSort),
        json: has(Choice::Json),
    };
    Ok(Listing { subject, layout })
}

/// Of several kinds the first of this order is shown (reference 9.1).
fn columns(arguments: &Arguments) -> Columns {
    let order = [
        (Choice::Stats, Columns::Stats),
        (Choice::Rate, Columns::Rate),
        (Choice::Thresholds, Columns::Thresholds),
        (Choice::PersistentConn, Columns::PersistentConn),
        (Choice::TunInfo, Columns::TunInfo),
    ];
    order.iter().find(|(choice, _)| arguments.has(*choice)).map_or(Columns::Plain, |(_, columns)| *columns)
}
