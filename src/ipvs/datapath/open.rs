//! The first packet of a connection: mark or address → service → template or scheduler (ipvs.md sections 2.3, 2.4 and 4.2).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sdd::Shared;

use super::fragments::Origin;
use super::{Burst, Datapath, Passage};
use crate::ipvs::call_id::call_id;
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::{Persistence, ServerId};
use crate::ipvs::helper::ftp::{CONTROL_PORT, DATA_PORT};
use crate::ipvs::mark::MarkPacket;
use crate::ipvs::persistence::{PersistenceTemplate, TemplateKey};
use crate::ipvs::protocol::{Direction, ipsec};
use crate::ipvs::scheduler::Arrival;
use crate::ipvs::server::RealServer;
use crate::ipvs::service::VirtualService;
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::table::Found;
use crate::ipvs::timer::Fate;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;
use crate::net::icmp::IcmpError;
use crate::net::parse::{Packet, Quote, SctpChunk, Transport};
use crate::net::rewrite;
use crate::net::route::RouteTable;

const UDP_LEN: usize = 8;

/// Why a packet makes no connection.
enum Refusal {
    /// No server may take it.
    NoServer,
    /// The persistence engine finds no call that it belongs to.
    NoCall,
}

impl Passage<'_, '_> {
    /// What the flow's template is found by; `None` if the persistence engine finds no call in the packet.
    pub(super) fn template_key(
        &self,
        service: &VirtualService,
        persistence: &Persistence,
        flow: &FlowKey,
    ) -> Option<TemplateKey> {
        let mut key = TemplateKey::new(&service.spec.id, persistence, flow);
        if service.spec.engine.is_some() {
            key.call_id = Some(call_id(self.datagram()?)?.into());
        }
        Some(key)
    }

    /// The packet's mark.
    pub(super) fn mark(&self) -> u32 {
        let snapshot = self.burst.snapshot;
        let Packet { source, destination, protocol, .. } = self.packet;
        let ports = self.packet.flow().map(|flow| (flow.source_port, flow.destination_port));
        let interface = snapshot.interface(self.frame.port());
        snapshot.marks.mark(&MarkPacket { source, destination, protocol, ports, interface })
    }

    /// The payload of a UDP packet, read as a whole.
    fn datagram(&self) -> Option<&[u8]> {
        let Packet { transport: Transport::Udp { .. }, l4, end, .. } = self.packet else { return None };
        self.origin.iter().for_each(Origin::merge);
        self.frame.bytes().get(l4 + UDP_LEN..end)
    }
}

impl Datapath {
    pub(super) fn open(&mut self, passage: &mut Passage<'_, '_>) -> Verdict {
        let Some(flow) = &ipsec::flow_of(&passage.packet) else { return Verdict::Pass };
        let burst = passage.burst;
        let Snapshot { sysctls, routes, .. } = burst.snapshot;
        if let Some(verdict) = self.originate(passage, flow) {
            return verdict;
        }
        if is_late(&passage.packet) && self.tables.farewells.has_ended(flow, burst.now) {
            return self.answer_by_reset(passage, DropReason::NoConnection);
        }
        if is_stray_reply(passage, flow)
            && let Some(own) = routes.port_address(passage.frame.port(), flow.source)
        {
            return self.refuse_stray(own, passage);
        }
        if is_untranslated(passage, flow) {
            return Verdict::Drop(DropReason::Untranslated);
        }
        if !routes.is_local(flow.destination) || is_martian(flow.source, routes) {
            return Verdict::Pass;
        }
        if matches!(passage.packet.transport, Transport::Torn { .. } | Transport::Sctp { chunk: None, .. }) {
            return Verdict::Drop(DropReason::Truncated);
        }
        if !may_open(&passage.packet, sysctls) {
            return Verdict::Pass;
        }
        let Some(service) = service_of(passage, flow) else { return Verdict::Pass };
        if self.tables.drop_counters.drops_packet(burst.snapshot.defence) {
            return Verdict::Drop(DropReason::Defence);
        }
        if flow.source_port == DATA_PORT {
            return Verdict::Pass;
        }
        if let Some(reason) = self.refusal(burst, service, flow) {
            return Verdict::Drop(reason);
        }
        match self.schedule(passage, service, &Arrival::new(burst, service, flow, flow.destination)) {
            Ok(connection) if is_one_packet(service, flow) => {
                let verdict = self.forward_one_packet(passage, Found::of(&connection, burst.guard));
                self.announce_one_packet(passage, &connection);
                connection.unbind();
                verdict
            }
            Ok(connection) => {
                self.tables.connections.insert(&connection);
                self.forward_request(passage, Found::of(&connection, burst.guard))
            }
            Err(Refusal::NoCall) => Verdict::Drop(DropReason::NoCall),
            Err(Refusal::NoServer) if is_ftp_data_for(service, flow) => Verdict::Pass,
            Err(Refusal::NoServer) => self.refuse_flow(passage, service),
        }
    }

    /// An ICMP error about an unknown flow, with `schedule_icmp`: a connection for the flow, and the error goes the way its
    /// packets would.
    pub(super) fn open_for_error(&mut self, passage: &mut Passage<'_, '_>, quote: &Quote) -> Verdict {
        let burst = passage.burst;
        let flow = quote.flow.reversed();
        let Some(service) = service_of(passage, &flow) else { return Verdict::Pass };
        if self.tables.drop_counters.drops_packet(burst.snapshot.defence) {
            return Verdict::Drop(DropReason::Defence);
        }
        if flow.source_port == DATA_PORT {
            return Verdict::Pass;
        }
        if let Some(reason) = self.refusal(burst, service, &flow) {
            return Verdict::Drop(reason);
        }
        match self.schedule(passage, service, &Arrival::new(burst, service, &flow, flow.source)) {
            Ok(connection) if is_one_packet(service, &flow) => {
                let found = Found::of(&connection, burst.guard);
                let verdict = self.forward_error(passage, quote, found, Direction::In);
                connection.unbind();
                verdict
            }
            Ok(connection) => {
                self.tables.connections.insert(&connection);
                let found = Found::of(&connection, burst.guard);
                self.wheel.file(connection);
                self.forward_error(passage, quote, found, Direction::In)
            }
            Err(Refusal::NoCall) => Verdict::Drop(DropReason::NoCall),
            Err(Refusal::NoServer) if is_ftp_data_for(service, &flow) => Verdict::Pass,
            Err(Refusal::NoServer) => Verdict::Drop(DropReason::NoDestination),
        }
    }

    /// Routing comes first: what it refuses is the kernel's to answer, and the quoted packet has its TTL already decremented
    /// (golden `ipv6-nat-icmp-send`).
    fn refuse_stray(&mut self, own: IpAddr, passage: &mut Passage<'_, '_>) -> Verdict {
        if passage.packet.ttl <= 1 || passage.way(passage.packet.destination).is_err() {
            return Verdict::Pass;
        }
        rewrite::decrement_ttl(passage.frame.bytes_mut(), &passage.packet);
        self.answer_from(own, passage, IcmpError::PortUnreachable, DropReason::NoConnection)
    }

    /// No server: the client is told so.
    fn refuse_flow(&mut self, passage: &mut Passage<'_, '_>, service: &VirtualService) -> Verdict {
        let is_tcp = matches!(passage.packet.transport, Transport::Tcp { .. });
        if is_tcp && passage.burst.snapshot.beyond.resets_without_destination(&service.spec.id) {
            return self.answer_by_reset(passage, DropReason::NoDestination);
        }
        self.answer(passage, IcmpError::PortUnreachable, DropReason::NoDestination)
    }

    /// A new connection for the flow.
    fn schedule(
        &mut self,
        passage: &Passage<'_, '_>,
        service: &VirtualService,
        arrival: &Arrival<'_>,
    ) -> Result<Shared<Connection>, Refusal> {
        let flow = arrival.flow;
        let connection = match &service.spec.persistence {
            Some(persistence) => {
                let key = passage.template_key(service, persistence, flow).ok_or(Refusal::NoCall)?;
                let template = self.template(service, key, None, arrival).ok_or(Refusal::NoServer)?;
                let server_address = persistent_address(service, template.server.id(), flow);
                let server = Arc::clone(&template.server);
                Connection::new(flow, server, server_address, Some(template))
            }
            None if service.port().is_some_and(|port| port != flow.destination_port) => {
                return Err(Refusal::NoServer);
            }
            None => {
                let server = service.scheduler.schedule(&service.servers, arrival);
                let server = server.ok_or(Refusal::NoServer)?;
                let server_address = address_for(server.id(), flow);
                Connection::new(flow, server, server_address, None)
            }
        };
        Ok(self.connect(passage.burst, service, connection))
    }

    /// Counts a new connection, at the service that took it: the server may be another's, if the template is one that several
    /// services share (golden `port0-ftp`). Its first packet gives it the timeout of a state; until then it must not look as if its time
    /// were up to another worker.
    pub(super) fn connect(
        &self,
        burst: &Burst<'_>,
        service: &VirtualService,
        mut connection: Connection,
    ) -> Shared<Connection> {
        if super::ftp::reads(burst, &connection) {
            connection = connection.read_by_ftp();
        }
        connection.life.set_deadline(burst.now + Duration::from_secs(u64::from(connection.timeout())));
        let connection = Shared::new(connection);
        for stats in [connection.server.stats(), &*service.stats, &self.tables.total] {
            stats.cell(self.worker).add_connection();
        }
        connection
    }

    /// The client's template of a persistent service, refreshed; a new one if there is none that counts. It has to be one to
    /// the `wanted` server if there is such.
    pub(super) fn template(
        &mut self,
        service: &VirtualService,
        key: TemplateKey,
        wanted: Option<&Arc<RealServer>>,
        arrival: &Arrival<'_>,
    ) -> Option<Arc<PersistenceTemplate>> {
        let template = match self.valid_template(arrival, &key, wanted) {
            Some(template) => template,
            None => {
                let persistence = service.spec.persistence?;
                let scheduled = || service.scheduler.schedule(&service.servers, arrival);
                let server = wanted.cloned().or_else(scheduled)?;
                let port = if has_own_template(service, arrival.flow) { server.id().port } else { 0 };
                let template = PersistenceTemplate::new(key, server, port, persistence.timeout);
                let template = Arc::new(template.of_one_packet_service(service.spec.one_packet));
                self.tables.templates.insert(Arc::clone(&template));
                template
            }
        };
        template.refresh(arrival.now);
        if template.life.needs_filing() {
            self.template_wheel.file(Arc::clone(&template));
        }
        Some(template)
    }

    fn valid_template(
        &self,
        arrival: &Arrival<'_>,
        key: &TemplateKey,
        wanted: Option<&Arc<RealServer>>,
    ) -> Option<Arc<PersistenceTemplate>> {
        let templates = &self.tables.templates;
        let template = templates.find(key)?;
        if template.life.is_over(arrival.now) && templates.expire(&template, arrival.now) == Fate::Gone {
            return None;
        }
        let fits = wanted.is_none_or(|server| Arc::ptr_eq(server, &template.server));
        if fits && template.is_valid(arrival.sysctls.expire_quiescent_template != 0) {
            return Some(template);
        }
        templates.retire(&template);
        None
    }
}

/// One-packet scheduling: the connection lives for this packet only and nobody finds it, so that answers leave as they are
/// (golden `udp-ops`). Under a mark it concerns UDP alone.
pub(super) fn is_one_packet(service: &VirtualService, flow: &FlowKey) -> bool {
    service.spec.one_packet && flow.protocol == Protocol::UDP
}

/// An FTP service is also asked about the data connections of its clients; those it has no server for are not its own.
fn is_ftp_data_for(service: &VirtualService, flow: &FlowKey) -> bool {
    service.port() == Some(CONTROL_PORT) && flow.destination_port != CONTROL_PORT
}

/// Whether `nat_icmp_send` tells a real server that nobody awaits its packet (ipvs.md section 2.7).
fn is_stray_reply(passage: &Passage<'_, '_>, flow: &FlowKey) -> bool {
    let Snapshot { sysctls, services, .. } = passage.burst.snapshot;
    let answerable = match passage.packet.transport {
        Transport::Tcp { flags, .. } => !flags.rst,
        Transport::Udp { .. } | Transport::Torn { .. } => true,
        Transport::Sctp { chunk, .. } => chunk.is_none_or(|chunk| chunk.kind != SctpChunk::ABORT),
        Transport::Icmp { .. } | Transport::Other => false,
    };
    sysctls.nat_icmp_send != 0
        && answerable
        && services.has_server(flow.protocol, flow.source, flow.source_port)
}

/// Whether a real server's packet of no connection would leave with the server's own address, and must not. What a server
/// sends to this machine itself, such as the answer to a health check, goes nowhere else.
fn is_untranslated(passage: &Passage<'_, '_>, flow: &FlowKey) -> bool {
    let Snapshot { beyond, services, routes, .. } = passage.burst.snapshot;
    beyond.switches.drop_untranslated
        && services.has_server(flow.protocol, flow.source, flow.source_port)
        && !routes.is_local(flow.destination)
}

/// Whether a packet of no connection may be of one that has ended: all but those that begin one.
fn is_late(packet: &Packet) -> bool {
    matches!(packet.transport, Transport::Tcp { flags, .. } if flags.ack || !flags.syn)
}

/// Whether a packet without a connection may create one (ipvs.md section 2.3).
fn may_open(packet: &Packet, sysctls: &Sysctls) -> bool {
    match packet.transport {
        Transport::Tcp { flags, .. } => !flags.rst && (flags.syn || sysctls.sloppy_tcp != 0),
        Transport::Udp { .. } => true,
        Transport::Sctp { chunk, .. } => chunk.is_some_and(|chunk| match chunk.kind {
            SctpChunk::INIT => true,
            kind => kind != SctpChunk::ABORT && sysctls.sloppy_sctp != 0,
        }),
        Transport::Torn { .. } | Transport::Icmp { .. } | Transport::Other => false,
    }
}

/// Whether the kernel refuses a source before IPVS sees the packet (RFC 1812 section 5.3.7, RFC 4291 section 2.7). One that is
/// the machine's own is refused in IPv4 alone (goldens `odd-sources`, `ipv6-edges`).
fn is_martian(source: IpAddr, routes: &RouteTable) -> bool {
    let refused = match source {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast() || routes.is_local(source),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    refused || source.is_multicast() || source.is_loopback()
}

impl<'a> Arrival<'a> {
    pub(super) fn new(
        burst: &Burst<'a>,
        service: &VirtualService,
        flow: &'a FlowKey,
        addressed: IpAddr,
    ) -> Self {
        let Burst { now, snapshot, .. } = *burst;
        Arrival { flow, addressed, flags: service.spec.flags, sysctls: &snapshot.sysctls, now }
    }
}

/// The service of a flow, by the mark of the packet that came, which may be an ICMP error about it; none at an address that is
/// about to go.
fn service_of<'a>(passage: &Passage<'a, '_>, flow: &FlowKey) -> Option<&'a Arc<VirtualService>> {
    let snapshot = passage.burst.snapshot;
    if snapshot.closed.contains(&flow.destination) {
        return None;
    }
    let mark = if snapshot.services.has_marks() { passage.mark() } else { 0 };
    snapshot.services.find(mark, flow.protocol, flow.destination, flow.destination_port)
}

/// The server's own port, or the packet's if it has none.
fn address_for(server: ServerId, flow: &FlowKey) -> SocketAddr {
    let port = if server.port == 0 { flow.destination_port } else { server.port };
    SocketAddr::new(server.address, port)
}

/// Whether the packet is for the service's own port, which is 0 of a mark (golden `destination-port-0`).
fn is_own_port(service: &VirtualService, flow: &FlowKey) -> bool {
    service.port().unwrap_or(0) == flow.destination_port
}

/// Whether connections of this flow's template are all for the service's own port, as they are not with FTP.
fn has_own_template(service: &VirtualService, flow: &FlowKey) -> bool {
    is_own_port(service, flow) && flow.destination_port != CONTROL_PORT
}

/// Under persistence the server's port counts only for the service's own port: with a mark or any port the packet's stays.
fn persistent_address(service: &VirtualService, server: ServerId, flow: &FlowKey) -> SocketAddr {
    if is_own_port(service, flow) {
        address_for(server, flow)
    } else {
        SocketAddr::new(server.address, flow.destination_port)
    }
}
