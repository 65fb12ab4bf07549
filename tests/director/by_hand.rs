//! What is changed by hand, beside what the files want.

use std::net::SocketAddr;

use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Effect, Level};
use xlvs::ipvs::edit::{
    Edit, Errno, Forward, Refusal, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
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
    fn ask(&mut self, request: Request) -> Reply {
        self.command(Command::Request { client: ClientId(1), request });
        match self.effects.pop() {
            Some(Effect::Reply(ClientId(1), reply)) => reply,
            other => panic!("no answer: {other:?}"),
        }
    }

    fn by_hand(&mut self, edit: Edit) {
        assert_eq!(self.ask(Request::Edit(edit)), Reply::Done);
    }

    fn differences(&mut self) -> Vec<String> {
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

const FIRST: &str = "10.8.8.33:80";

fn article_service() -> ServiceId {
    ServiceId::FwMark { mark: 80, family: Family::V4 }
}

fn server_id(text: &str) -> ServerId {
    let place: SocketAddr = text.parse().unwrap();
    ServerId { address: place.ip(), port: place.port() }
}

fn by_weight(server: &str, weight: i32) -> ServerSpec {
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
    let service = |port| {
        let address = "10.10.1.30".parse().unwrap();
        ServiceSpec {
            id: ServiceId::Address { protocol: Protocol::TCP, address, port },
            scheduler: "rr".into(),
            flags: SchedulerFlags::default(),
            one_packet: false,
            persistence: None,
            engine: None,
        }
    };
    let add = |port| Edit::AddService(service(port));
    let edits = vec![
        add(80),
        Edit::AddServer(service(80).id, by_weight(FIRST, 1)),
        Edit::Flush,
        add(80),
        Edit::DeleteServer(service(80).id, server_id(FIRST)),
    ];
    let refusal = Reply::RefusedOne(Refusal { index: 4, errno: Errno::ENOENT });
    assert_eq!(site.ask(Request::EditAll(edits.clone())), refusal);
    assert!(site.services().is_empty());
    assert_eq!(site.ask(Request::EditAll(edits[..4].to_vec())), Reply::Done);
    assert_eq!(site.services().len(), 1);
    assert_eq!(site.servers(), Vec::<String>::new());
}
