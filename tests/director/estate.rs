//! A director that goes on where that of another process has left off.

use std::sync::Arc;
use std::time::Duration;

use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::member::Override;
use xlvs::director::protocol::{Reply, Request, Status};
use xlvs::director::{Command, Effect, Estate};
use xlvs::ipvs::edit::{Edit, ServerSpec, ServiceId, ServiceSpec};
use xlvs::ipvs::protocol::Direction;
use xlvs::ipvs::shortcut::Traffic;
use xlvs::ipvs::sync::{SyncDaemon, SyncRole};
use xlvs::net::addr::Family;

use super::by_hand::{FIRST, article_service, server_id};
use super::{ARTICLE, MARKS, Site};

/// The site as another process goes on with it, which has read the same files.
fn followed(site: &mut Site) -> Site {
    let text = serde_json::to_string(&site.director.estate()).unwrap();
    let counters = serde_json::to_string(&site.director.counters()).unwrap();
    let estate: Estate = serde_json::from_str(&text).unwrap();
    let mut next = Site::new();
    next.now = site.now;
    let lvs = load(ARTICLE, Names::NONE).unwrap();
    let marks = Arc::new(parse_marks(MARKS, Names::NONE).unwrap());
    next.effects = next.director.inherit(next.now, estate, &lvs, marks, &Vec::new());
    next.director.continue_counters(&serde_json::from_str(&counters).unwrap());
    next
}

/// Everything that an operator sees, but for how long the process has been running.
fn seen(site: &mut Site) -> Vec<String> {
    let questions =
        [Request::ListServices, Request::GetTimeouts, Request::GetTotals, Request::Diff, Request::ListDrains];
    let questions = questions.into_iter().chain([Request::ListSysctls, Request::ListDaemons]);
    let mut seen: Vec<String> = questions.map(|question| format!("{:#?}", site.ask(question))).collect();
    let Reply::Status(status) = site.ask(Request::Status) else { panic!("no status") };
    seen.push(format!("{:#?}", Status { upgraded: None, ..*status }));
    seen
}

fn spec(site: &mut Site, server: &str) -> ServerSpec {
    let services = site.services();
    let mut servers = services.iter().flat_map(|service| &service.servers);
    servers.find(|listed| listed.spec.id == server_id(server)).unwrap().spec.clone()
}

#[test]
fn everything_that_can_be_seen_is_as_before_and_nothing_is_told() {
    let mut site = Site::article();
    site.now = site.now + Duration::from_secs(100);
    let own = ServiceSpec {
        id: ServiceId::FwMark { mark: 7, family: Family::V4 },
        ..site.services()[0].spec.clone()
    };
    let first = spec(&mut site, FIRST);
    site.by_hand(Edit::AddService(own.clone()));
    site.by_hand(Edit::AddServer(own.id, ServerSpec { weight: 5, ..first.clone() }));
    site.by_hand(Edit::EditServer(article_service(), ServerSpec { weight: 17, ..first.clone() }));
    site.by_hand(Edit::SetTimeouts { tcp: 800, tcp_fin: 0, udp: 0 });
    site.ask(Request::Sysctl { name: "expire_nodest_conn".into(), value: Some("1".into()) });
    site.ask(Request::Sysctl { name: "xlvs.drain_removed".into(), value: Some("77".into()) });
    site.ask(Request::DrainServer { server: "10.8.8.34".into(), service: None, deadline: Some(60) });
    let server = site.director.server(&own.id, first.id).unwrap();
    server.count(0, |cell| {
        cell.add_connection();
        cell.add_traffic(Direction::In, Traffic { packets: 3, bytes: 300 });
    });
    site.now = site.now + Duration::from_secs(2);
    site.command(Command::Tick);
    let before = seen(&mut site);
    let mut next = followed(&mut site);
    assert_eq!(next.started().len(), 2, "both checks run here, too");
    let quiet =
        |effect: &Effect| matches!(effect, Effect::StartCheck(_) | Effect::Steer(_) | Effect::Resolve(_));
    assert!(next.effects.iter().all(quiet), "{:#?}", next.effects);
    next.effects.clear();
    assert_eq!(seen(&mut next), before);
    next.now = next.now + Duration::from_secs(61);
    next.command(Command::Tick);
    let Reply::Drains(drains) = next.ask(Request::ListDrains) else { panic!("no drains") };
    assert_eq!(drains.len(), 1, "the order holds on");
    assert_eq!(drains[0].ends_in, None, "its deadline has come where it was set");
}

#[test]
fn a_server_that_is_down_or_forced_down_stays_so_until_its_check_speaks() {
    let mut site = Site::article();
    let checks = {
        site.configure(&ARTICLE.replace("timeout = 6", "timeout = 7"));
        site.configure(ARTICLE);
        site.started()[2..].to_vec()
    };
    site.health(&checks[0], false);
    site.ask(Request::Override { server: "10.8.8.34".into(), virtual_server: None, to: Override::Down });
    assert!(site.servers().is_empty());
    let mut next = followed(&mut site);
    assert!(next.servers().is_empty());
    let check = Arc::clone(&next.started()[0]);
    next.health(&check, true);
    assert_eq!(next.servers().len(), 1, "its check has found it well");
    next.ask(Request::Override { server: "10.8.8.34".into(), virtual_server: None, to: Override::Auto });
    assert_eq!(next.servers().len(), 2);
}

#[test]
fn deleted_servers_and_daemons_go_along() {
    let mut site = Site::article();
    let first = spec(&mut site, FIRST);
    site.by_hand(Edit::DeleteServer(article_service(), first.id));
    let daemon = SyncDaemon {
        role: SyncRole::Master,
        interface: "eth0".into(),
        sync_id: 9,
        max_len: 0,
        group: None,
        port: 0,
        ttl: 0,
    };
    site.by_hand(Edit::StartDaemon(daemon));
    let before = seen(&mut site);
    let mut next = followed(&mut site);
    let starts = next.effects.iter().filter(|effect| matches!(effect, Effect::StartSync(..))).count();
    assert_eq!(starts, 1);
    assert!(next.director.server(&article_service(), first.id).is_some_and(|server| !server.is_available()));
    assert_eq!(seen(&mut next), before);
    next.by_hand(Edit::AddServer(article_service(), first.clone()));
    let server = next.director.server(&article_service(), first.id).unwrap();
    assert!(server.is_available(), "it is out of the trash");
}
