//! The tables of two routers, kept the same as the threads of two daemons do it.

use std::time::Duration;

use xlvs::ipvs::replica::{
    self, Datagram, Homecoming, Installed, Origin, PARTS, Replica, Replication, Settings, Side, bucket_of,
    fingerprint,
};

use super::ends::{COMPARE, KEY, SILENCE, connection};
use super::{
    BEHIND, SETUP, Talk, answer_behind, busy, listing, router, router_now, sequence, take, talk, told,
};
use crate::support::audit;
use crate::support::device::Device as _;
use crate::support::engine::Router;

/// Two routers, the first of which does the work.
struct Routers {
    routers: [Router; 2],
    replicas: [Replica; 2],
}

impl Routers {
    fn new() -> Self {
        let routers = [router(), router()];
        let settings = |side| Settings {
            side,
            key: KEY.to_vec(),
            private: true,
            limit: 1400,
            silence: SILENCE,
            compare: COMPARE,
        };
        let replica = |router, side, session| Replica::new(router_now(router), settings(side), session);
        let replicas = [replica(&routers[0], Side::Primary, 11), replica(&routers[1], Side::Backup, 22)];
        let mut pair = Routers { routers, replicas };
        pair.set_active([true, false]);
        pair.pass(Duration::from_secs(2));
        assert!(pair.replicas[0].is_settled() && pair.replicas[1].is_complete());
        pair
    }

    /// As `turn` of the daemon's thread does.
    fn set_active(&mut self, active: [bool; 2]) {
        for (end, active) in active.into_iter().enumerate() {
            let (router, replica) = (&self.routers[end], &mut self.replicas[end]);
            let takes_over = active && !replica.is_active();
            if takes_over {
                replica.finish(&mut Installed { tables: router.tables(), now: router_now(router) });
            }
            replica.set_active(router_now(router), active);
            if takes_over {
                replica::keep_all(router.tables());
            }
        }
    }

    /// Lets time pass, with a look at what is to be told every 5 ms.
    fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(5);
        for _ in 0..time.as_millis() / step.as_millis() {
            for from in [0, 1] {
                let (tables, now) = (self.routers[from].tables(), router_now(&self.routers[from]));
                let replica = &mut self.replicas[from];
                replica.work(&mut Installed { tables, now });
                match replica.is_holding(now) {
                    true => tables.replication.hold(),
                    false => tables.replication.release(now),
                }
                tables.replication.watch(replica.is_telling());
                replica.pump(now, &**tables);
                for Datagram { path, bytes } in replica.take_outgoing(now) {
                    let to = &self.routers[1 - from];
                    let mut installed = Installed { tables: to.tables(), now: router_now(to) };
                    // The first ones are of another run.
                    let _ = self.replicas[1 - from].receive(now, path, &bytes, &mut installed);
                }
            }
            self.routers.iter_mut().for_each(|router| drop(router.advance(step)));
        }
    }

    fn talk(&mut self, end: usize, protocol: &'static str, client: u16, port: u16) -> Talk<'_> {
        talk(&mut self.routers[end], protocol, client, port)
    }
}

/// What the FTP helper has rewritten after the standby was told of the connection shifts the numbers there, too.
#[test]
fn what_an_answer_of_ftp_has_shifted_is_told_of_a_connection_that_is_known() {
    let mut pair = Routers::new();
    let server = pair.talk(0, "tcp", 4000, 21).establish();
    pair.pass(Duration::from_millis(100));
    pair.talk(0, "tcp", 4000, 21).ask("PA", b"PASV\r\n");
    pair.pass(Duration::from_millis(100));
    let address = server.ip().to_string().replace('.', ",");
    let answer = format!("227 here ({address},200,1).\r\n");
    pair.talk(0, "tcp", 4000, 21).answer(server, "PA", answer.as_bytes());
    pair.pass(Duration::from_millis(100));
    assert!(pair.replicas[0].is_settled());
    let answers = [0, 1].map(|end| answer_behind(&mut pair.routers[end], server));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(sequence(&answers[0]), BEHIND + 1, "10,10,1,30 is longer than {address} by one");
    assert_eq!(audit::miscounts(pair.routers[1].tables()), Vec::<String>::new());
}

/// What counts as the partner's at this end.
fn borrowed(router: &Router) -> usize {
    (0..PARTS).map(|part| replica::borrowed_part(router.tables(), part, router_now(router)).len()).sum()
}

#[test]
fn what_a_standby_was_told_of_is_its_own_once_it_does_the_work() {
    let mut pair = Routers::new();
    pair.talk(0, "tcp", 3000, 443).establish();
    pair.pass(Duration::from_millis(100));
    assert_eq!(pair.routers.each_ref().map(borrowed), [0, 2], "a connection and its template");
    pair.set_active([false, true]);
    assert_eq!(pair.routers.each_ref().map(borrowed), [0, 0]);
}

#[test]
fn a_change_that_finds_no_room_marks_its_bucket_once() {
    let replication = Replication::default();
    let key = |number| connection(number, 33).key();
    replication.watch(true);
    (0..1 << 16).for_each(|number| replication.note(|| key(number)));
    assert!(replication.lost().is_empty());
    replication.note(|| key(70_000));
    let lost = replication.lost();
    assert_eq!(lost.iter().collect::<Vec<_>>(), [bucket_of(fingerprint(&key(70_000)))]);
    assert!(replication.lost().is_empty());
    replication.watch(false);
    assert_eq!(replication.waiting(), 0, "nobody is there to be told");
}

const ANY_PORT: [&str; 2] =
    ["ipvsadm -A -u 10.10.1.30:0 -s rr -p 60", "ipvsadm -a -u 10.10.1.30:0 -r 10.8.8.35:0 -m"];

/// Connections of a service for any port, and data connections of FTP, go to ports of which there is no service.
#[test]
fn what_was_told_of_before_the_services_were_here_comes_home() {
    let mut first = router();
    ANY_PORT.iter().for_each(|command| assert_eq!(first.run(command).code, 0, "{command}"));
    busy(&mut first);
    talk(&mut first, "tcp", 5000, 200 * 256 + 1).establish();
    let heard = talk(&mut first, "udp", 6000, 999).ask("", b"?").unwrap();
    assert_eq!(heard.to_string(), "10.8.8.35:999");
    talk(&mut first, "tcp", 6001, 9999).establish();
    let mut standby = Router::new();
    for record in told(&first) {
        take(&mut standby, Origin::Partner, &record).unwrap();
    }
    let before = listing(&mut standby);
    assert!(standby.tables().sync.has_strangers());
    for command in SETUP.iter().chain(&ANY_PORT) {
        assert_eq!(standby.run(command).code, 0, "{command}");
    }
    let mut homecoming = Homecoming::default();
    (0..PARTS).for_each(|_| homecoming.work(standby.tables(), router_now(&standby)));
    assert!(!homecoming.has_work());
    let mut homeless = Vec::new();
    standby.tables().connections.for_each(|connection| {
        if connection.server.is_stranger() {
            homeless.push(format!("{:?}", connection.request_key()));
        }
        let parent = connection.parent();
        assert!(parent.is_none_or(|parent| !parent.is_removed()), "{:?}", connection.request_key());
    });
    for walk in standby.tables().templates.valid_walks() {
        walk.for_each(|template| {
            if template.server.is_stranger() {
                homeless.push(format!("{:?} {}", template.key, template.place));
            }
        });
    }
    assert_eq!(homeless, Vec::<String>::new());
    // The former templates are listed with port 65535 until their time is up.
    let listed: Vec<_> = listing(&mut standby).into_iter().filter(|view| !view.contains(":65535")).collect();
    assert_eq!(listed, before);
    assert_eq!(audit::miscounts(standby.tables()), Vec::<String>::new());
}
