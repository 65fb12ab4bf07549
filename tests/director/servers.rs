//! How a server gets its weight, and who has the last word about it.

use std::time::Duration;

use xlvs::director::member::State;
use xlvs::director::protocol::{Reply, Request, ServerStatus};
use xlvs::director::{Command, Effect};
use xlvs::ipvs::edit::Edit;

use super::by_hand::{FIRST, article_service, by_weight, server_id};
use super::{ARTICLE, Site};

/// The article's site with other weights and times; nothing is known of its servers.
fn heavy(weight: i32, timeout: u32) -> Site {
    let mut site = Site::new();
    site.configure(&heavy_text(weight, timeout));
    site
}

fn heavy_text(weight: i32, timeout: u32) -> String {
    ARTICLE
        .replace("weight = 1\n", &format!("weight = {weight}\n"))
        .replace("timeout = 6", &format!("timeout = {timeout}"))
}

impl Site {
    /// The lines of all events so far.
    pub(super) fn told(&self) -> Vec<String> {
        let told = |effect: &Effect| match effect {
            Effect::Event(event) => Some(event.to_string()),
            _ => None,
        };
        self.effects.iter().filter_map(told).collect()
    }

    /// Lets time pass; the director is called when it wants to be.
    pub(super) fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.director.next_deadline() <= end {
            self.now = self.director.next_deadline().max(self.now);
            self.command(Command::Tick);
        }
        self.now = end;
    }

    /// The first server's weight, if it is in the table.
    pub(super) fn weight(&mut self) -> Option<i32> {
        let services = self.services();
        let mut servers = services.iter().flat_map(|service| &service.servers);
        servers.find(|server| server.spec.id == server_id(FIRST)).map(|server| server.spec.weight)
    }

    /// The first server as `xlvs status` has it.
    pub(super) fn standing(&mut self) -> ServerStatus {
        match self.ask(Request::Status) {
            Reply::Status(status) => status.virtuals[0].servers[0].clone(),
            other => panic!("no status: {other:?}"),
        }
    }

    /// The first server's weight at once, and then every `step` seconds.
    fn weights(&mut self, step: u64, count: usize) -> Vec<i32> {
        let mut weights = vec![self.weight().unwrap()];
        for _ in 1..count {
            self.pass(step);
            weights.push(self.weight().unwrap());
        }
        weights
    }
}

/// What the original was seen to do (piranha.md 2.6), and what its rule gives for other weights and times.
#[test]
fn a_server_that_enters_gets_its_weight_by_and_by() {
    for (weight, timeout, step, expected) in [
        (100, 10, 20, &[3, 6, 12, 24, 48, 96, 100, 100][..]),
        (100, 6, 18, &[3, 6, 12, 24, 48, 96, 100]),
        (100, 20, 20, &[3, 6, 12]),
        (100, 11, 11, &[3, 6, 12]),
        (100, 60, 60, &[3, 6, 12]),
        (100, 1, 20, &[3, 6, 12]),
        (5, 10, 20, &[1, 2, 4, 5, 5]),
        (64, 10, 20, &[2, 4, 8, 16, 32, 64, 64]),
        (1, 10, 20, &[1, 1]),
        (0, 10, 20, &[0, 0]),
    ] {
        let mut site = heavy(weight, timeout);
        let check = site.started()[0].clone();
        site.health(&check, true);
        let mut early = site.weights(step, expected.len());
        assert_eq!(early, expected, "weight {weight}, timeout {timeout}");
        site.health(&check, false);
        assert_eq!(site.weight(), None);
        site.health(&check, true);
        early = site.weights(step, expected.len());
        assert_eq!(early, expected, "weight {weight}, timeout {timeout}, once more");
    }
}

#[test]
fn a_step_comes_when_it_is_due_and_not_before() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(19);
    assert_eq!(site.weight(), Some(3));
    site.pass(1);
    assert_eq!(site.weight(), Some(6));
}

#[test]
fn without_slow_start_a_server_enters_with_its_weight() {
    let mut site = Site::new();
    site.director = site.director.with_slow_start(false);
    site.configure(&heavy_text(100, 10));
    let check = site.started()[0].clone();
    site.health(&check, true);
    assert_eq!(site.weights(20, 3), [100, 100, 100]);
}

#[test]
fn the_end_of_a_slow_start_is_told_and_status_shows_it_going_on() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(45);
    let standing = site.standing();
    assert_eq!((standing.weight, standing.full_weight, standing.slow_start), (Some(12), 100, true));
    assert_eq!((standing.state, standing.since), (State::Up, 45));
    site.pass(75);
    let told = "10.8.8.33:80 has its full weight 100 virtual=http_server server=lvs-03";
    assert!(site.told().contains(&told.to_owned()), "{:#?}", site.told());
    assert!(!site.standing().slow_start);
}

#[test]
fn a_reload_leaves_a_server_its_place_in_the_slow_start() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(50);
    site.configure(&heavy_text(100, 10));
    assert_eq!(site.weight(), Some(12));
    site.pass(10);
    assert_eq!(site.weight(), Some(24), "the step is where it was");
    site.configure(&heavy_text(1000, 10));
    assert_eq!(site.weights(20, 6), [24, 48, 96, 192, 384, 768]);
    site.configure(&heavy_text(30, 10));
    assert_eq!(site.weights(20, 2), [30, 30], "no more than it is to have");
    site.configure(&heavy_text(200, 10));
    assert_eq!(site.weight(), Some(200), "its slow start is over: the file's weight counts at once");
}

#[test]
fn a_weight_that_is_set_by_hand_ends_the_slow_start() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(40);
    site.by_hand(Edit::EditServer(article_service(), by_weight(FIRST, 40)));
    assert_eq!(site.weights(20, 4), [40, 40, 40, 40]);
    assert!(site.standing().by_hand && !site.standing().slow_start);
    site.health(&check, false);
    site.health(&check, true);
    assert_eq!(site.weights(20, 8), [1, 2, 4, 8, 16, 32, 40, 40], "what the hand gave is what it climbs to");
    site.configure(&heavy_text(100, 10));
    assert_eq!(site.weight(), Some(100));
}

#[test]
fn a_server_is_no_difference_while_its_slow_start_goes_on() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(30);
    assert_eq!(site.differences(), Vec::<String>::new());
    site.configure(&heavy_text(100, 10));
    let by_hand =
        |effect: &xlvs::director::Effect| matches!(effect, xlvs::director::Effect::ChangedByHand(_));
    assert!(!site.effects.iter().any(by_hand), "{:#?}", site.effects);
}

#[test]
fn a_quiesced_server_comes_back_by_and_by_and_is_added_only_once() {
    let mut site = Site::new();
    site.configure(&heavy_text(100, 10).replace("quiesce_server = 0", "quiesce_server = 1"));
    let check = site.started()[0].clone();
    site.health(&check, false);
    assert_eq!(site.weight(), None, "what was never in is not added with weight 0");
    site.health(&check, true);
    site.pass(200);
    site.health(&check, false);
    assert_eq!(site.weight(), Some(0));
    site.pass(200);
    assert_eq!(site.weight(), Some(0), "no step gives it a weight");
    site.health(&check, true);
    assert_eq!(site.weights(20, 3), [3, 6, 12]);
}

#[test]
fn quiescing_that_is_switched_off_takes_the_server_out() {
    let mut site = Site::new();
    let quiescing = heavy_text(1, 10).replace("quiesce_server = 0", "quiesce_server = 1");
    site.configure(&quiescing);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.health(&check, false);
    assert_eq!(site.weight(), Some(0));
    site.configure(&heavy_text(1, 10));
    assert_eq!(site.weight(), None);
    site.configure(&quiescing);
    assert_eq!(site.weight(), None, "and nothing puts it in again but its health");
}

#[test]
fn a_server_that_was_deleted_by_hand_begins_anew_after_a_reload() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.health(&check, true);
    site.pass(300);
    site.by_hand(Edit::DeleteServer(article_service(), server_id(FIRST)));
    site.pass(300);
    assert_eq!(site.weight(), None);
    assert!(site.standing().deleted);
    site.configure(&heavy_text(100, 10));
    assert_eq!(site.weights(20, 2), [3, 6]);
}

#[test]
fn a_server_that_was_added_by_hand_before_its_first_check_keeps_its_weight() {
    let mut site = heavy(100, 10);
    let check = site.started()[0].clone();
    site.by_hand(Edit::AddServer(article_service(), by_weight(FIRST, 50)));
    site.health(&check, true);
    assert_eq!(site.weights(20, 2), [50, 50]);
}

#[test]
fn two_virtual_servers_hear_of_one_check() {
    let mut site = Site::new();
    let second = ARTICLE.split_once("virtual ").unwrap().1.replace("fwmark = 80", "fwmark = 0");
    site.configure(&format!("{ARTICLE}\nvirtual {}", second.replace("http_server", "other")));
    assert_eq!(site.services().len(), 2);
    for check in site.started() {
        site.health(&check, true);
    }
    assert_eq!(site.servers().len(), 4);
}

#[test]
fn why_a_server_is_down_now_is_seen_and_no_event() {
    let mut site = Site::article();
    let check = site.new_check(0);
    site.health(&check, false);
    site.effects.clear();
    site.command(Command::Health { check, up: false, reason: "another one".into() });
    assert_eq!(site.standing().reason, "another one");
    assert_eq!(site.effects, []);
}
