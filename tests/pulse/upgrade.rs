//! An upgrade of one of the directors in the simulated world: another process goes on with its state and its connections.

use xlvs::pulse::wire::Wire;
use xlvs::pulse::{Pulse, Role, State};

use super::twin::Twin;
use super::world::World;

impl World {
    /// A director that is active or inactive, and not about to be something else, goes on in another process.
    pub(super) fn upgrade(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let state = process.pulse.report(local).state;
        if !matches!(state, State::Active | State::Inactive) {
            return;
        }
        self.boots += 1;
        let former = std::mem::replace(&mut process.boot, self.boots);
        let role = [Role::Primary, Role::Backup][node];
        let text = serde_json::to_string(&process.pulse).unwrap();
        let pulse: Pulse = serde_json::from_str(&text).unwrap();
        let (pulse, first) = pulse.go_on(self.law.settings(role));
        process.pulse = pulse;
        process.wire = Wire::new(role, self.law.key.as_ref(), self.boots);
        if let Some(twin) = &mut process.twin {
            let mut next = Twin::new(role, (self.now, local), self.boots, &self.law);
            next.known.records.clone_from(&twin.known.records);
            next.known.told.clone_from(&twin.known.told);
            next.goes_on(twin, (self.now, local), state == State::Active);
            **twin = next;
            self.clients.go_on(former, self.boots);
            self.calm.go_on(former, self.boots);
        }
        self.seen.note(match state {
            State::Active => "upgrade of the active router",
            _ => "upgrade of the standby",
        });
        self.carry_out(node, first);
        self.turn(node);
    }
}
