//! Writes the corpora that fuzzing starts from: `seeds DIRECTORY` makes one directory a target in it. They are the
//! scenarios of `tests/ipvs`, packet by packet as they go into the engine here, and the files of `tests/lvscf`.

// Instrumented code needs libFuzzer, also here.
use libfuzzer_sys as _;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xlvs::director::protocol::Request;
use xlvs::ipvs::edit::ServiceId;
use xlvs::ipvs::replica::{PARTS, part};
use xlvs::net::time::Instant;

use xlvs_fuzz::record::{Record, write};
use xlvs_fuzz::support::decode::decode;
use xlvs_fuzz::support::device::{CommandOutput, Departure, Device, Side};
use xlvs_fuzz::support::engine::Router;
use xlvs_fuzz::support::{player, scenario};
use xlvs_fuzz::{fragments, frames, ftp_payload, icmp_quotes, replica, sync_messages};

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let corpora = Corpora { directory: PathBuf::from(directory) };
    let plays = scenario::own();
    for play in &plays {
        let mut recorder =
            Recorder { device: Router::among(play.scenario.neighbours()), records: Vec::new() };
        player::play(&play.scenario, &mut recorder);
        corpora.of_scenario(&play.scenario.name, &recorder.records)?;
        corpora.replica(&play.scenario.name, &recorder.device)?;
    }
    corpora.icmp_quotes()?;
    corpora.ftp_payload()?;
    corpora.files()?;
    corpora.control_json()
}

/// Hands everything on to a device and writes it down.
struct Recorder {
    device: Router,
    records: Vec<Record>,
}

impl Recorder {
    fn note(&mut self, tag: u8, content: &[u8]) {
        self.records.push(Record { tag, content: content.to_vec() });
    }
}

impl Device for Recorder {
    fn run(&mut self, command: &str) -> CommandOutput {
        self.note(frames::COMMAND, command.as_bytes());
        self.device.run(command)
    }

    fn deliver(&mut self, side: Side, packet: &[u8]) -> Vec<Departure> {
        let tag = if side == Side::Client { frames::FROM_CLIENT } else { frames::FROM_SERVER };
        self.note(tag, packet);
        self.device.deliver(side, packet)
    }

    fn now(&self) -> Duration {
        self.device.now()
    }

    fn advance(&mut self, by: Duration) -> Vec<Departure> {
        let tenths = u16::try_from(by.as_millis() / 100).unwrap_or(u16::MAX);
        self.note(frames::PAUSE, &tenths.to_le_bytes());
        self.device.advance(by)
    }

    fn dump(&mut self, sections: &[String]) -> String {
        self.device.dump(sections)
    }
}

struct Corpora {
    directory: PathBuf,
}

impl Corpora {
    fn put(&self, target: &str, name: &str, input: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), input)
    }

    fn of_scenario(&self, name: &str, records: &[Record]) -> io::Result<()> {
        self.put("frames", name, &write(records))?;
        let packets: Vec<&Record> =
            records.iter().filter(|record| record.tag <= frames::FROM_SERVER).collect();
        let pieces: Vec<Record> = packets.iter().flat_map(|packet| pieces(packet)).collect();
        self.put("fragments", name, &write(&pieces))?;
        let errors: Vec<Record> = packets.iter().filter_map(|packet| error(packet)).collect();
        if !errors.is_empty() {
            self.put("icmp_quotes", name, &write(&errors))?;
        }
        let speech: Vec<Record> = packets.iter().filter_map(|packet| speech(packet)).collect();
        if !speech.is_empty() {
            self.put("ftp_payload", name, &write(&speech))?;
        }
        let messages: Vec<Record> = packets.iter().filter_map(|packet| message(packet)).collect();
        if !messages.is_empty() {
            self.put("sync_messages", name, &write(&messages))?;
        }
        let rules: Vec<&str> = records
            .iter()
            .filter(|record| record.tag == frames::COMMAND)
            .filter_map(|record| std::str::from_utf8(&record.content).ok()?.split_once("-t mangle "))
            .map(|(_, rule)| rule)
            .collect();
        if !rules.is_empty() {
            let saved = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{}\nCOMMIT\n", rules.join("\n"));
            self.put("iptables_save", name, saved.as_bytes())?;
        }
        Ok(())
    }

    /// Quotations of the connections that the target opens.
    fn icmp_quotes(&self) -> io::Result<()> {
        let error =
            |tag, kind, quote: &[u8]| Record { tag, content: [&[kind, 3, 0, 0, 0, 0], quote].concat() };
        for (number, packet) in icmp_quotes::openings_at_servers().iter().enumerate() {
            let (tag, kind) = if packet[0] >> 4 == 6 { (icmp_quotes::V6, 1) } else { (0, 3) };
            let input = write(&[error(tag | icmp_quotes::FROM_SERVER, kind, packet)]);
            self.put("icmp_quotes", &format!("opening-{number}"), &input)?;
        }
        Ok(())
    }

    fn ftp_payload(&self) -> io::Result<()> {
        let client = [
            "PASV\r\n",
            "PORT 192,0,2,10,12,34\r\n",
            "EPSV\r\n",
            "EPRT |1|192.0.2.10|3106|\r\n",
            "EPRT |2|2001:db8::10|3106|\r\n",
        ];
        let server = [
            "227 Entering Passive Mode (10,8,8,33,12,34).\r\n",
            "229 Entering Extended Passive Mode (|||3106|)\r\n",
        ];
        let said = |tag, texts: &[&str]| -> Vec<Record> {
            texts.iter().map(|text| Record { tag, content: text.as_bytes().to_vec() }).collect()
        };
        for (name, family) in [("v4", 0), ("v6", ftp_payload::V6)] {
            let both = [said(family, &client), said(family | ftp_payload::FROM_SERVER, &server)].concat();
            self.put("ftp_payload", name, &write(&both))?;
        }
        Ok(())
    }

    /// What a router knows after a scenario.
    fn replica(&self, name: &str, router: &Router) -> io::Result<()> {
        let mut content = Vec::new();
        for number in 0..PARTS {
            let now = Instant::START + router.now();
            part(router.tables(), number, now).iter().for_each(|record| record.put(&mut content));
        }
        if content.is_empty() {
            return Ok(());
        }
        self.put("replica", name, &write(&[Record { tag: replica::RECORDS, content }]))
    }

    /// The files that tests read, and those that are shipped.
    fn files(&self) -> io::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        self.put("lvs_cf", "shipped", &fs::read(root.join("config/lvs.cf"))?)?;
        self.put("lvs_cf", "health", &fs::read(root.join("config/health-checks.cf"))?)?;
        self.put("iptables_save", "shipped", &fs::read(root.join("config/iptables"))?)?;
        for entry in fs::read_dir(root.join("tests/lvscf"))? {
            let path = entry?.path();
            if let Some(name) =
                path.file_stem().filter(|_| path.extension().is_some_and(|ending| ending == "cf"))
            {
                self.put("lvs_cf", &name.to_string_lossy(), &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    fn control_json(&self) -> io::Result<()> {
        let id: ServiceId = serde_json::from_value(serde_json::json!(
            {"address": {"protocol": 6, "address": "10.10.1.30", "port": 80}}
        ))?;
        let spec = serde_json::json!({"id": id, "scheduler": "mh", "flags": {"flag1": true, "flag2": false, "flag3": false},
            "one_packet": false, "persistence": {"timeout": 300, "mask": {"v4": u32::MAX}}, "engine": null});
        let server = serde_json::json!({"id": {"address": "10.8.8.33", "port": 80}, "forward": "masquerade", "weight": 1,
            "upper_threshold": 0, "lower_threshold": 0});
        let requests = [
            serde_json::json!({"edit": {"add_service": spec}}),
            serde_json::json!({"edit": {"add_server": [id, server]}}),
            serde_json::json!({"edit": {"edit_server": [id, server]}}),
            serde_json::json!("list_services"),
            serde_json::json!({ "list_connections": { "place": 0 } }),
            serde_json::json!("list_daemons"),
            serde_json::json!("get_totals"),
            serde_json::json!("diff"),
            serde_json::json!({ "edit_all": ["flush", { "stop_daemon": "master" }] }),
            serde_json::json!({ "edit": { "start_daemon": {
                "role": "backup", "interface": "eth0", "sync_id": 1, "max_len": 0, "group": null, "port": 0, "ttl": 0
            } } }),
            serde_json::json!({"sysctl": {"name": "expire_nodest_conn", "value": "1"}}),
            serde_json::json!({"edit": {"delete_server": [id, server["id"]]}}),
            serde_json::json!({"edit": {"zero": null}}),
            serde_json::json!({"edit": {"set_timeouts": {"tcp": 10, "tcp_fin": 5, "udp": 7}}}),
            serde_json::json!({"list_service": id}),
            serde_json::json!("get_timeouts"),
            serde_json::json!("status"),
            serde_json::json!({ "override": { "server": "10.8.8.33", "virtual_server": null, "to": "down" } }),
            serde_json::json!({ "events": { "after": 0, "wait": false } }),
            serde_json::json!({"drain": {"service": id, "server": server["id"], "deadline": 60}}),
            serde_json::json!({"drain_server": {"server": "10.8.8.33", "service": id, "deadline": null}}),
            serde_json::json!("list_drains"),
            serde_json::json!({"undo_drain": {"server": "10.8.8.33:80"}}),
            serde_json::json!({"plan": {"lvs": {"name": "new.cf", "text": "primary = 10.10.1.1\n"}}}),
            serde_json::json!({"apply": {"files": {"lvs": {"name": "new.cf", "text": ""}}, "confirm": 60, "install": false}}),
            serde_json::json!("confirm"),
            serde_json::json!("abort"),
            serde_json::json!({"edit": "flush"}),
        ];
        for request in &requests {
            serde_json::from_value::<Request>(request.clone())?;
        }
        let lines: Vec<String> = requests.iter().map(ToString::to_string).collect();
        self.put("control_json", "all", lines.join("\n").as_bytes())
    }
}

/// A packet's payload in fragments of 16 bytes.
fn pieces(packet: &Record) -> Vec<Record> {
    let v6 = packet.content.first().is_some_and(|first| first >> 4 == 6);
    let (header, protocol) = if v6 { (40, 6) } else { (20, 9) };
    let udp = packet.content.get(protocol) == Some(&17);
    let tag =
        packet.tag * fragments::FROM_SERVER + u8::from(v6) * fragments::V6 + u8::from(udp) * fragments::UDP;
    let payload = packet.content.get(header..).unwrap_or_default();
    let count = payload.len().div_ceil(16);
    let piece = |(number, piece): (usize, &[u8])| {
        let more = u8::from(number + 1 < count) * fragments::MORE;
        let offset = (2 * number as u16).to_le_bytes();
        Record { tag: tag | more, content: [&[7, offset[0], offset[1]], piece].concat() }
    };
    payload.chunks(16).enumerate().map(piece).collect()
}

/// An ICMP error's type, code, second word and quotation.
fn error(packet: &Record) -> Option<Record> {
    let bytes = &packet.content;
    let (tag, at) = match (bytes.first()? >> 4, bytes.get(9)?, bytes.get(6)?) {
        (4, 1, _) => (0, 20),
        (6, _, 58) => (icmp_quotes::V6, 40),
        _ => return None,
    };
    let message = bytes.get(at..)?;
    let content = [message.get(..2)?, message.get(4..)?].concat();
    Some(Record { tag: tag | packet.tag * icmp_quotes::FROM_SERVER, content })
}

/// What a packet of an FTP control connection says.
fn speech(packet: &Record) -> Option<Record> {
    let decoded = decode(&packet.content);
    let header = decoded.packet()?;
    let (source, destination) = header.ports?;
    let family = if header.source.is_ipv6() { ftp_payload::V6 } else { 0 };
    let control = (source == 21 || destination == 21) && !header.payload.is_empty();
    control.then(|| Record {
        tag: family | packet.tag * ftp_payload::FROM_SERVER,
        content: header.payload.clone(),
    })
}

/// The message of the connection synchronisation that a packet carries.
fn message(packet: &Record) -> Option<Record> {
    let decoded = decode(&packet.content);
    let header = decoded.packet().filter(|header| header.destination.is_multicast())?;
    Some(Record { tag: sync_messages::MESSAGE, content: header.payload.clone() })
}
