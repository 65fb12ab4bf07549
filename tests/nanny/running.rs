//! The loop around probes: reports, and many checks at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use xlvs::host::clock::{Clock, wall};
use xlvs::nanny::{Check, Facilities, HealthReport, Slots, Timing, run};
use xlvs::net::time::Instant;

use super::{ANY_PORT, PATIENT, facilities, prefix, tcp};

async fn listener() -> TcpListener {
    TcpListener::bind(ANY_PORT).await.expect("loopback")
}

#[tokio::test]
async fn the_loop_reports_a_server_that_comes_and_goes() {
    let listener = listener().await;
    let endpoint = listener.local_addr().expect("bound");
    let timing = Timing { interval: Duration::from_millis(100), ..Timing::piranha(1, 1) };
    let check = Arc::new(Check { endpoint, timing, ..tcp("", None) });
    let (sender, mut reports) = mpsc::channel(4);
    let checking = tokio::spawn(run(check.clone(), facilities(), Instant::START, sender));
    let first = reports.recv().await.expect("a report");
    assert!(first.change.up && Arc::ptr_eq(&first.check, &check), "{first:?}");
    drop(listener);
    let second = reports.recv().await.expect("a report");
    assert!(!second.change.up, "{second:?}");
    assert!(second.change.reason.contains("Connection refused"), "{second:?}");
    checking.abort();
    assert!(reports.recv().await.is_none(), "an aborted check says no more");
}

/// Runs a check of a server that accepts and never answers, then one of a good server, with so many slots for both. Returns the
/// report that comes first.
async fn first_report(slots: usize) -> HealthReport {
    let (hung, good) = (listener().await, listener().await);
    let endpoint = |listener: &TcpListener| listener.local_addr().expect("bound");
    let timing = Timing { limit: Duration::from_millis(500), ..Timing::piranha(1, 1) };
    let hang = Check { endpoint: endpoint(&hung), timing, ..tcp("x", prefix("HTTP")) };
    let connect = Check { endpoint: endpoint(&good), ..tcp("", None) };
    let clock = Clock::start();
    let facilities = Arc::new(Facilities::new(move || clock.now(), wall, Slots::new(slots)));
    let (sender, mut reports) = mpsc::channel(4);
    let start = |check: Check| {
        tokio::spawn(run(Arc::new(check), Arc::clone(&facilities), Instant::START, sender.clone()))
    };
    let hanging = start(hang);
    let _stream = hung.accept().await.expect("the check that hangs has its slot");
    let checking = start(connect);
    let report = tokio::time::timeout(PATIENT, reports.recv()).await.expect("in time").expect("a report");
    hanging.abort();
    checking.abort();
    report
}

#[tokio::test]
async fn a_hung_check_delays_no_other_while_there_are_slots() {
    let first = first_report(2).await;
    assert!(first.change.up, "the good server's report comes while the other check hangs: {first:?}");
}

/// With too few slots a check waits, and what it waits is not counted against its server.
#[tokio::test]
async fn waiting_for_a_slot_is_not_the_servers_fault() {
    let first = first_report(1).await;
    assert_eq!(first.change.reason.split_once(" timed out").map(|(_, rest)| rest), Some(""), "{first:?}");
    let short = Timing { limit: Duration::from_millis(100), ..Timing::piranha(1, 1) };
    let (hung, good) = (listener().await, listener().await);
    let endpoint = good.local_addr().expect("bound");
    let clock = Clock::start();
    let facilities = Arc::new(Facilities::new(move || clock.now(), wall, Slots::new(1)));
    let (sender, mut reports) = mpsc::channel(4);
    let slow = Timing { limit: Duration::from_millis(400), ..short };
    let hang =
        Check { endpoint: hung.local_addr().expect("bound"), timing: slow, ..tcp("x", prefix("HTTP")) };
    let hanging = tokio::spawn(run(Arc::new(hang), Arc::clone(&facilities), Instant::START, sender.clone()));
    let _stream = hung.accept().await.expect("the check that hangs has its slot");
    let check = Arc::new(Check { endpoint, timing: short, ..tcp("", None) });
    let checking = tokio::spawn(run(Arc::clone(&check), facilities, Instant::START, sender));
    let of_check = async {
        loop {
            let report = reports.recv().await.expect("a report");
            if Arc::ptr_eq(&report.check, &check) {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(PATIENT, of_check).await.expect("in time");
    assert!(report.change.up, "it waited four times its limit: {report:?}");
    hanging.abort();
    checking.abort();
}

#[tokio::test]
async fn slots_only_grow() {
    let slots = Slots::new(4);
    slots.grow(10);
    assert_eq!(slots.total(), 10);
    slots.grow(2);
    assert_eq!(slots.total(), 10);
}

/// Five hundred servers that accept and never answer, and one that does: it is found good at once and stays so.
#[tokio::test]
async fn five_hundred_hung_checks() {
    let (hung, good) = (listener().await, listener().await);
    let clock = Clock::start();
    let facilities = Arc::new(Facilities::new(move || clock.now(), wall, Slots::new(501)));
    let (sender, mut reports) = mpsc::channel(4);
    let (silence, mut ignored) = mpsc::channel(501);
    let mut tasks = Vec::new();
    for number in 0..500 {
        let send = number.to_string();
        let check = Check { endpoint: hung.local_addr().expect("bound"), ..tcp(&send, prefix("HTTP")) };
        let first = Instant::START;
        tasks.push(tokio::spawn(run(Arc::new(check), Arc::clone(&facilities), first, silence.clone())));
    }
    let serving = async {
        let mut held = Vec::new();
        loop {
            held.push(hung.accept().await.expect("a connection"));
            if held.len() == 500 {
                return held;
            }
        }
    };
    let _held = tokio::time::timeout(PATIENT, serving).await.expect("all hang");
    let check = Check { endpoint: good.local_addr().expect("bound"), ..tcp("", None) };
    tasks.push(tokio::spawn(run(Arc::new(check), facilities, Instant::START, sender)));
    let report = tokio::select! {
        report = reports.recv() => report.expect("a report"),
        other = ignored.recv() => panic!("a hung check has ended first: {other:?}"),
    };
    assert!(report.change.up, "{report:?}");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}
