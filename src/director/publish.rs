//! Changes of the tables, as workers come to see them: snapshots, and what the XDP program is told.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Director, Effect};
use crate::ipvs::edit::{Edit, Errno, Refusal};
use crate::ipvs::steering::Reach;

impl Director {
    /// One edit of the tables, published at once, or with others.
    pub(super) fn edit(&mut self, edit: &Edit) -> Result<(), Errno> {
        let edit = &*self.edit_as_ordered(edit);
        if self.held {
            return self.services.apply(&mut self.draft, &self.network, edit);
        }
        self.suspend_shortcuts();
        let applied = self.services.apply(&mut self.draft, &self.network, edit);
        applied.inspect_err(|_| self.resume_shortcuts())?;
        self.store();
        self.steer_added(edit);
        self.switch_sync(edit);
        Ok(())
    }

    /// Several edits, all of them or none, published at once.
    pub(super) fn edit_all(&mut self, edits: &[Edit]) -> Result<(), Refusal> {
        self.suspend_shortcuts();
        let applied = self.services.apply_all(&mut self.draft, &self.network, edits);
        applied.inspect_err(|_| self.resume_shortcuts())?;
        self.publish();
        edits.iter().for_each(|edit| self.switch_sync(edit));
        Ok(())
    }

    /// Has the threads of a synchronisation daemon started or ended, if that is what was edited.
    pub(super) fn switch_sync(&mut self, edit: &Edit) {
        match edit {
            Edit::StartDaemon(daemon) => {
                let buffer = usize::try_from(self.draft.sysctls.sync_sock_size).unwrap_or(0);
                let running = self.draft.sync.get(daemon.role).cloned();
                self.effects.extend(running.map(|running| Effect::StartSync(running, buffer)));
            }
            Edit::StopDaemon(role) => self.effects.push(Effect::StopSync(*role)),
            _ => {}
        }
    }

    /// Makes changes that are published together.
    pub(super) fn together<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        self.suspend_shortcuts();
        self.held = true;
        let outcome = change(self);
        self.held = false;
        self.publish();
        outcome
    }

    pub(super) fn publish(&mut self) {
        self.store();
        self.steer();
    }

    /// The former snapshot is kept until no worker has it any more: freeing ten thousand services takes time that the workers'
    /// packets do not have.
    pub(super) fn store(&mut self) {
        self.suspend_shortcuts();
        self.draft.generation = self.draft.generation.wrapping_add(1);
        self.former.push(self.tables.snapshot.swap(Arc::new(self.draft.clone())));
        self.free_former();
    }

    /// Leaves all packets to the workers, until they see the next snapshot and lend flows anew: nothing goes on by what is
    /// about to change. What was done so far counts as done before.
    pub(super) fn suspend_shortcuts(&mut self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.begin(self.draft.generation.wrapping_add(1), &self.tables.total);
        }
    }

    /// Nothing has changed after all.
    pub(super) fn resume_shortcuts(&mut self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.resume(self.draft.generation);
        }
    }

    /// Has what lent flows did counted.
    pub(super) fn collect_shortcuts(&self) {
        if let Some(shortcuts) = self.tables.connections.shortcuts() {
            shortcuts.collect(&self.tables.total);
        }
    }

    pub(super) fn free_former(&mut self) {
        self.former.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Steers what the snapshot needs, and still what it no longer needs: connections may use that.
    pub(super) fn steer(&mut self) {
        let own = self.own_addresses();
        let wanted = Reach::of(&self.draft, &own);
        self.steered.extend(&wanted);
        self.give_steering(own);
    }

    /// The same after one edit: most need nothing that is not steered already, which is quickly found out however many services
    /// there are.
    pub(super) fn steer_added(&mut self, edit: &Edit) {
        let id = match edit {
            Edit::AddServer(id, _) | Edit::EditServer(id, _) => id,
            Edit::AddService(spec) => &spec.id,
            _ => return,
        };
        let Some(service) = self.draft.services.get(id) else { return };
        let own = self.own_addresses();
        let wanted = Reach::of_service(&self.draft, service, &own);
        if !self.steered.missing_from(&wanted).is_empty() {
            self.steered.extend(&wanted);
            self.give_steering(own);
        }
    }

    /// Steers what connections need that synchronisation has told of and whose servers are in no service.
    pub(super) fn steer_strangers(&mut self) {
        if self.tables.sync.has_met_stranger() {
            let reach = Reach::of_strangers(&self.tables.connections);
            self.steered.extend(&reach);
            self.give_steering(self.own_addresses());
        }
    }

    pub(super) fn give_steering(&mut self, own: Vec<IpAddr>) {
        let steering = self.steered.steering(&own);
        let steering = if self.active { steering } else { steering.of_inactive() };
        if steering != self.steering {
            self.steering = steering.clone();
            self.effects.push(Effect::Steer(steering));
        }
    }

    /// Those that it is about to get count, too: their packets are to find everything ready.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let present = self.network.addresses.iter().map(|address| address.address);
        let mut own: Vec<_> = present.chain(self.wanted_addresses()).collect();
        own.sort();
        own.dedup();
        own
    }
}
