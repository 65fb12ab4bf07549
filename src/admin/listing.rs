//! `-L`, `-S` and `xlvs proc`.

use std::io;

use super::options::Command;
use super::print::proc::{self, ProcFile};
use super::print::{self, Names};
use super::request::{Columns, Layout, Listing, Subject};
use super::{After, Failure, Session, Transport};
use crate::director::protocol::{Reply, Request};
use crate::ipvs::view::ConnectionView;

impl Session<'_> {
    pub(super) fn list(&mut self, listing: Listing) -> Result<After, Failure> {
        let Listing { subject, layout } = listing;
        let names = Names::new(layout.numeric, self.resolver);
        let request = match subject {
            Subject::Services => Request::ListServices,
            Subject::Service(id) => Request::ListService(id),
            Subject::Connections => return self.list_connections(layout, names),
            Subject::Timeouts => Request::GetTimeouts,
            Subject::Daemon => Request::ListDaemons,
        };
        let reply = self.transport.call(request)?;
        self.print(&text(subject, layout, names, reply)?)
    }

    fn list_connections(&mut self, layout: Layout, names: Names<'_>) -> Result<After, Failure> {
        if layout.json {
            return self.list_connections_as_json();
        }
        let engine_columns = layout.columns == Columns::PersistentConn;
        // With the first page: nothing is printed of what cannot be had.
        let mut titles = print::connection_titles(engine_columns);
        pages(self.transport, |connections| {
            let text = std::mem::take(&mut titles) + &print::connections(connections, engine_columns, names);
            self.stdout.write_all(text.as_bytes())
        })?;
        Ok(After::GoOn)
    }

    fn list_connections_as_json(&mut self) -> Result<After, Failure> {
        let mut separator = "{\"connections\":[\n";
        pages(self.transport, |connections| {
            for connection in connections {
                write!(self.stdout, "{separator}{}", print::json::connection(connection))?;
                separator = ",\n";
            }
            Ok(())
        })?;
        self.print(if separator.starts_with('{') { "{\"connections\":[]}\n" } else { "\n]}\n" })
    }

    pub(super) fn save(&mut self, numeric: bool) -> Result<After, Failure> {
        match self.transport.call(Request::ListServices)? {
            Reply::Services { services, .. } => {
                let text = print::save(&services, Names::new(numeric, self.resolver));
                self.print(&text)
            }
            reply => Err(Failure::of_reply(Command::Save, reply)),
        }
    }

    pub(super) fn proc(&mut self, file: ProcFile) -> Result<After, Failure> {
        let request = match file {
            ProcFile::IpVs => Request::ListServices,
            ProcFile::Stats | ProcFile::StatsPerCpu => Request::GetTotals,
            ProcFile::Connections | ProcFile::SyncedConnections => return self.proc_connections(file),
            ProcFile::Helpers => return self.print(&proc::helpers()),
        };
        let text = match (file, self.transport.call(request)?) {
            (ProcFile::StatsPerCpu, Reply::Totals(totals)) => proc::stats_per_worker(&totals),
            (_, Reply::Totals(totals)) => proc::stats(&totals),
            (_, Reply::Services { info, services }) => proc::services(info, &services),
            (_, reply) => return Err(Failure::of_reply(Command::List, reply)),
        };
        self.print(&text)
    }

    fn proc_connections(&mut self, file: ProcFile) -> Result<After, Failure> {
        let origin = file == ProcFile::SyncedConnections;
        let mut titles = proc::connection_titles(origin);
        pages(self.transport, |connections| {
            let text = std::mem::take(&mut titles) + &proc::connections(connections, origin);
            self.stdout.write_all(text.as_bytes())
        })?;
        Ok(After::GoOn)
    }
}

/// Shows all connections page by page, so that it does not matter how many there are.
fn pages(
    transport: &mut dyn Transport,
    mut show: impl FnMut(&[ConnectionView]) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut place = Some(0);
    while let Some(from) = place {
        match transport.call(Request::ListConnections { place: from })? {
            Reply::Connections { connections, next } => {
                show(&connections)?;
                place = next;
            }
            reply => return Err(Failure::of_reply(Command::List, reply)),
        }
    }
    Ok(())
}

fn text(subject: Subject, layout: Layout, names: Names, reply: Reply) -> Result<String, Failure> {
    Ok(match (subject, reply) {
        (Subject::Services | Subject::Service(_), Reply::Services { services, .. }) if layout.json => {
            print::json::services(&print::order::services(&services, layout.sorted))
        }
        (Subject::Services, Reply::Services { info, services }) => {
            print::banner(info) + &print::services(&services, layout, names)
        }
        (Subject::Service(_), Reply::Services { services, .. }) => print::services(&services, layout, names),
        (Subject::Timeouts, Reply::Timeouts(timeouts)) if layout.json => print::json::timeouts(timeouts),
        (Subject::Timeouts, Reply::Timeouts(timeouts)) => print::timeouts(timeouts),
        (Subject::Daemon, Reply::Daemons(daemons)) if layout.json => print::json::daemons(&daemons),
        (Subject::Daemon, Reply::Daemons(daemons)) => print::daemons(&daemons),
        (_, reply) => return Err(Failure::of_reply(Command::List, reply)),
    })
}
