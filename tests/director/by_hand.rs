//! What is changed by hand, beside what the files want.

use std::net::SocketAddr;

use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Effect, Level};
use xlvs::ipvs::edit::{
    Edit, Errno, Forward, Refusal, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::view::TimeoutView;
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::tunnel::Encapsulation;

use super::{ARTICLE, Site};

#[test]
fn a_reload_restores_what_was_cleared_by_hand() {
    let mut site = Site::article();
    let clear = Request::Edit(Edit::Flush);
    site.command(Command::Request { client: ClientId(1), request: clear });
    assert!(site.logged(Level::Info, "ipvsadm: table cleared"), "{:#?}", site.effects);
    assert!(site.services().is_empty());
    site.configure(ARTICLE);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
}

impl Site {
    pub(super) fn ask(&mut self, request: Request) -> Reply {
        self.command(Command::Request { client: ClientId(1), request });
        match self.effects.pop() {
            Some(Effect::Reply(ClientId(1), reply)) => reply,
            other => panic!("no answer: {other:?}"),
        }
    }

    pub(super) fn by_hand(&mut self, edit: Edit) {
        assert_eq!(self.ask(Request::Edit(edit)), Reply::Done);
    }

    pub(super) fn differences(&mut self) -> Vec<String> {
        match self.ask(Request::Diff) {
            Reply::Differences(differences) => differences
                .iter()
                .map(|difference| format!("{}: {}", difference.subject, difference.change()))
                .collect(),
            other => panic!("no differences: {other:?}"),
        }
    }

    /// What a reload said of what was changed by hand.
    fn changed_by_hand(&self) -> Vec<&str> {
        fn told(effect: &Effect) -> Option<&str> {
            let Effect::ChangedByHand(text) = effect else { return None };
            Some(text)
        }
        self.effects.iter().filter_map(told).collect()
    }
}

pub(super) const FIRST: &str = "10.8.8.33:80";

pub(super) fn article_service() -> ServiceId {
    ServiceId::FwMark { mark: 80, family: Family::V4 }
}

pub(super) fn server_id(text: &str) -> ServerId {
    let place: SocketAddr = text.parse().unwrap();
    ServerId { address: place.ip(), port: place.port() }
}

fn rr(port: u16) -> ServiceSpec {
    let address = "10.10.1.30".parse().unwrap();
    ServiceSpec {
        id: ServiceId::Address { protocol: Protocol::TCP, address, port },
        scheduler: "rr".into(),
        flags: SchedulerFlags::default(),
        one_packet: false,
        persistence: None,
        engine: None,
    }
}

pub(super) fn by_weight(server: &str, weight: i32) -> ServerSpec {
    ServerSpec {
        id: server_id(server),
        forward: Forward::Masquerade,
        tunnel: Encapsulation::Ipip,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

#[test]
fn what_was_changed_by_hand_outlives_a_servers_health_but_not_a_reload() {
    let mut site = Site::article();
    let check = site.new_check(0);
    assert_eq!(site.differences(), Vec::<String>::new());
    site.by_hand(Edit::EditServer(article_service(), by_weight(FIRST, 7)));
    site.health(&check, false);
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    assert_eq!(site.differences(), Vec::<String>::new(), "a server that is down is no difference");
    site.health(&check, true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"], "its slow start begins");
    site.pass(60);
    assert_eq!(site.servers(), ["10.8.8.33:80 7", "10.8.8.34:80 1"]);
    let difference = "server 10.8.8.33:80 of FWM 80: Masq weight 7 in the table, Masq weight 1 in lvs.cf";
    assert_eq!(site.differences(), [difference]);

    site.effects.clear();
    site.configure(ARTICLE);
    let told = "server 10.8.8.33:80 of FWM 80 was changed by hand and is as in lvs.cf again: \
                Masq weight 7 in the table, Masq weight 1 in lvs.cf";
    assert_eq!(site.changed_by_hand(), [told]);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
    assert_eq!(site.differences(), Vec::<String>::new());
}

#[test]
fn a_server_deleted_by_hand_stays_out_until_a_reload() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.by_hand(Edit::DeleteServer(article_service(), server_id(FIRST)));
    site.health(&check, false);
    site.health(&check, true);
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    assert_eq!(
        site.differences(),
        ["server 10.8.8.33:80 of FWM 80: not in the table, Masq weight 1 in lvs.cf"]
    );
    site.configure(ARTICLE);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
}

#[test]
fn a_server_that_a_restore_leaves_out_stays_out_until_a_reload() {
    let mut site = Site::article();
    let check = site.new_check(0);
    let spec = ServiceSpec { id: article_service(), ..rr(80) };
    let table = vec![
        Edit::Flush,
        Edit::AddService(spec),
        Edit::AddServer(article_service(), by_weight("10.8.8.34:80", 5)),
    ];
    assert_eq!(site.ask(Request::EditAll(table.clone())), Reply::Done);
    site.health(&check, false);
    site.health(&check, true);
    assert_eq!(site.servers(), ["10.8.8.34:80 5"]);

    // Nobody leaves out a server that is down.
    let mut site = Site::article();
    let check = site.new_check(0);
    site.health(&check, false);
    assert_eq!(site.ask(Request::EditAll(table)), Reply::Done);
    site.health(&check, true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 5"]);
}

#[test]
fn a_server_deleted_with_its_service_by_hand_stays_out_when_that_comes_back() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.by_hand(Edit::DeleteService(article_service()));
    site.by_hand(Edit::AddService(ServiceSpec { id: article_service(), ..rr(80) }));
    site.health(&check, false);
    site.health(&check, true);
    assert_eq!(site.servers(), Vec::<String>::new());
}

#[test]
fn a_quiesced_server_keeps_the_thresholds_that_it_got_by_hand() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("quiesce_server = 0", "quiesce_server = 1"));
    let checks = site.started();
    checks.iter().for_each(|check| site.health(check, true));
    let limited = ServerSpec { upper_threshold: 9, ..by_weight(FIRST, 2) };
    site.by_hand(Edit::EditServer(article_service(), limited));
    site.health(&checks[0], false);
    let difference = "server 10.8.8.33:80 of FWM 80: Masq weight 0 thresholds 9 0 in the table, \
                      Masq weight 0 in lvs.cf";
    assert_eq!(site.differences(), [difference]);
}

#[test]
fn differences_tell_tunnels_and_families_apart() {
    let mut site = Site::article();
    let tunnel = Encapsulation::Gre { checksum: true };
    let tunnelled = ServerSpec { forward: Forward::Tunnel, tunnel, ..by_weight(FIRST, 1) };
    site.by_hand(Edit::EditServer(article_service(), tunnelled));
    let id = ServiceId::FwMark { mark: 80, family: Family::V6 };
    site.by_hand(Edit::AddService(ServiceSpec { id, ..rr(80) }));
    assert_eq!(
        site.differences(),
        [
            "server 10.8.8.33:80 of FWM 80: Tunnel gre:+c weight 1 in the table, Masq weight 1 in lvs.cf",
            "service FWM 80 IPv6: rr in the table, not in lvs.cf",
        ]
    );
}

#[test]
fn no_mark_is_0() {
    let mut site = Site::new();
    let id = ServiceId::FwMark { mark: 0, family: Family::V4 };
    let answer = site.ask(Request::Edit(Edit::AddService(ServiceSpec { id, ..rr(80) })));
    assert_eq!(answer, Reply::Refused(Errno::EINVAL));
}

#[test]
fn a_reload_restores_timeouts_that_were_set_by_hand() {
    let with_timeouts = format!("tcp_timeout = 700\n{ARTICLE}");
    let mut site = Site::article();
    site.configure(&with_timeouts);
    site.by_hand(Edit::SetTimeouts { tcp: 5, tcp_fin: 6, udp: 0 });
    site.configure(&with_timeouts);
    let timeouts = site.ask(Request::GetTimeouts);
    assert_eq!(timeouts, Reply::Timeouts(TimeoutView { tcp: 700, tcp_fin: 6, udp: 300 }));
}

#[test]
fn what_was_added_by_hand_stays_and_is_told() {
    let mut site = Site::article();
    site.by_hand(Edit::AddServer(article_service(), by_weight("10.8.8.40:80", 3)));
    let difference = "server 10.8.8.40:80 of FWM 80: Masq weight 3 in the table, not in lvs.cf";
    assert_eq!(site.differences(), [difference]);
    site.configure(ARTICLE);
    assert_eq!(site.changed_by_hand().len(), 1, "{:?}", site.changed_by_hand());
    assert!(site.changed_by_hand()[0].contains("was changed by hand and stays"));
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1", "10.8.8.40:80 3"]);
}

#[test]
fn of_many_changes_all_are_made_or_none() {
    let mut site = Site::new();
    let add = |port| Edit::AddService(rr(port));
    let edits = vec![
        add(80),
        Edit::AddServer(rr(80).id, by_weight(FIRST, 1)),
        Edit::Flush,
        add(80),
        Edit::DeleteServer(rr(80).id, server_id(FIRST)),
    ];
    let refusal = Reply::RefusedOne(Refusal { index: 4, errno: Errno::ENOENT });
    assert_eq!(site.ask(Request::EditAll(edits.clone())), refusal);
    assert!(site.services().is_empty());
    assert_eq!(site.ask(Request::EditAll(edits[..4].to_vec())), Reply::Done);
    assert_eq!(site.services().len(), 1);
    assert_eq!(site.servers(), Vec::<String>::new());
}
