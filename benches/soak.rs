//! Many connections for a long time: what they take in memory, and whether the books stay right. Time is virtual; the engine is
//! the real one. Ends with an error if a connection is lost or a count is wrong.

// Of what the rig offers, this needs but a part.
#[allow(dead_code)]
mod rig;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use xlvs::ipvs::datapath::{Datapath, Engine as _};
use xlvs::ipvs::snapshot::Tables;
use xlvs::net::addr::Family;
use xlvs::net::time::Instant;

const TICK: Duration = Duration::from_millis(25);
const TICKS: u32 = 40;
/// Seconds that a connection lives on after a reset.
const CLOSE_TIME: u32 = 10;
const RST: u8 = 0x04;
const KIB: f64 = 1024.0;

const HELP: &str = "\
Usage: cargo bench --bench soak -- [OPTION]...

  --connections N   connections that are held all the time [2000000]
  --churn N         connections that come and go a second besides [20000]
  --packets N       packets a second on the connections that are held [50000]
  --seconds N       how long, in virtual time [600]
  --ipv6            IPv6 instead of IPv4
";

struct Plan {
    connections: u32,
    churn: u32,
    packets: u32,
    seconds: u32,
    family: Family,
}

impl Plan {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let (connections, churn, packets, seconds) = (2_000_000, 20_000, 50_000, 600);
        let mut plan = Plan { connections, churn, packets, seconds, family: Family::V4 };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("connections") => plan.connections = parser.value()?.parse()?,
                Long("churn") => plan.churn = parser.value()?.parse()?,
                Long("packets") => plan.packets = parser.value()?.parse()?,
                Long("seconds") => plan.seconds = parser.value()?.parse()?,
                Long("ipv6") => plan.family = Family::V6,
                Long("bench") => {}
                Long("help") => {
                    print!("{HELP}");
                    std::process::exit(0);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(plan)
    }
}

/// The balancer and its clients.
struct Soak {
    plan: Plan,
    tables: Arc<Tables>,
    datapath: Datapath,
    buffers: rig::Buffers,
    now: Instant,
    /// Which server each held connection has.
    servers: Vec<u8>,
    /// The number of the next connection that comes and goes.
    next: u32,
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0u64);
    pages * 4096
}

impl Soak {
    fn new(plan: Plan) -> Self {
        let tables = rig::tables_of(plan.family, false);
        let datapath = Datapath::new(Arc::clone(&tables), 0, Instant::START);
        let (servers, next) = (vec![0; plan.connections as usize], plan.connections);
        Soak { plan, tables, datapath, buffers: rig::Buffers::default(), now: Instant::START, servers, next }
    }

    /// One segment of each of these connections; `seen` gets number and server.
    fn send(
        &mut self,
        flows: impl Iterator<Item = u32>,
        flags: u8,
        mut seen: impl FnMut(&mut [u8], u32, u8),
    ) {
        let mut flows = flows.peekable();
        while flows.peek().is_some() {
            let burst: Vec<u32> = flows.by_ref().take(rig::BURST).collect();
            let frames: Vec<_> =
                burst.iter().map(|flow| rig::tcp_of(self.plan.family, *flow, flags)).collect();
            self.buffers.send(&mut self.datapath, self.now, &frames);
            for (flow, frame) in burst.iter().zip(self.buffers.sent()) {
                seen(&mut self.servers, *flow, rig::server_of(frame));
            }
        }
    }

    fn open_all(&mut self) {
        let flows = self.plan.connections;
        self.send(0..flows, rig::SYN, |servers, flow, server| servers[flow as usize] = server);
        self.send(0..flows, rig::ACK, |_, _, _| {});
    }

    /// One second of traffic: held connections in turn, and others that are opened and reset.
    fn live(&mut self, second: u32) -> Result<(), String> {
        for tick in 0..TICKS {
            let Plan { connections, churn, packets, .. } = self.plan;
            let share = |total: u32| (total / TICKS).max(u32::from(total > 0));
            let first = (second * TICKS + tick).wrapping_mul(share(packets));
            let mut moved = 0;
            let held = (0..share(packets)).map(|offset| first.wrapping_add(offset) % connections.max(1));
            self.send(held, rig::ACK, |servers, flow, server| {
                moved += u32::from(servers[flow as usize] != server)
            });
            if moved > 0 {
                return Err(format!("second {second}: {moved} connections went to another server"));
            }
            let passing = self.next..self.next + share(churn);
            self.next = passing.end;
            for flags in [rig::SYN, rig::ACK, RST] {
                self.send(passing.clone(), flags, |_, _, _| {});
            }
            self.now = self.now + TICK;
            self.datapath.advance(self.now);
        }
        Ok(())
    }

    fn check(&self, second: u32) -> Result<(), String> {
        let Plan { connections, churn, .. } = self.plan;
        let snapshot = self.tables.snapshot.load();
        let servers = || snapshot.services.iter().flat_map(|service| &service.servers);
        let active: u32 = servers().map(|server| server.active()).sum();
        let total: u32 = servers().map(|server| server.total()).sum();
        let len = self.tables.connections.len();
        // Those that were reset in the last 10 s are closing; the timers may be two ticks late.
        let closing = (second.min(CLOSE_TIME) * churn, (second.min(CLOSE_TIME) * churn) + churn / 4);
        let inactive = total - active;
        let right = active == connections
            && u64::from(total) == len
            && (closing.0..=closing.1.max(closing.0)).contains(&inactive);
        if right {
            Ok(())
        } else {
            Err(format!("second {second}: {active} active and {inactive} closing, {len} in the table"))
        }
    }
}

fn run(plan: Plan) -> Result<(), String> {
    let empty = resident();
    let (connections, seconds) = (plan.connections, plan.seconds);
    let mut soak = Soak::new(plan);
    soak.open_all();
    let each = (resident() - empty - u64::from(connections)) as f64 / f64::from(connections.max(1));
    println!("{connections} connections: {each:.1} bytes of memory each");
    let mut settled = 0;
    for second in 1..=seconds {
        soak.live(second)?;
        soak.check(second)?;
        if second == seconds.min(30) {
            settled = resident();
        }
        if second % 30 == 0 {
            println!(
                "{second} s: {:.1} MiB resident, {} in the table",
                resident() as f64 / KIB / KIB,
                soak.tables.connections.len()
            );
        }
    }
    let mut moved = 0;
    soak.send(0..connections, rig::ACK, |servers, flow, server| {
        moved += u32::from(servers[flow as usize] != server)
    });
    soak.check(seconds)?;
    if moved > 0 {
        return Err(format!("in the end {moved} connections went to another server"));
    }
    let growth = (resident() as f64 / settled.max(1) as f64 - 1.0) * 100.0;
    println!("none lost, counts right; memory {growth:+.2} % since second {}", seconds.min(30));
    Ok(())
}

fn main() -> ExitCode {
    match Plan::parse().map_err(|error| format!("{error}\n{HELP}")).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
