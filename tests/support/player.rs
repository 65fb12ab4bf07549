//! Plays a scenario against a device, by the device's clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::conversation::{Conversation, Turn};
use crate::support::decode::{Decoded, decode};
use crate::support::device::{Departure, Device, Side};
use crate::support::dump::Dump;
use crate::support::ethernet::Neighbours;
use crate::support::packet::PacketSpec;
use crate::support::scenario::{Action, CommandRecord, Scenario, Step, StepRecord, Wish};
use crate::support::sync;
use crate::support::text::{Identities, endpoint, line};

/// Plays all steps against a fresh device. Panics if the scenario is wrong.
pub fn play(scenario: &Scenario, device: &mut dyn Device) -> Vec<StepRecord> {
    let mut player = Player {
        start: device.now(),
        device,
        neighbours: scenario.neighbours(),
        conversation: Conversation::default(),
        last_packets: HashMap::new(),
        synced: Vec::new(),
    };
    scenario.steps.iter().enumerate().map(|(i, step)| player.step(i, step)).collect()
}

struct Player<'a> {
    device: &'a mut dyn Device,
    neighbours: Neighbours,
    conversation: Conversation,
    /// The device's time when the first step began.
    start: Duration,
    /// Client's `address:port` → when the last packet of its flow went in, from either side.
    last_packets: HashMap<String, Duration>,
    /// Entries of sync messages that have come out and were not asked for yet.
    synced: Vec<String>,
}

impl Player<'_> {
    fn step(&mut self, i: usize, step: &Step) -> StepRecord {
        let mut record = StepRecord {
            i,
            t: Some(self.elapsed().as_secs_f64()),
            label: step.label.clone(),
            ..StepRecord::default()
        };
        match &step.action {
            Action::Run(lines) => record.run = lines.as_slice().iter().map(|line| self.run(line)).collect(),
            Action::Send(wishes) => self.send(&mut record, wishes.as_slice()),
            Action::Wait(seconds) | Action::Sync(seconds) => {
                let out = self.device.advance(Duration::from_secs_f64(*seconds));
                let mut out = self.take_messages(out);
                out.sort_by_key(|left| left.side);
                let identities = Identities::default();
                record.out = out.iter().map(|left| shown(left.side, &left.packet, &identities)).collect();
                record.wait = Some(*seconds);
                if let Action::Sync(_) = &step.action {
                    record.out.append(&mut self.synced);
                }
            }
            Action::Dump(sections) => {
                let asked = self.elapsed();
                let mut dump = Dump::parse(&self.device.dump(sections), sections);
                dump.reckon_timeouts(asked, &self.last_packets);
                record.lag = Some((self.elapsed() - asked).as_secs_f64());
                record.dump = Some(dump);
            }
        }
        record
    }

    /// What is not a sync message; when these are sent is a matter of timing.
    fn take_messages(&mut self, out: Vec<Departure>) -> Vec<Departure> {
        let mut others = Vec::new();
        for left in out {
            match decode(&left.packet).packet().and_then(sync::lines) {
                Some(lines) => self.synced.extend(lines.iter().map(|line| format!("{} {line}", left.side))),
                None => others.push(left),
            }
        }
        others
    }

    fn elapsed(&self) -> Duration {
        self.device.now() - self.start
    }

    fn run(&mut self, command: &str) -> CommandRecord {
        let output = self.device.run(command);
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        CommandRecord {
            cmd: command.to_owned(),
            rc: output.code,
            out: lines(&output.stdout),
            err: lines(&output.stderr),
        }
    }

    fn send(&mut self, record: &mut StepRecord, wishes: &[Wish]) {
        let mut identities = Identities::default();
        let mut out: Vec<Departure> = Vec::new();
        let mut sent = false;
        for wish in wishes {
            let outgoing = match self.conversation.next(record.label.as_deref(), wish) {
                Turn::Send(outgoing) => outgoing,
                Turn::Skip(reason) => {
                    record.input.push(reason.to_owned());
                    continue;
                }
            };
            sent = true;
            identities.add(outgoing.spec.id, outgoing.spec.fl);
            outgoing.quoted_id().into_iter().for_each(|id| identities.add_id(id));
            if has_ports(&outgoing.spec) {
                for (address, port) in
                    [(outgoing.spec.src, outgoing.spec.sport), (outgoing.spec.dst, outgoing.spec.dport)]
                {
                    self.last_packets.insert(endpoint(address, port), self.elapsed());
                }
            }
            let packets = outgoing.build();
            let inputs = packets.iter().map(|packet| shown(outgoing.side, packet, &outgoing.identities()));
            record.input.extend(inputs);
            let left = self.device.deliver_all(outgoing.side, &packets);
            out.extend(self.take_messages(left));
        }
        // The order of packets on different interfaces means nothing.
        out.sort_by_key(|left| left.side);
        record.out = out.iter().map(|left| shown_departure(left, self.neighbours, &identities)).collect();
        if let (true, Some(label)) = (sent, &record.label) {
            self.conversation.note(label, out.into_iter().map(|left| (left.side, left.packet)).collect());
        }
    }
}

fn has_ports(spec: &PacketSpec) -> bool {
    spec.sport != 0
}

fn shown_departure(left: &Departure, neighbours: Neighbours, identities: &Identities) -> String {
    let mut decoded = decode(&left.packet);
    if let Decoded::Packet(packet) = &mut decoded {
        packet.via = neighbours.name(left);
    }
    format!("{} {}", left.side, line(&decoded, identities))
}

fn shown(side: Side, packet: &[u8], identities: &Identities) -> String {
    format!("{side} {}", line(&decode(packet), identities))
}
