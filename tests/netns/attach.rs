//! Attaching, and what is in the way.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use xlvs::ipvs::verdict::Verdict;
use xlvs::net::frame::Frame;
use xlvs::xdp::{AttachSetting, AttachedMode, XdpError, XdpPort};

use super::rig::{self, Rig, stop_and_check, wait_until};

fn passing(_: &mut Frame<'_>) -> Verdict {
    Verdict::Pass
}

fn attach_by_hand(rig: &Rig, mode: &str, object: &str) {
    let object = format!("{}/{object}.bpf.o", env!("OUT_DIR"));
    rig.router.run(&format!("ip link set dev front {mode} obj {object} sec xdp"));
}

#[test]
fn a_leftover_of_ours_is_replaced() {
    for mode in ["xdpgeneric", "xdpdrv"] {
        let rig = Rig::new();
        attach_by_hand(&rig, mode, "xlvs");
        let (xdp, _handed_over) = rig.start(&rig.config(AttachSetting::Auto), passing).unwrap();
        assert_eq!(xdp.port_status()[0].mode, AttachedMode::Native, "after {mode}");
        stop_and_check(xdp);
        // The kernel detaches with the last copy of the descriptors, and a child that another test is just making has copies.
        wait_until("nothing is attached", || !rig.router.run("ip link show dev front").contains("xdp"));
    }
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let rig = Rig::new();
    attach_by_hand(&rig, "xdpgeneric", "inject");
    let error = rig.start(&rig.config(AttachSetting::Auto), passing).err().unwrap();
    let XdpError::Occupied { interface, name, id } = &error else { panic!("{error}") };
    assert_eq!((interface.as_str(), name.as_str()), ("front", "xlvs_inject"));
    let text = error.to_string();
    assert!(text.contains(&format!("id {id}")) && text.contains("ip link set dev front xdp off"), "{text}");
    assert!(rig.router.run("ip link show dev front").contains("xlvs_inject"));
}

#[test]
fn a_second_instance_is_refused_and_a_third_after_it_serves() {
    let rig = Rig::new();
    let config = rig.config(AttachSetting::Auto);
    let (first, _handed_over) = rig.start(&config, passing).unwrap();
    let error = rig.start(&config, passing).err().unwrap();
    assert!(matches!(error, XdpError::AlreadyServed { .. }), "{error}");
    stop_and_check(first);
    // The kernel detaches with the last copy of the descriptors, and a child that another test is just making has copies.
    let third = RefCell::new(None);
    wait_until("a third one serves", || {
        *third.borrow_mut() = rig.start(&config, passing).ok();
        third.borrow().is_some()
    });
    stop_and_check(third.take().unwrap().0);
}

#[test]
fn auto_falls_back_to_skb_and_says_why() {
    let rig = Rig::new();
    rig.router.run("ip link set dev front mtu 3700");
    rig.client.run("ip link set dev eth0 mtu 3700");
    let mut config = rig.config(AttachSetting::Auto);
    config.frame_size = 4096;
    let (xdp, _handed_over) = rig.start(&config, passing).unwrap();
    let status = &xdp.port_status()[0];
    assert_eq!(status.mode, AttachedMode::Skb, "{status:?}");
    assert!(status.notes.iter().any(|note| note.contains("MTU is too large for native mode")), "{status:?}");
    stop_and_check(xdp);
}

#[test]
fn copy_mode_says_why() {
    let rig = Rig::new();
    let (xdp, _handed_over) = rig.start(&rig.config(AttachSetting::Native), passing).unwrap();
    let status = &xdp.port_status()[0];
    assert!(!status.zero_copy, "{status:?}");
    assert!(status.notes[0].contains("copy, not zero-copy: front refuses it"), "{status:?}");
    stop_and_check(xdp);
}

#[test]
fn unequal_queues_are_refused_with_the_remedy() {
    let rig = Rig::new();
    rig.router.run(
        "ip link add many numrxqueues 3 numtxqueues 3 type veth peer name many1 numrxqueues 3 numtxqueues 3",
    );
    rig.router.run("ip link set dev many up");
    let mut config = rig.config(AttachSetting::Auto);
    config.ports[1].name = "many".into();
    config.ports[1].ifindex = rig.ifindex("many");
    let error = rig.start(&config, passing).err().unwrap();
    assert!(error.to_string().contains("ethtool -L many combined 1"), "{error}");
    config.queues = 1;
    let (xdp, _handed_over) = rig.start(&config, passing).unwrap();
    let notes = &xdp.port_status()[1].notes;
    assert!(notes.contains(&"packets on receive queues 1 to 2 do not come up".to_owned()), "{notes:?}");
    stop_and_check(xdp);
}

/// Set in the process that is to be killed.
const VICTIM: &str = "XLVS_TEST_VICTIM";

/// What the victim does: it serves the interfaces of its namespace until it is killed.
fn be_the_victim() {
    let port =
        |name: &str| XdpPort { name: name.into(), ifindex: nix::net::if_::if_nametoindex(name).unwrap() };
    let config = rig::config([port("front"), port("back")], AttachSetting::Native);
    let _xdp = rig::start(&config, passing).unwrap();
    println!("serving");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    if std::env::var_os(VICTIM).is_some() {
        return be_the_victim();
    }
    let rig = Rig::new();
    let mut victim = rig.router.enter(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "netns::attach::a_killed_process_leaves_nothing_behind"])
            .env(VICTIM, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let said = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line.contains("serving")), "the victim did not start");
    assert!(rig.router.run("ip link show dev front").contains("xlvs_steer"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let (xdp, _handed_over) = rig.start(&rig.config(AttachSetting::Native), passing).unwrap();
    stop_and_check(xdp);
}
