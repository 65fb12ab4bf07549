//! What the synchronisation makes of a connection, and what it remembers of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{
    ACTIVE, AWAITS_PORT, Connection, NO_OUTPUT, REMOVED, ROUND, ROUND_SHIFT, STATE, SYNCED, TOLD, TOLD_SHIFT,
};
use crate::ipvs::edit::Forward;
use crate::ipvs::protocol::State;
use crate::ipvs::server::RealServer;
use crate::ipvs::sync::{Announced, Standing, flags};
use crate::net::flow::FlowKey;

impl Connection {
    /// What a message tells of: a connection of `flow` to `server_address`, in this state, active or not; `told` are the
    /// message's flags. A server of a service brings its own forwarding method.
    pub fn synced(
        flow: &FlowKey,
        server: Arc<RealServer>,
        server_address: SocketAddr,
        state: State,
        told: u32,
    ) -> Self {
        let connection = Connection::new(flow, server, server_address, None);
        let mut status = SYNCED | u32::from(state.number());
        let direct = match connection.server.is_stranger() {
            true => told & flags::NO_OUTPUT != 0,
            false => connection.forward != Forward::Masquerade,
        };
        if direct {
            status |= NO_OUTPUT;
        }
        if told & flags::NO_CLIENT_PORT != 0 {
            status |= AWAITS_PORT;
        }
        connection.status.store(status, Ordering::Relaxed);
        connection.set_active(told & flags::INACTIVE == 0);
        connection
    }

    /// The same connection of another flow or to another server object; of its status what is in `kept`.
    pub(super) fn rebound(&self, flow: &FlowKey, server: Arc<RealServer>, kept: u32) -> Self {
        let connection = Connection::new(flow, server, self.server_address(), None);
        let status = self.status.load(Ordering::Relaxed) & kept & !(ACTIVE | REMOVED | NO_OUTPUT);
        let own = connection.status.load(Ordering::Relaxed) & NO_OUTPUT;
        connection.status.store(status | own, Ordering::Relaxed);
        connection.set_active(self.is_active());
        connection.timeout.store(self.timeout(), Ordering::Relaxed);
        connection.packets_in.store(self.packets_in(), Ordering::Relaxed);
        connection.life.set_deadline(self.life.deadline());
        connection
    }

    /// The same connection, bound to the server that was not known when it was made.
    pub fn bound_to(&self, server: Arc<RealServer>) -> Self {
        self.rebound(&self.request_key(), server, !0)
    }

    /// Whether a message told of it.
    pub fn is_synced(&self) -> bool {
        self.status.load(Ordering::Relaxed) & SYNCED != 0
    }

    /// Takes over what a message says of a connection that is there.
    pub fn update(&self, state: State, active: bool, timeout: u32, packets: u32) {
        let set =
            |status: u32| Some((status & !(STATE | TOLD)) | told_bits(state) | u32::from(state.number()));
        let _ = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
        self.set_active(active);
        self.set_timeout(timeout);
        self.packets_in.store(packets, Ordering::Relaxed);
    }

    /// Makes it count as active at its server, or not.
    pub(super) fn set_active(&self, active: bool) {
        let bits = if active { ACTIVE } else { 0 };
        let set = |status: u32| (status & REMOVED == 0).then_some((status & !ACTIVE) | bits);
        let before = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
        if before.is_ok_and(|before| (before ^ bits) & ACTIVE != 0) {
            self.server.count_active(active);
        }
    }

    /// How things stand with it for a master.
    pub fn standing(&self) -> Standing {
        Standing {
            state: Some(self.state()),
            told_state: ((self.status.load(Ordering::Relaxed) & TOLD) >> TOLD_SHIFT) as u8,
            packets: self.packets_in(),
            timeout: self.timeout(),
            told: Announced(self.rare.get().map_or(0, |rare| rare.told.load(Ordering::Relaxed))),
            persistent: self.template.is_some()
                || self.parent().is_some_and(|parent| parent.template.is_some()),
        }
    }

    /// Remembers that it has been told of as it is; when, only if `told` is given.
    pub fn set_told(&self, state: State, round: u8, told: Option<Announced>) {
        let bits = told_bits(state) | u32::from(round) << ROUND_SHIFT;
        let set = |status: u32| Some((status & !(TOLD | ROUND)) | bits);
        let _ = self.status.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
        if let Some(told) = told {
            self.rare().told.store(told.0, Ordering::Relaxed);
        }
    }

    /// How often it had passed the threshold when it was last told of.
    pub fn told_round(&self) -> u8 {
        ((self.status.load(Ordering::Relaxed) & ROUND) >> ROUND_SHIFT) as u8
    }
}

fn told_bits(state: State) -> u32 {
    u32::from(state.number()) << TOLD_SHIFT & TOLD
}
