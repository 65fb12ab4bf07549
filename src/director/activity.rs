//! What an active director does and an inactive one does not.

use super::{Director, Effect, Level};
use crate::ipvs::edit::Edit;
use crate::ipvs::sync::{SyncDaemon, SyncRole};

impl Director {
    /// Table first, addresses second; the tables are filled already.
    pub(super) fn activate(&mut self) {
        self.active = true;
        self.publish();
        self.announce_all();
        self.keep_neighbours();
        self.start_sync();
    }

    /// The opposite order. Servers are still checked and connections stay, so that the next activation finds both.
    pub(super) fn deactivate(&mut self) {
        self.active = false;
        self.start_sync();
        self.take_addresses_away();
        self.publish();
    }

    /// Those that only leave do so, too.
    pub(super) fn take_addresses_away(&mut self) {
        let addresses = self.all_addresses();
        self.effects.extend(addresses.into_iter().map(Effect::RemoveAddress));
        self.parting.addresses.clear();
        self.up.clear();
    }

    /// Puts up what is missing, and tells the neighbours of all.
    pub(super) fn announce_all(&mut self) {
        if self.active {
            self.effects.extend(self.wanted.addresses.iter().cloned().map(Effect::AddAddress));
        }
    }

    /// Another configuration of the synchronisation, or none any more.
    pub(super) fn change_sync(&mut self, former: Option<&(String, u8)>) {
        if former == self.wanted.sync.as_ref() {
            return;
        }
        self.stop_sync();
        self.start_sync();
    }

    /// Only what lvs.cf asks for changes its role: a daemon that was started by hand keeps it.
    fn start_sync(&mut self) {
        if let Some(wanted) = self.wanted.sync.clone() {
            self.stop_sync();
            self.start_sync_as(&wanted);
        }
    }

    fn stop_sync(&mut self) {
        for role in [SyncRole::Backup, SyncRole::Master] {
            // It need not run.
            let _ = self.edit(&Edit::StopDaemon(role));
        }
    }

    fn start_sync_as(&mut self, (interface, sync_id): &(String, u8)) {
        let daemon = SyncDaemon {
            role: if self.active { SyncRole::Master } else { SyncRole::Backup },
            interface: interface.clone(),
            sync_id: *sync_id,
            max_len: 0,
            group: None,
            port: 0,
            ttl: 0,
        };
        if let Err(errno) = self.edit(&Edit::StartDaemon(daemon)) {
            self.log(Level::Error, format!("syncdaemon on {interface} is refused: {errno}"));
        }
    }
}
