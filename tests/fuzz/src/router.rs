//! The engine with its director and commands, and the laws that hold whatever it is given.

use std::sync::Arc;
use std::time::Duration;

use xlvs::admin::client::Transport as _;
use xlvs::config::lvs::LvsConfig;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::replica::{self, Origin, Record};
use xlvs::ipvs::verdict::Verdict;
use xlvs::ipvs::view::ServiceView;
use xlvs::net::time::Instant;

use crate::support::audit;
use crate::support::device::{Device as _, Side};
use crate::support::engine::Router;
use crate::support::ethernet;

/// Longest frame, as of a NIC with an MTU of 1500 and a VLAN tag.
const LONGEST_FRAME: usize = 1518;
/// How much time one input may let pass.
const TIME: Duration = Duration::from_secs(20_000);

/// A router under test.
pub struct Fuzzed {
    router: Router,
    time_left: Duration,
}

impl Fuzzed {
    /// Without services.
    pub fn new() -> Self {
        Fuzzed { router: Router::new(), time_left: TIME }
    }

    /// With what these commands set up.
    pub fn with(commands: &[&str]) -> Self {
        let mut fuzzed = Self::new();
        commands.iter().for_each(|command| fuzzed.run(command));
        fuzzed
    }

    /// A command line, understood or not.
    pub fn run(&mut self, command: &str) {
        self.router.run(command);
    }

    /// A request to the director.
    pub fn ask(&mut self, request: Request) -> Reply {
        self.router.call(request).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Lets time pass, as long as the input has some left.
    pub fn pass(&mut self, time: Duration) {
        let time = time.min(self.time_left);
        self.time_left -= time;
        self.recount();
        self.router.leap(time);
    }

    /// What the site's files say.
    pub fn configure(&mut self, lvs: LvsConfig) {
        self.router.configure(lvs, Arc::default());
    }

    /// A message for the backup daemon.
    pub fn message(&mut self, bytes: Vec<u8>) {
        self.router.synchronise(bytes);
        self.recount();
    }

    /// What the other router tells of connections, as far as it can be read. What is read is what is written.
    pub fn install(&mut self, mut bytes: &[u8]) {
        let snapshot = self.router.tables().snapshot.load_full();
        let now = Instant::START + self.router.now();
        while !bytes.is_empty() {
            if let Ok((record, _)) = Record::read(bytes) {
                let mut written = Vec::new();
                record.put(&mut written);
                assert_eq!(Record::read(&written), Ok((record.clone(), &[][..])));
                // What is refused is counted elsewhere.
                let _ = replica::install(self.router.tables(), &snapshot, Origin::Partner, &record, now);
                self.recount();
            }
            bytes = Record::skip(bytes).unwrap_or_default();
        }
    }

    /// An IP packet, or whatever it is, in an Ethernet frame. Returns the IP packet that leaves, if one does.
    pub fn packet(&mut self, side: Side, packet: &[u8]) -> Option<(Side, Vec<u8>)> {
        let version = packet.first().map_or(0, |first| first >> 4);
        let ether_type: [u8; 2] = if version == 6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut frame =
            [&ethernet::router_mac(side)[..], &ethernet::neighbour_mac(side), &ether_type, packet].concat();
        frame.truncate(LONGEST_FRAME);
        self.frame(side, &frame)
    }

    /// A frame.
    pub fn frame(&mut self, side: Side, frame: &[u8]) -> Option<(Side, Vec<u8>)> {
        let (verdict, after) = self.router.process(side, frame);
        self.router.take_made();
        match verdict {
            Verdict::Transmit(port) => {
                let packet = ethernet::packet(&after);
                let packet =
                    packet.unwrap_or_else(|| panic!("{verdict:?} of what is no IP packet: {after:02x?}"));
                let side = if port.0 == 0 { Side::Client } else { Side::Server };
                Some((side, packet.to_vec()))
            }
            Verdict::Pass => {
                assert_eq!(after.len(), frame.len(), "a frame that is passed keeps its length");
                None
            }
            Verdict::HandOver | Verdict::Drop(_) | Verdict::Hold => None,
        }
    }

    fn services(&mut self) -> Vec<ServiceView> {
        match self.ask(Request::ListServices) {
            Reply::Services { services, .. } => services,
            other => panic!("no list of services: {other:?}"),
        }
    }

    /// Servers count what the tables hold.
    fn recount(&self) {
        let miscounts = audit::miscounts(self.router.tables());
        assert!(miscounts.is_empty(), "{}", miscounts.join("\n"));
    }

    /// The end of an input: what servers count is in the table, and after a long time nothing is left of anything.
    pub fn finish(mut self) {
        self.recount();
        let books = self.router.settle();
        assert!(books.imbalance() == 0 && books.held >= 0, "frames are lost: {books:?}");
        // The longest timeout that can be set is beyond any test; sequences that set long ones are not waited for.
        let longest = self.router.connections().iter().map(|connection| connection.expires).max();
        if longest.is_none_or(|longest| longest > TIME.as_secs()) {
            return;
        }
        // A template may find its last connection alive, and looks again a minute later.
        self.router.leap(TIME);
        (0..2).for_each(|_| self.router.leap(Duration::from_secs(100)));
        assert_eq!(
            self.servers_count(),
            0,
            "servers still count connections when all have come to their end"
        );
        assert_eq!(self.router.connections(), [], "connections that never end");
    }

    fn servers_count(&mut self) -> u64 {
        let of_service = |service: &ServiceView| -> u64 {
            let servers = service.servers.iter();
            servers
                .map(|server| {
                    u64::from(server.active) + u64::from(server.inactive) + u64::from(server.persistent)
                })
                .sum()
        };
        self.services().iter().map(of_service).sum()
    }
}
