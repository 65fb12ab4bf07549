//! The first packet of a connection: mark or address → service → template or scheduler (ipvs.md sections 2.3, 2.4 and 4.2).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Burst, Datapath, Ending, Passage};
use crate::ipvs::connection::Connection;
use crate::ipvs::edit::{Persistence, ServerId};
use crate::ipvs::helper::ftp::{CONTROL_PORT, DATA_PORT};
use crate::ipvs::mark::MarkPacket;
use crate::ipvs::persistence::{PersistenceTemplate, TemplateKey};
use crate::ipvs::protocol::Direction;
use crate::ipvs::scheduler::Arrival;
use crate::ipvs::service::VirtualService;
use crate::ipvs::snapshot::Snapshot;
use crate::ipvs::sysctl::Sysctls;
use crate::ipvs::timer::Fate;
use crate::ipvs::verdict::{DropReason, Verdict};
use crate::net::addr::Protocol;
use crate::net::flow::FlowKey;
use crate::net::icmp::IcmpError;
use crate::net::parse::{Packet, Quote, Transport};
use crate::net::rewrite;
use crate::net::route::RouteTable;

/// The kernel's initial timeout of a connection.
const NEW_CONNECTION_TIME: Duration = Duration::from_secs(3);

impl Datapath {
    pub(super) fn open(&mut self, passage: &mut Passage<'_, '_>, flow: &FlowKey) -> Verdict {
        let burst = passage.burst;
        let Snapshot { sysctls, routes, .. } = burst.snapshot;
        if is_stray_reply(passage, flow)
            && let Some(own) = routes.port_address(passage.frame.port(), flow.source)
        {
            return self.refuse_stray(own, passage);
        }
        if !may_open(&passage.packet, sysctls)
            || !routes.is_local(flow.destination)
            || is_martian(flow.source, routes)
        {
            return Verdict::Pass;
        }
        let Some(service) = service_of(passage, flow) else { return Verdict::Pass };
        if self.tables.drop_counters.drops_packet(burst.snapshot.defence) {
            return Verdict::Drop(DropReason::Defence);
        }
        if flow.source_port == DATA_PORT {
            return Verdict::Pass;
        }
        match self.schedule(burst, service, &Arrival::new(burst, service, flow, flow.destination)) {
            Some(connection) if is_one_packet(service, flow) => {
                let verdict = self.forward_one_packet(passage, &connection);
                if let Some(template) = &connection.template {
                    template.count_packet();
                }
                connection.unbind();
                verdict
            }
            Some(connection) => {
                self.tables.connections.insert(&connection);
                self.forward_request(passage, &connection)
            }
            None if is_ftp_data_for(service, flow) => Verdict::Pass,
            None => self.answer(passage, IcmpError::PortUnreachable, DropReason::NoDestination),
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
        match self.schedule(burst, service, &Arrival::new(burst, service, &flow, flow.source)) {
            Some(connection) if is_one_packet(service, &flow) => {
                let verdict = self.forward_error(passage, quote, &connection, Direction::In);
                connection.unbind();
                verdict
            }
            Some(connection) => {
                self.tables.connections.insert(&connection);
                self.wheel.file(Ending::Connection(Arc::clone(&connection)));
                self.forward_error(passage, quote, &connection, Direction::In)
            }
            None if is_ftp_data_for(service, &flow) => Verdict::Pass,
            None => Verdict::Drop(DropReason::NoDestination),
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

    /// A new connection for the flow, or `None` if no server may take it.
    fn schedule(
        &mut self,
        burst: &Burst<'_>,
        service: &VirtualService,
        arrival: &Arrival<'_>,
    ) -> Option<Arc<Connection>> {
        let flow = arrival.flow;
        match &service.spec.persistence {
            Some(persistence) => {
                let template = self.template(service, persistence, arrival)?;
                let server_address = persistent_address(service, template.server.id(), flow);
                let server = Arc::clone(&template.server);
                Some(self.connect(burst, Connection::new(flow, server, server_address, Some(template))))
            }
            None if service.port().is_some_and(|port| port != flow.destination_port) => None,
            None => {
                let server = service.scheduler.schedule(&service.servers, arrival)?;
                let server_address = address_for(server.id(), flow);
                Some(self.connect(burst, Connection::new(flow, server, server_address, None)))
            }
        }
    }

    /// Counts a new connection. Its first packet gives it the timeout of a state; until then it must not look as if its time
    /// were up to another worker.
    fn connect(&self, burst: &Burst<'_>, mut connection: Connection) -> Arc<Connection> {
        if super::ftp::reads(burst, &connection) {
            connection.ftp = Some(Box::default());
        }
        connection.life.set_deadline(burst.now + NEW_CONNECTION_TIME);
        let connection = Arc::new(connection);
        connection.server.count(self.worker, |cell| cell.add_connection());
        self.tables.total.cell(self.worker).add_connection();
        connection
    }

    /// The client's template, refreshed; a new one if there is none that counts.
    fn template(
        &mut self,
        service: &VirtualService,
        persistence: &Persistence,
        arrival: &Arrival<'_>,
    ) -> Option<Arc<PersistenceTemplate>> {
        let key = TemplateKey::new(&service.spec.id, persistence, arrival.flow);
        let template = match self.valid_template(arrival, &key) {
            Some(template) => template,
            None => {
                let server = service.scheduler.schedule(&service.servers, arrival)?;
                let port = if key.virtual_address.port() == 0 { 0 } else { server.id().port };
                let template = PersistenceTemplate::new(key, server, port, persistence.timeout);
                let template = Arc::new(template.of_one_packet_service(service.spec.one_packet));
                self.tables.templates.insert(Arc::clone(&template));
                template
            }
        };
        template.refresh(arrival.now);
        if template.life.needs_filing() {
            self.wheel.file(Ending::Template(Arc::clone(&template)));
        }
        Some(template)
    }

    fn valid_template(&self, arrival: &Arrival<'_>, key: &TemplateKey) -> Option<Arc<PersistenceTemplate>> {
        let templates = &self.tables.templates;
        let template = templates.find(key)?;
        while template.life.is_over(arrival.now) {
            if templates.expire(&template) == Fate::Gone {
                return None;
            }
        }
        if template.is_valid(arrival.sysctls.expire_quiescent_template != 0) {
            return Some(template);
        }
        templates.retire(&template);
        None
    }
}

/// One-packet scheduling: the connection lives for this packet only and nobody finds it, so that answers leave as they are
/// (golden `udp-ops`). Under a mark it concerns UDP alone.
fn is_one_packet(service: &VirtualService, flow: &FlowKey) -> bool {
    service.spec.one_packet && flow.protocol == Protocol::UDP
}

/// An FTP service is also asked about the data connections of its clients; those it has no server for are not its own.
fn is_ftp_data_for(service: &VirtualService, flow: &FlowKey) -> bool {
    service.port() == Some(CONTROL_PORT) && flow.destination_port != CONTROL_PORT
}

/// Whether `nat_icmp_send` tells a real server that nobody awaits its packet (ipvs.md section 2.7).
fn is_stray_reply(passage: &Passage<'_, '_>, flow: &FlowKey) -> bool {
    let Snapshot { sysctls, services, .. } = passage.burst.snapshot;
    let reset = matches!(passage.packet.transport, Transport::Tcp { flags, .. } if flags.rst);
    sysctls.nat_icmp_send != 0 && !reset && services.has_server(flow.protocol, flow.source, flow.source_port)
}

/// Whether a packet without a connection may create one (ipvs.md section 2.3).
fn may_open(packet: &Packet, sysctls: &Sysctls) -> bool {
    match packet.transport {
        Transport::Tcp { flags, .. } => !flags.rst && (flags.syn || sysctls.sloppy_tcp != 0),
        _ => true,
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
    fn new(burst: &Burst<'a>, service: &VirtualService, flow: &'a FlowKey, addressed: IpAddr) -> Self {
        let Burst { now, snapshot } = *burst;
        Arrival { flow, addressed, flags: service.spec.flags, sysctls: &snapshot.sysctls, now }
    }
}

/// The service of a flow, by the mark of the packet that came, which may be an ICMP error about it.
fn service_of<'a>(passage: &Passage<'a, '_>, flow: &FlowKey) -> Option<&'a Arc<VirtualService>> {
    let snapshot = passage.burst.snapshot;
    let Packet { source, destination, protocol, .. } = passage.packet;
    let mark = if snapshot.services.has_marks() {
        let ports = passage.packet.flow().map(|flow| (flow.source_port, flow.destination_port));
        let interface = snapshot.interface(passage.frame.port());
        snapshot.marks.mark(&MarkPacket { source, destination, protocol, ports, interface })
    } else {
        0
    };
    snapshot.services.find(mark, flow.protocol, flow.destination, flow.destination_port)
}

/// The server's own port, or the packet's if it has none.
fn address_for(server: ServerId, flow: &FlowKey) -> SocketAddr {
    let port = if server.port == 0 { flow.destination_port } else { server.port };
    SocketAddr::new(server.address, port)
}

/// Under persistence the server's port counts only for the service's own port: with a mark or any port the packet's stays.
fn persistent_address(service: &VirtualService, server: ServerId, flow: &FlowKey) -> SocketAddr {
    if service.port() == Some(flow.destination_port) {
        address_for(server, flow)
    } else {
        SocketAddr::new(server.address, flow.destination_port)
    }
}
