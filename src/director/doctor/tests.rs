//! What is seen, and what is said about it.

use super::*;
use crate::config::settings::{HugePagesSetting, XdpMode, ZeroCopy};
use crate::xdp::{DriverFeatures, Occupant, Offloads, Queues, Spreading};

/// A router with two good NICs of two queues, on a machine with two CPUs.
fn sound() -> Facts {
    let port = |name: &str| PortFacts {
        name: name.to_owned(),
        inspection: Inspection {
            ethernet: true,
            queues: Queues { receive: 2, transmit: 2, most: 8 },
            mtu: 1500,
            driver: Some("ice".into()),
            features: Some(DriverFeatures {
                native: true,
                zero_copy: true,
                many_buffers: true,
                many_redirected: true,
            }),
            occupant: None,
            offloads: Offloads {
                transmit_checksum: Some(true),
                large_receive: Some(false),
                generic_receive: Some(true),
                tags_stripped: Some(false),
            },
            spreading: Some(Spreading { toeplitz: true, table: vec![0, 1, 0, 1], ..Spreading::default() }),
        },
        ..PortFacts::default()
    };
    Facts {
        ports: vec![port("eth0"), port("eth1")],
        packet_memory: Some(16 << 20),
        forwarding: ForwardingSettings {
            ip_forward: Some(1),
            ipv6_forwarding: Some(1),
            send_redirects: Vec::new(),
            rp_filter: vec![("eth0".into(), 0), ("eth1".into(), 2)],
        },
        huge_pages: Some(HugePages { size: 2 << 20, free: 16, all: 16 }),
        cpus: vec![0, 1],
        ..Facts::default()
    }
}

/// What is said when the sound router is changed so.
fn changed(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    judge(&facts)
}

/// The one finding of a topic that is not good.
#[track_caller]
fn fault(findings: &[Finding], topic: &str) -> Finding {
    let faults: Vec<_> =
        findings.iter().filter(|finding| finding.topic == topic && finding.grade != Grade::Good).collect();
    assert_eq!(faults.len(), 1, "of {topic}: {findings:#?}");
    faults[0].clone()
}

/// The change makes one fault of this topic and grade; what is found and advised has these words in it.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), topic: &str, grade: Grade, found: &str, advice: &str) {
    let finding = fault(&changed(change), topic);
    assert_eq!(finding.grade, grade, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    assert!(finding.advice.as_ref().is_some_and(|text| text.contains(advice)), "{finding:?}");
}

#[test]
fn a_sound_router_has_nothing_but_good_findings() {
    let findings = judge(&sound());
    let faults: Vec<_> = findings.iter().filter(|finding| finding.grade != Grade::Good).collect();
    assert_eq!(faults, Vec::<&Finding>::new());
    assert!(findings.iter().all(|finding| finding.advice.is_none()), "good needs no advice: {findings:#?}");
}

#[test]
fn a_finding_is_one_line_of_the_log() {
    let findings = changed(|facts| facts.forwarding.ip_forward = Some(0));
    assert_eq!(
        fault(&findings, "ip_forward").line(),
        "ip_forward: 0: packets that xlvs leaves to the kernel are not forwarded; sysctl -w net.ipv4.ip_forward=1, \
         and the same in /etc/sysctl.conf"
    );
}

#[test]
fn queues_that_no_worker_serves() {
    let more = |facts: &mut Facts| {
        let inspection = &mut facts.ports[1].inspection;
        inspection.queues = Queues { receive: 4, transmit: 4, most: 8 };
        inspection.spreading = Some(Spreading { table: vec![0, 1, 2, 3], ..Spreading::default() });
    };
    check(
        more,
        "queues",
        Grade::Bad,
        "4 receive, 4 transmit, but only 2 served",
        "ethtool -L eth1 combined 2",
    );
    let narrowed = changed(|facts| {
        more(facts);
        facts.ports[1].inspection.spreading = Some(Spreading { table: vec![0, 1], ..Spreading::default() });
    });
    assert!(narrowed.iter().all(|finding| finding.grade == Grade::Good), "{narrowed:#?}");
}

#[test]
fn more_queues_wanted_than_there_are() {
    let findings = changed(|facts| {
        facts.settings.queues = 8;
        facts.ports.truncate(1);
    });
    let finding = fault(&findings, "queues");
    assert!(finding.found.contains("fewer than the 8"), "{finding:?}");
    assert_eq!(finding.advice.as_deref(), Some("ethtool -L eth0 combined 8, or set queues = 0 in xlvs.toml"));
}

#[test]
fn one_worker_where_there_could_be_more() {
    let single = |most: u32, cable: Option<CableEnd>| {
        changed(move |facts| {
            facts.ports.truncate(1);
            facts.ports[0].inspection.queues = Queues { receive: 1, transmit: 1, most };
            facts.ports[0].cable = cable;
            facts.ports[0].cable_offload = Some(false);
        })
    };
    let advice = |findings: &[Finding]| fault(findings, "queues").advice.unwrap_or_default();
    assert_eq!(advice(&single(8, None)), "on every interface: ethtool -L eth0 combined 2");
    assert_eq!(
        advice(&single(2, Some(CableEnd::Elsewhere))),
        "on every interface: ethtool -L eth0 rx 2 tx 2"
    );
    assert!(advice(&single(1, Some(CableEnd::Elsewhere))).contains("numrxqueues 2 numtxqueues 2"));
    assert!(advice(&single(1, None)).contains("NICs with several queues"));
    let one_cpu = changed(|facts| {
        facts.cpus = vec![0];
        facts
            .ports
            .iter_mut()
            .for_each(|port| port.inspection.queues = Queues { receive: 1, transmit: 1, most: 8 });
    });
    assert!(one_cpu.iter().all(|finding| finding.grade == Grade::Good), "{one_cpu:#?}");
}

#[test]
fn a_queue_that_gets_nothing() {
    let lopsided = |facts: &mut Facts| {
        facts.ports[0].inspection.spreading.as_mut().expect("it has one").table = vec![0, 0]
    };
    check(
        lopsided,
        "receive-side scaling",
        Grade::Fair,
        "no packet is spread to queue 1",
        "ethtool -X eth0 equal 2",
    );
}

#[test]
fn all_interrupts_on_one_cpu() {
    let on_cpu_0 = |facts: &mut Facts| {
        let interrupt = |number| Interrupt { number, name: String::new(), cpus: vec![0] };
        facts.ports[0].interrupts = vec![interrupt(24), interrupt(25)];
    };
    check(
        on_cpu_0,
        "interrupts",
        Grade::Fair,
        "all 2 on CPU 0, while the workers are on 0,1",
        "smp_affinity_list",
    );
}

#[test]
fn polling_beside_interrupts() {
    let polling = |facts: &mut Facts| {
        facts.settings.busy_poll = true;
        facts.ports[0].deferred = Some(false);
        facts.ports[1].deferred = Some(true);
    };
    check(polling, "busy polling", Grade::Fair, "all the same", "cd /sys/class/net/eth0 && echo 2 >napi");
}

#[test]
fn drivers_without_native_xdp_or_zero_copy() {
    let features = |native, zero_copy| {
        move |facts: &mut Facts| {
            facts.ports[0].inspection.features =
                Some(DriverFeatures { native, zero_copy, ..DriverFeatures::default() });
            facts.ports[0].inspection.offloads.generic_receive = Some(false);
        }
    };
    check(
        features(false, true),
        "native XDP",
        Grade::Fair,
        "the driver (ice) has none",
        "a NIC whose driver",
    );
    check(features(true, false), "zero-copy", Grade::Fair, "copied once in and once out", "use NICs");
    let demanding = |facts: &mut Facts| {
        features(true, false)(facts);
        facts.settings.zero_copy = ZeroCopy::On;
    };
    check(demanding, "zero-copy", Grade::Bad, "demands it", "zero_copy = \"auto\"");
    let demanding = |facts: &mut Facts| {
        features(false, true)(facts);
        facts.settings.xdp_mode = XdpMode::Native;
    };
    check(demanding, "native XDP", Grade::Bad, "demands it", "xdp_mode = \"auto\"");
}

#[test]
fn a_running_daemon_says_why_it_got_no_better() {
    let running = |facts: &mut Facts| {
        facts.ports[0].running = Some(PortStatus {
            name: "eth0".into(),
            mode: "native".into(),
            copy: "copy".into(),
            queues: 2,
            notes: vec!["copy, not zero-copy: eth1 refuses it, and all interfaces share the mode".into()],
        });
    };
    check(running, "zero-copy", Grade::Fair, "eth1 refuses it", "use NICs");
}

#[test]
fn joined_segments_do_not_fit() {
    let offloads = |facts: &mut Facts| facts.ports[1].inspection.offloads.large_receive = Some(true);
    check(offloads, "large receive offload", Grade::Bad, "lost", "ethtool -K eth1 lro off");
    let generic = |facts: &mut Facts| {
        facts.ports.truncate(1);
        facts.settings.xdp_mode = XdpMode::Skb;
    };
    check(generic, "generic receive offload", Grade::Bad, "lost", "ethtool -K eth0 gro off");
}

#[test]
fn a_foreign_program_bars_the_way() {
    let occupant = |name: &str, ours| Some(Occupant { name: name.into(), id: 17, ours, off: "xdp off" });
    check(
        |facts| facts.ports[0].inspection.occupant = occupant("filter", false),
        "XDP program",
        Grade::Bad,
        "another one is attached (filter, id 17)",
        "ip link set dev eth0 xdp off",
    );
    check(
        |facts| facts.ports[0].inspection.occupant = occupant("xlvs_steer", true),
        "XDP program",
        Grade::Fair,
        "is not its owner",
        "`xlvs run` replaces it",
    );
}

#[test]
fn packets_that_do_not_fit_a_frame() {
    let mtu = |mtu| move |facts: &mut Facts| facts.ports[0].inspection.mtu = mtu;
    let good = changed(mtu(9000));
    let finding = good.iter().find(|finding| finding.topic == "MTU").expect("an MTU");
    assert_eq!(
        (finding.grade, finding.found.as_str()),
        (Grade::Good, "9000: packets over 1770 bytes come in several frames of 2048")
    );
    check(mtu(9300), "MTU", Grade::Bad, "packets over 9216 bytes are not supported", "eth0 mtu 9216");
    let can = |native, many_buffers| {
        move |facts: &mut Facts| {
            mtu(1800)(facts);
            let features = DriverFeatures { native, many_buffers, ..DriverFeatures::default() };
            facts.ports[0].inspection.features = Some(features);
        }
    };
    check(can(true, false), "MTU", Grade::Fair, "does not receive in native mode", "frame_size = 4096");
    let lossy = |facts: &mut Facts| {
        mtu(9000)(facts);
        let notes = vec!["packets over 3300 bytes may be lost unless they are balanced: no such file".into()];
        facts.ports[0].running = Some(PortStatus { notes, ..PortStatus::default() });
    };
    check(lossy, "MTU", Grade::Fair, "may be lost unless they are balanced", "/dev/net/tun");
}

#[test]
fn checksums_over_a_cable() {
    let cable = |end: CableEnd, offload| {
        move |facts: &mut Facts| {
            facts.ports[0].cable = Some(end);
            facts.ports[0].cable_offload = offload;
        }
    };
    let here = CableEnd::Here("peer".into());
    check(
        cable(here.clone(), Some(true)),
        "checksums",
        Grade::Fair,
        "half-made by peer",
        "ethtool -K peer tx off",
    );
    check(cable(CableEnd::Elsewhere, None), "checksums", Grade::Fair, "another network namespace", "tx off");
    let whole = changed(cable(here, Some(false)));
    assert!(whole.iter().all(|finding| finding.grade == Grade::Good), "{whole:#?}");
}

#[test]
fn tags_that_the_nic_takes_off() {
    check(
        |facts| facts.ports[0].inspection.offloads.tags_stripped = Some(true),
        "VLAN tags",
        Grade::Fair,
        "taken off",
        "ethtool -K eth0 rxvlan off",
    );
}

#[test]
fn settings_of_the_kernel() {
    check(
        |facts| facts.forwarding.ipv6_forwarding = Some(0),
        "IPv6 forwarding",
        Grade::Fair,
        "off",
        "sysctl -w",
    );
    check(
        |facts| facts.forwarding.rp_filter[1].1 = 1,
        "reverse-path filter",
        Grade::Fair,
        "strict",
        "net.ipv4.conf.eth1.rp_filter=2",
    );
    let one_armed = |facts: &mut Facts| {
        facts.ports.truncate(1);
        facts.forwarding.send_redirects = vec!["eth0".into()];
    };
    check(
        one_armed,
        "send_redirects",
        Grade::Fair,
        "eth0 is the only interface",
        "conf.eth0.send_redirects=0",
    );
    check(
        |facts| facts.bystanders.ipvs_services = 2,
        "IPVS in the kernel",
        Grade::Bad,
        "has 2 services",
        "ipvsadm -C",
    );
}

#[test]
fn memory_for_two_workers() {
    let few = |facts: &mut Facts| facts.huge_pages = Some(HugePages { size: 2 << 20, free: 3, all: 5 });
    check(few, "huge pages", Grade::Fair, "ordinary pages are used", "vm.nr_hugepages=18");
    let demanded = |facts: &mut Facts| {
        few(facts);
        facts.settings.huge_pages = HugePagesSetting::On;
    };
    check(demanded, "huge pages", Grade::Bad, "packet memory of 32 MiB takes more", "vm.nr_hugepages=18");
    let running = |facts: &mut Facts| {
        few(facts);
        facts.ports[0].running = Some(PortStatus {
            name: "eth0".into(),
            mode: "native".into(),
            copy: "copy".into(),
            queues: 2,
            notes: vec!["packet memory is on ordinary pages, not on huge ones: too few".into()],
        });
    };
    check(running, "huge pages", Grade::Fair, "packet memory is on ordinary pages", "vm.nr_hugepages=18");
    let limited = |facts: &mut Facts| facts.locked_memory = Some(8 << 20);
    check(
        limited,
        "locked memory",
        Grade::Bad,
        "8 MiB may be locked, packet memory takes 32 MiB",
        "LimitMEMLOCK",
    );
    let weak = |facts: &mut Facts| facts.unprivileged = Some("CAP_BPF missing".into());
    check(weak, "privileges", Grade::Bad, "CAP_BPF", "root");
}

#[test]
fn what_is_no_ethernet_is_left_out() {
    check(|facts| facts.ports[0].inspection.ethernet = false, "link", Grade::Bad, "Ethernet", "leave it out");
}
