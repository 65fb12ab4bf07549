//! Counts held against what is counted.

use std::collections::HashMap;
use std::sync::Arc;

use xlvs::ipvs::server::RealServer;
use xlvs::ipvs::snapshot::Tables;

/// Where what a server counts is not what the tables hold, over or not, and where these are not as long as they say.
pub fn miscounts(tables: &Tables) -> Vec<String> {
    let snapshot = tables.snapshot.load();
    let mut held = HashMap::new();
    for server in snapshot.services.iter().flat_map(|service| &service.servers) {
        held.insert(Arc::as_ptr(server), Held::of(server));
    }
    let (mut connections, mut templates) = (0, 0);
    tables.connections.for_each(|connection| {
        connections += 1;
        let server = &connection.server;
        let held = held.entry(Arc::as_ptr(server)).or_insert_with(|| Held::of(server));
        held.total += 1;
        held.active += u32::from(connection.is_active());
    });
    tables.templates.for_each(|template| {
        templates += 1;
        let server = &template.server;
        held.entry(Arc::as_ptr(server)).or_insert_with(|| Held::of(server)).persistent += 1;
    });
    let mut miscounts: Vec<_> = held.values().filter_map(Held::miscount).collect();
    let lengths = (tables.connections.len(), tables.templates.len());
    if lengths != (connections, templates) {
        miscounts.push(format!("{connections} connections and {templates} templates, not {lengths:?}"));
    }
    miscounts
}

/// What the tables hold of a server's.
struct Held {
    server: Arc<RealServer>,
    active: u32,
    total: u32,
    persistent: u32,
}

impl Held {
    fn of(server: &Arc<RealServer>) -> Self {
        Held { server: Arc::clone(server), active: 0, total: 0, persistent: 0 }
    }

    fn miscount(&self) -> Option<String> {
        let Held { server, active, total, persistent } = self;
        let counted = (server.active(), server.total(), server.persistent());
        let held = (*active, *total, *persistent);
        let name = format!("{} of {}", server.id(), server.service());
        (counted != held)
            .then(|| format!("{name} counts {counted:?} (active, all, templates), the tables hold {held:?}"))
    }
}
