//! Connections and templates that another process told of are put on a wheel, like those that packets make.

use super::Datapath;

/// Of each kind so many at once, so that packets need not wait for long.
const AT_ONCE: usize = 8192;

impl Datapath {
    /// Looks after some that nobody looks after yet.
    pub(super) fn file_installed(&mut self) {
        let replication = &self.tables.replication;
        for _ in 0..AT_ONCE {
            let Some(template) = replication.unfiled_template() else { break };
            self.template_wheel.file(template);
        }
        for _ in 0..AT_ONCE {
            let Some(connection) = replication.unfiled_connection() else { break };
            if !connection.is_removed() {
                self.wheel.file(connection);
            }
        }
    }
}
