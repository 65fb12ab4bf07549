//! What a client and a server of FTP may say to each other over a control connection, in segments of any size.

use std::net::IpAddr;

use crate::record::{self, Record};
use crate::router::Fuzzed;
use crate::support::decode::decode;
use crate::support::device::Side;
use crate::support::packet::{self, Hex, PacketSpec};

const SERVICES: [&str; 4] = [
    "ipvsadm -A -t 10.10.1.30:21 -s rr -p 300",
    "ipvsadm -a -t 10.10.1.30:21 -r 10.8.8.33:21 -m",
    "ipvsadm -A -t [fd00:10::30]:21 -s rr -p 300",
    "ipvsadm -a -t [fd00:10::30]:21 -r [fd00:8::33]:21 -m",
];

/// Bits of a record's tag.
pub const FROM_SERVER: u8 = 1;
/// IPv6.
pub const V6: u8 = 2;
/// The segment is sent a second time.
const AGAIN: u8 = 4;
/// It leaves a hole of so many bytes times 16 in the sequence numbers.
const HOLE: u8 = 0xf0;

/// One end's view of a connection.
struct Speaker {
    side: Side,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    seq: u32,
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn speakers(client: &str, target: &str, server: &str) -> [Speaker; 2] {
    let (client, target, server) = ((address(client), 1000), (address(target), 21), (address(server), 21));
    [
        Speaker { side: Side::Client, source: client, destination: target, seq: u32::MAX - 40 },
        Speaker { side: Side::Server, source: server, destination: client, seq: 5000 },
    ]
}

impl Speaker {
    /// What a segment becomes must have good checksums, whatever was done to its payload.
    fn say(&self, router: &mut Fuzzed, flags: &str, payload: &[u8]) {
        let name = "tcp";
        let mut spec = PacketSpec::new(self.source.0, self.destination.0, name);
        (spec.sport, spec.dport) = (self.source.1, self.destination.1);
        (spec.flags, spec.seq, spec.ack) = (flags.into(), self.seq, 1);
        spec.hex = Some(Hex(payload.to_vec()));
        let sent = router.packet(self.side, &packet::build(&spec, None)[0]);
        if let Some((_, packet)) = sent {
            let decoded = decode(&packet);
            assert!(decoded.packet().is_some(), "not a packet any more: {packet:02x?}");
        }
    }
}

/// Plays an input: each record one segment.
pub fn run(data: &[u8]) {
    let mut router = Fuzzed::with(&SERVICES);
    let mut connections = [
        speakers("192.0.2.10", "10.10.1.30", "10.8.8.33"),
        speakers("2001:db8::10", "fd00:10::30", "fd00:8::33"),
    ];
    for [client, server] in &mut connections {
        client.say(&mut router, "S", &[]);
        server.say(&mut router, "SA", &[]);
        client.seq = client.seq.wrapping_add(1);
        server.seq += 1;
        client.say(&mut router, "A", &[]);
    }
    for Record { tag, content } in record::read(data) {
        let content = &content[..content.len().min(1400)];
        let connection = &mut connections[usize::from(tag & V6 != 0)];
        let speaker = &mut connection[usize::from(tag & FROM_SERVER != 0)];
        speaker.seq = speaker.seq.wrapping_add(u32::from(tag & HOLE));
        speaker.say(&mut router, "PA", content);
        if tag & AGAIN != 0 {
            speaker.say(&mut router, "PA", content);
        }
        speaker.seq = speaker.seq.wrapping_add(content.len() as u32);
    }
    router.finish();
}
