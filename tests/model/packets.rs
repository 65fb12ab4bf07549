//! What becomes of a packet (ipvs.md sections 2 and 4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::tables::{Connection, Key, Model, SCTP, ServerIndex, TCP, Template, UDP};
use crate::model::{sctp, tcp};

/// Active FTP's data connections come from here.
const FTP_DATA: u16 = 20;

/// A TCP segment, a UDP datagram, or an SCTP packet of one chunk.
#[derive(Clone, Debug)]
pub struct Packet {
    pub protocol: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Letters of `SFRPA`, or the name of the chunk.
    pub flags: &'static str,
    /// Length of the IP packet.
    pub bytes: u64,
}

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to this server.
    ToServer(SocketAddr),
    /// On to the client, from this virtual address.
    ToClient(SocketAddr),
    /// As it is, to the machine's own IP stack.
    Pass,
    /// Answered by a port unreachable.
    Unreachable,
    /// Gone.
    Drop,
}

impl Packet {
    fn opens(&self) -> bool {
        match self.protocol {
            TCP => self.flags.contains('S'),
            SCTP => self.flags == "INIT",
            _ => false,
        }
    }

    fn resets(&self) -> bool {
        match self.protocol {
            TCP => self.flags.contains('R'),
            SCTP => self.flags == "ABORT",
            _ => false,
        }
    }
}

impl Model {
    /// One packet.
    pub fn packet(&mut self, packet: &Packet, mark: u32) -> Fate {
        if self.services.is_empty() {
            return Fate::Pass;
        }
        let same = |connection: &Connection| connection.protocol == packet.protocol;
        let reply = self.connections.iter().rposition(|connection| {
            same(connection)
                && (connection.server_address, connection.client) == (packet.source, packet.destination)
        });
        if let Some(index) = reply {
            return self.reply(index, packet);
        }
        let request = self.connections.iter().rposition(|connection| {
            same(connection) && (connection.client, connection.target) == (packet.source, packet.destination)
        });
        let Some(index) = request else { return self.open(packet, mark) };
        if self.is_over(index, packet) {
            let fate = self.open(packet, mark);
            self.end(index);
            return fate;
        }
        if !self.servers[self.connections[index].server].available {
            return Fate::Drop;
        }
        self.request(index, packet)
    }

    /// Whether a client's packet finds its connection to be over, so that it starts anew.
    fn is_over(&self, index: usize, packet: &Packet) -> bool {
        let connection = &self.connections[index];
        let server = &self.servers[connection.server];
        let nodest = self.settings.expire_nodest_conn != 0;
        let over = match connection.protocol {
            TCP => ["TW", "CL"].contains(&tcp::STATES[connection.state]),
            SCTP => sctp::STATES[connection.state] == "CL",
            _ => false,
        };
        let finished = connection.template.is_none() && over;
        let again = packet.opens()
            && ((nodest && server.terms.weight == 0) || (self.settings.conn_reuse_mode != 0 && finished));
        again || (nodest && !server.available)
    }

    fn request(&mut self, index: usize, packet: &Packet) -> Fate {
        let Connection { server, server_address, .. } = self.connections[index];
        self.count_in(server, packet);
        self.touch(index, true, packet);
        Fate::ToServer(server_address)
    }

    fn reply(&mut self, index: usize, packet: &Packet) -> Fate {
        let Connection { server, target, .. } = self.connections[index];
        self.count(server, |traffic| {
            traffic.outpkts += 1;
            traffic.outbytes += packet.bytes;
        });
        self.touch(index, false, packet);
        Fate::ToClient(target)
    }

    fn count_in(&mut self, server: ServerIndex, packet: &Packet) {
        self.count(server, |traffic| {
            traffic.inpkts += 1;
            traffic.inbytes += packet.bytes;
        });
    }

    /// The next state, its timeout, and what depends on the state.
    fn touch(&mut self, index: usize, from_client: bool, packet: &Packet) {
        let now = self.now;
        let connection = &mut self.connections[index];
        let state = connection.state;
        let (state, active, alive) = match packet.protocol {
            TCP => {
                let state = tcp::next(state, from_client, packet.flags);
                (state, tcp::is_active(state), tcp::STATES[state] == "ES")
            }
            SCTP => {
                let state = sctp::next(state, from_client, packet.flags);
                (state, sctp::STATES[state] == "ES", sctp::STATES[state] == "ES")
            }
            _ => (state, false, !from_client),
        };
        let server = &mut self.servers[connection.server];
        server.active = server.active + u64::from(active) - u64::from(connection.active);
        (connection.state, connection.active) = (state, active);
        let (state, template) = (connection.state, connection.template);
        self.connections[index].deadline = now + 1000 * self.timeout(packet.protocol, state);
        if alive {
            for template in self.templates.iter_mut().filter(|known| Some(known.number) == template) {
                template.assured = true;
            }
        }
    }

    /// A packet of no connection.
    fn open(&mut self, packet: &Packet, mark: u32) -> Fate {
        let reset = packet.resets();
        if self.settings.nat_icmp_send != 0 && !reset && self.is_servers(packet) {
            return Fate::Unreachable;
        }
        let sloppy = match packet.protocol {
            TCP => self.settings.sloppy_tcp != 0,
            SCTP => self.settings.sloppy_sctp != 0,
            _ => true,
        };
        let opens = packet.opens() || sloppy;
        if reset || !opens || packet.source.port() == FTP_DATA {
            return Fate::Pass;
        }
        let Some(service) = self.service_of(packet, mark) else { return Fate::Pass };
        let template = match self.services[service].options.persistence {
            Some(_) => match self.template(service, packet) {
                Some(template) => Some(template),
                None => return Fate::Unreachable,
            },
            None => None,
        };
        let server = match template {
            Some(template) => self.templates[template].server,
            None => match self.choose(service, packet) {
                Some(server) => server,
                None => return Fate::Unreachable,
            },
        };
        self.connect(service, server, template, packet)
    }

    /// Whether the packet comes from a real server's own address and port.
    fn is_servers(&self, packet: &Packet) -> bool {
        self.services.iter().any(|service| {
            let protocol = match service.key {
                Key::Address(protocol, _) => protocol,
                Key::Mark(_) => packet.protocol,
            };
            let address = |server: &ServerIndex| self.servers[*server].address == packet.source;
            protocol == packet.protocol && service.servers.iter().any(address)
        })
    }

    fn service_of(&self, packet: &Packet, mark: u32) -> Option<usize> {
        let any_port = SocketAddr::new(packet.destination.ip(), 0);
        let keys = [
            Key::Mark(mark),
            Key::Address(packet.protocol, packet.destination),
            Key::Address(packet.protocol, any_port),
        ];
        keys.into_iter().find_map(|key| self.service(key))
    }

    fn choose(&mut self, service: usize, packet: &Packet) -> Option<ServerIndex> {
        let service = &mut self.services[service];
        let (client, target) = (packet.source, packet.destination);
        service.scheduler.choose(&service.options, &service.servers, &self.servers, client, target)
    }

    fn connect(
        &mut self,
        service: usize,
        server: ServerIndex,
        template: Option<usize>,
        packet: &Packet,
    ) -> Fate {
        let wanted = packet.destination.port();
        let own = match self.services[service].key {
            Key::Address(_, target) => template.is_none() || target.port() == wanted,
            Key::Mark(_) => template.is_none(),
        };
        let mut server_address = self.servers[server].address;
        if !own || server_address.port() == 0 {
            server_address.set_port(wanted);
        }
        self.count(server, |traffic| traffic.conns += 1);
        self.bind(Connection {
            protocol: packet.protocol,
            client: packet.source,
            target: packet.destination,
            server_address,
            server,
            template: template.map(|template| self.templates[template].number),
            state: 0,
            active: false,
            deadline: self.now + 3000,
        });
        let index = self.connections.len() - 1;
        if self.services[service].options.one_packet && packet.protocol == UDP {
            self.count_in(server, packet);
            self.end(index);
            return Fate::ToServer(server_address);
        }
        self.request(index, packet)
    }

    /// The client's template, its time started again; a new one if there is none that counts.
    fn template(&mut self, service: usize, packet: &Packet) -> Option<usize> {
        let (timeout, bits) = self.services[service].options.persistence?;
        let client = masked(packet.source.ip(), bits);
        let (protocol, target) = match self.services[service].key {
            Key::Mark(mark) => (0, SocketAddr::new(mark_address(mark, client), 0)),
            Key::Address(protocol, target) => {
                (protocol, SocketAddr::new(packet.destination.ip(), target.port()))
            }
        };
        let known = self.templates.iter().rposition(|template| {
            !template.renamed
                && (template.protocol, template.client, template.target) == (protocol, client, target)
        });
        let index = match known.filter(|index| self.counts(*index)) {
            Some(index) => index,
            None => {
                if let Some(index) = known {
                    let template = &mut self.templates[index];
                    template.renamed = true;
                    template.target.set_port(0xffff);
                    template.server_address.set_port(0xffff);
                }
                let server = self.choose(service, packet)?;
                let mut server_address = self.servers[server].address;
                if target.port() == 0 {
                    server_address.set_port(0);
                }
                self.made += 1;
                self.add_template(Template {
                    number: self.made,
                    protocol,
                    client,
                    target,
                    server_address,
                    server,
                    timeout: 1000 * timeout,
                    deadline: 0,
                    assured: false,
                    child_ended: 0,
                    renamed: false,
                })
            }
        };
        self.templates[index].deadline = self.now + self.templates[index].timeout;
        Some(index)
    }

    fn counts(&self, template: usize) -> bool {
        let server = &self.servers[self.templates[template].server];
        let quiesced = self.settings.expire_quiescent_template != 0 && server.terms.weight == 0;
        server.available && !quiesced
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let keep = |octets: &mut [u8]| {
        for (index, octet) in octets.iter_mut().enumerate() {
            let here = u32::from(bits).saturating_sub(8 * index as u32).min(8);
            *octet &= (0xff00_u32 >> here) as u8;
        }
    };
    match address {
        IpAddr::V4(address) => {
            let mut octets = address.octets();
            keep(&mut octets);
            Ipv4Addr::from(octets).into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            keep(&mut octets);
            Ipv6Addr::from(octets).into()
        }
    }
}

/// A mark in the place of a virtual address: the first four bytes of one of the client's family.
fn mark_address(mark: u32, client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => Ipv4Addr::from(mark).into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::from(mark) << 96).into(),
    }
}
