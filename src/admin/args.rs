//! What was typed: a command line as values, each checked by itself in the order of the words, as ipvsadm does it.

use std::net::IpAddr;

use super::options::{CHOICES, Choice, Command, Meaning, Rule};
use super::resolver::Resolver;
use super::scan::{Scanner, Typed};
use super::usage::UsageError;
use super::value;
use crate::ipvs::edit::{ClientMask, Forward, SchedulerFlags, ServerId, ServiceId};
use crate::ipvs::sync::{SyncDaemon, SyncRole};
use crate::net::addr::{Family, Protocol};

/// Life of a template in seconds when `-p` has no value (the manual page's 300 is wrong, reference 9.1).
const DEFAULT_PERSISTENCE: u32 = 360;

/// Interface of a synchronisation daemon that names none.
const DEFAULT_INTERFACE: &str = "eth0";

/// Longest name of a scheduler, persistence engine or network interface that the kernel's interface carries.
const LONGEST_NAME: usize = 15;

/// How a tunnel wraps packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelType {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// The types by the words of `--tun-type`.
pub const TUNNEL_TYPES: [(&str, TunnelType); 3] =
    [("ipip", TunnelType::Ipip), ("gue", TunnelType::Gue), ("gre", TunnelType::Gre)];

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The command.
    pub command: Command,
    /// The options that were given, whatever their values.
    pub given: Vec<Choice>,
    /// `-t`, `-u`, `--sctp-service`, `-f`.
    pub service: Option<ServiceId>,
    /// `-s`; empty if it was not given.
    pub scheduler: String,
    /// `-b`.
    pub flags: SchedulerFlags,
    /// `-p` in seconds.
    pub persistent: Option<u32>,
    /// `-M`, of the family that was known by then.
    pub mask: Option<ClientMask>,
    /// `--pe`.
    pub engine: Option<String>,
    /// `-r`; the port that was not written is the one of the service, if that stood before it.
    pub server: Option<ServerId>,
    /// `-g`, `-i`, `-m`.
    pub forward: Forward,
    /// `--tun-type`.
    pub tunnel: TunnelType,
    /// `--tun-port`.
    pub tunnel_port: u16,
    /// `-w`.
    pub weight: i32,
    /// `-x`.
    pub upper_threshold: u32,
    /// `-y`.
    pub lower_threshold: u32,
    /// `--set`: TCP, TCP after a FIN, UDP, in seconds.
    pub timeouts: [u32; 3],
    /// What `--start-daemon` and its options say; of `--stop-daemon` the role.
    pub daemon: SyncDaemon,
    flag_text: String,
}

impl Arguments {
    /// Reads a command line, the program's name not among the words. No words at all list the table.
    pub fn parse(words: &[String], resolver: &dyn Resolver) -> Result<Self, UsageError> {
        if words.is_empty() {
            return Ok(Self::new(Command::List));
        }
        let mut scanner = Scanner::new(words);
        let (command, role) = first_command(&mut scanner)?;
        let mut arguments = Self::new(command);
        arguments.daemon.role = role;
        if matches!(arguments.command, Command::Help | Command::Version) {
            return Ok(arguments);
        }
        while let Some(typed) = scanner.next_switch()? {
            arguments.take(typed, scanner.last_word(), resolver)?;
        }
        if arguments.command == Command::Set {
            arguments.timeouts = set_values(&mut scanner)?;
        }
        if let Some(word) = scanner.next_plain() {
            return Err(UsageError::Unexpected(word));
        }
        arguments.flags = value::scheduler_flags(&arguments.flag_text, &arguments.scheduler)?;
        arguments.check_choices()?;
        Ok(arguments)
    }

    fn new(command: Command) -> Self {
        Arguments {
            command,
            given: Vec::new(),
            service: None,
            scheduler: String::new(),
            flags: SchedulerFlags::default(),
            persistent: None,
            mask: None,
            engine: None,
            server: None,
            forward: Forward::Route,
            tunnel: TunnelType::Ipip,
            tunnel_port: 0,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            timeouts: [0; 3],
            daemon: SyncDaemon {
                role: SyncRole::Master,
                interface: DEFAULT_INTERFACE.to_owned(),
                sync_id: 0,
                max_len: 0,
                group: None,
                port: 0,
                ttl: 0,
            },
            flag_text: String::new(),
        }
    }

    /// Whether an option was given.
    pub fn has(&self, choice: Choice) -> bool {
        self.given.contains(&choice)
    }

    fn take(&mut self, typed: Typed, word: &str, resolver: &dyn Resolver) -> Result<(), UsageError> {
        let text = typed.value.as_deref();
        match typed.meaning {
            Meaning::Command(_) => Err(UsageError::SecondCommand(word.to_owned())),
            Meaning::Sort => Ok(()),
            Meaning::Ipv6 => self.make_ipv6(),
            Meaning::Tcp => self.take_service(Protocol::TCP, text, resolver),
            Meaning::Udp => self.take_service(Protocol::UDP, text, resolver),
            Meaning::Sctp => self.take_service(Protocol::SCTP, text, resolver),
            Meaning::FwMark => self.take_mark(text.unwrap_or_default()),
            Meaning::Route => self.take_forward(Forward::Route),
            Meaning::Tunnel => self.take_forward(Forward::Tunnel),
            Meaning::Masquerade => self.take_forward(Forward::Masquerade),
            Meaning::Option(choice) => {
                self.note(choice)?;
                self.take_option(choice, text, resolver)
            }
        }
    }

    fn note(&mut self, choice: Choice) -> Result<(), UsageError> {
        if self.has(choice) {
            return Err(UsageError::Multiple(choice.name()));
        }
        self.given.push(choice);
        Ok(())
    }

    fn take_service(
        &mut self,
        protocol: Protocol,
        text: Option<&str>,
        resolver: &dyn Resolver,
    ) -> Result<(), UsageError> {
        self.note(Choice::ServiceAddress)?;
        let (address, port) = value::endpoint(text.unwrap_or_default(), protocol, resolver)
            .ok_or(UsageError::IllegalValue("virtual server address[:port]"))?;
        self.service = Some(ServiceId::Address { protocol, address, port: port.unwrap_or(0) });
        Ok(())
    }

    fn take_mark(&mut self, text: &str) -> Result<(), UsageError> {
        self.note(Choice::ServiceAddress)?;
        let mark = value::number(text, 1..=i64::from(u32::MAX)).and_then(|mark| u32::try_from(mark).ok());
        let mark = mark.ok_or_else(|| UsageError::FwMark(text.to_owned()))?;
        self.service = Some(ServiceId::FwMark { mark, family: Family::V4 });
        Ok(())
    }

    fn make_ipv6(&mut self) -> Result<(), UsageError> {
        match &mut self.service {
            Some(ServiceId::FwMark { family, .. }) => {
                *family = Family::V6;
                Ok(())
            }
            _ => Err(UsageError::Ipv6WithoutMark),
        }
    }

    fn take_forward(&mut self, forward: Forward) -> Result<(), UsageError> {
        self.note(Choice::Forwarding)?;
        self.forward = forward;
        Ok(())
    }

    fn take_option(
        &mut self,
        choice: Choice,
        value: Option<&str>,
        resolver: &dyn Resolver,
    ) -> Result<(), UsageError> {
        let text = value.unwrap_or_default();
        match choice {
            Choice::Scheduler => self.scheduler = text.chars().take(LONGEST_NAME).collect(),
            // No name is no engine, as for the kernel.
            Choice::Engine if text.is_empty() => {}
            Choice::Engine => self.engine = Some(text.chars().take(LONGEST_NAME).collect()),
            Choice::SchedulerFlags => text.clone_into(&mut self.flag_text),
            Choice::Persistent => {
                let seconds = value.map(|text| value::timeout(text, 1)).transpose()?;
                self.persistent = Some(seconds.unwrap_or(DEFAULT_PERSISTENCE));
            }
            Choice::Netmask => self.mask = Some(self.read_mask(text, resolver)?),
            Choice::RealServer => self.server = Some(self.read_server(text, resolver)?),
            Choice::Weight => self.weight = ranged("weight", text, 0, i64::from(i32::MAX))?,
            Choice::UpperThreshold => {
                self.upper_threshold = ranged("u_threshold", text, 0, i64::from(i32::MAX))?;
            }
            Choice::LowerThreshold => {
                self.lower_threshold = ranged("l_threshold", text, 0, i64::from(i32::MAX))?;
            }
            Choice::TunType => self.tunnel = tunnel_type(text)?,
            Choice::TunPort => self.tunnel_port = ranged("tunnel port", text, 1, 65535)?,
            _ => self.take_daemon_option(choice, text)?,
        }
        Ok(())
    }

    fn take_daemon_option(&mut self, choice: Choice, text: &str) -> Result<(), UsageError> {
        let daemon = &mut self.daemon;
        match choice {
            Choice::McastInterface if !text.is_empty() => {
                daemon.interface = text.chars().take(LONGEST_NAME).collect();
            }
            Choice::SyncId => daemon.sync_id = ranged("syncid", text, 0, 255)?,
            Choice::SyncMaxlen => daemon.max_len = ranged("sync-maxlen", text, 1, 65507)?,
            Choice::McastPort => daemon.port = ranged("mcast-port", text, 1, 65535)?,
            Choice::McastTtl => daemon.ttl = ranged("mcast-ttl", text, 1, 255)?,
            Choice::McastGroup => daemon.group = Some(multicast_group(text)?),
            _ => {}
        }
        Ok(())
    }

    fn read_mask(&self, text: &str, resolver: &dyn Resolver) -> Result<ClientMask, UsageError> {
        if self.service.is_some_and(|service| service.family() == Family::V6) {
            return ranged("ipv6 netmask", text, 1, 128).map(ClientMask::V6);
        }
        let mask = value::ipv4(text, resolver);
        mask.map(|mask| ClientMask::V4(mask.into()))
            .ok_or(UsageError::IllegalValue("virtual server persistent mask"))
    }

    fn read_server(&self, text: &str, resolver: &dyn Resolver) -> Result<ServerId, UsageError> {
        let (protocol, service_port) = match self.service {
            Some(ServiceId::Address { protocol, port, .. }) => (protocol, port),
            Some(ServiceId::FwMark { .. }) => (Protocol::TCP, 0),
            // Before the service, the original knows no protocol whose ports had names.
            None => (Protocol::IP, 0),
        };
        let (address, port) = value::endpoint(text, protocol, resolver)
            .ok_or(UsageError::IllegalValue("real server address[:port]"))?;
        Ok(ServerId { address, port: port.unwrap_or(service_port) })
    }

    fn check_choices(&self) -> Result<(), UsageError> {
        let command = self.command.name();
        let mut exclusive = None;
        for (choice, name) in CHOICES {
            match (self.command.rule(choice), self.has(choice)) {
                (Rule::Required, false) => return Err(UsageError::Missing(name, command)),
                (Rule::Illegal, true) => return Err(UsageError::Illegal(name, command)),
                (Rule::Exclusive, true) => match exclusive.replace(name) {
                    Some(earlier) => return Err(UsageError::Exclusive(name, earlier, command)),
                    None => continue,
                },
                _ => continue,
            }
        }
        Ok(())
    }
}

/// The command, and the role that the daemon commands name with it.
fn first_command(scanner: &mut Scanner) -> Result<(Command, SyncRole), UsageError> {
    let Ok(Some(Typed { meaning: Meaning::Command(command), value })) = scanner.next_switch() else {
        return Err(UsageError::NotACommand);
    };
    let role = match value.as_deref() {
        Some("master") => Some(SyncRole::Master),
        Some("backup") => Some(SyncRole::Backup),
        _ => None,
    };
    match (command, role) {
        (Command::StartDaemon, None) => Err(UsageError::IllegalValue("start-daemon parameter")),
        (Command::StopDaemon, None) => Err(UsageError::IllegalValue("start_daemon")),
        (command, role) => Ok((command, role.unwrap_or(SyncRole::Master))),
    }
}

fn set_values(scanner: &mut Scanner) -> Result<[u32; 3], UsageError> {
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(scanner.next_plain().ok_or(UsageError::SetNeedsThree)?);
    }
    let mut values = [0; 3];
    for (value, word) in values.iter_mut().zip(&words) {
        *value = value::timeout(word, 0)?;
    }
    Ok(values)
}

fn ranged<T: TryFrom<i64>>(name: &'static str, text: &str, least: i64, most: i64) -> Result<T, UsageError> {
    let number = value::number(text, least..=most).and_then(|number| T::try_from(number).ok());
    number.ok_or(UsageError::IllegalValue(name))
}

fn tunnel_type(text: &str) -> Result<TunnelType, UsageError> {
    let known = TUNNEL_TYPES.iter().find(|(name, _)| *name == text);
    known.map(|(_, tunnel)| *tunnel).ok_or(UsageError::IllegalValue("tunnel type"))
}

fn multicast_group(text: &str) -> Result<IpAddr, UsageError> {
    let family = if text.contains(':') { "IPv6" } else { "IPv4" };
    let group = text.parse().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| UsageError::McastGroup(family, text.to_owned()))
}
