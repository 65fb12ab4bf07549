//! xlvs.toml: documented defaults, errors with file, line and key.

use std::collections::BTreeSet;
use std::path::Path;

use xlvs::config::settings::{Settings, Shortcut, XdpMode, parse};
use xlvs::config::settings_change::{KEYS, Needs, changes, needs, sysctls};

#[test]
fn a_missing_or_empty_file_is_the_defaults() {
    assert_eq!(parse("xlvs.toml", "").unwrap(), Settings::default());
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/xlvs.toml");
    let documented = std::fs::read_to_string(path).unwrap();
    assert_eq!(parse("xlvs.toml", &documented).unwrap(), Settings::default(), "as shipped");
    let uncommented: String = documented
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n"
        })
        .collect();
    assert_eq!(parse("xlvs.toml", &uncommented).unwrap(), Settings::default(), "{uncommented}");
    let table: toml::Table = toml::from_str(&uncommented).unwrap();
    let all = toml::Table::try_from(Settings::default()).unwrap();
    assert_eq!(table, all, "every key is documented");
}

#[test]
fn values_are_taken() {
    let settings = parse("x", "ports = ['eth0', 'bond1.20']\nxdp_mode = 'skb'\nframe_size = 4096\n").unwrap();
    assert_eq!(settings.ports, ["eth0", "bond1.20"]);
    assert_eq!((settings.xdp_mode, settings.frame_size, settings.queues), (XdpMode::Skb, 4096, 0));
    for (value, expected) in [
        ("true", Shortcut::Switch(true)),
        ("false", Shortcut::Switch(false)),
        ("'auto'", Settings::default().shortcut),
    ] {
        assert_eq!(parse("x", &format!("shortcut = {value}\n")).unwrap().shortcut, expected);
    }
}

#[test]
fn ipvs_settings_are_taken_over_the_defaults() {
    let text = "[sysctl]\nsync_threshold = '5 60'\ndrop_packet = 3\nest_cpulist = '0-1,3'\n";
    let sysctls = parse("x", text).unwrap().sysctls();
    assert_eq!((sysctls.sync_threshold, sysctls.drop_packet), ([5, 60], 3));
    assert_eq!((sysctls.est_cpulist.as_str(), sysctls.am_droprate), ("0-1,3", 10));
}

#[test]
fn errors_name_file_line_and_key() {
    let table = [
        (
            "queues = 0\nportz = []\n",
            "x.toml:2: error: there is no key `portz`; the keys are `lvs_cf`, `marks`, ",
        ),
        ("\nqueues = 'two'\n", "x.toml:2: error: queues: expected a number from 0 to 1024"),
        ("queues = -1\n", "x.toml:1: error: queues: expected a number from 0 to 1024"),
        ("frames = 0777\n", "x.toml:1: error: frames: expected a power of two from 512 to 1048576"),
        ("frame_size = 2048.0\n", "x.toml:1: error: frame_size: expected 2048 or 4096"),
        ("ports = 'eth0'\n", "x.toml:1: error: ports: expected a list of names such as [\"eth0\", \"eth1\"]"),
        ("ports = [\n'eth0',\n3\n]\n", "x.toml:3: error: ports: expected a list of names such as"),
        ("ports = [\neth0\n]\n", "x.toml:2: error: ports: expected a list of names such as"),
        ("ports = ['eth0'\n", "x.toml:1: error: ports: expected a list of names such as"),
        ("lvs_cf = /etc/lvs.cf\n", "x.toml:1: error: lvs_cf: expected an absolute path in quotes such as"),
        (
            "ftp_ports = [21, 70000]\n",
            "x.toml:1: error: ftp_ports: expected a list of at most 8 port numbers",
        ),
        (
            "[sysctl]\ndrop_entry = true\n",
            "x.toml:2: error: drop_entry: expected a number, or text in quotes",
        ),
        (
            "[sysctl]\nsync = 1\n",
            "x.toml:2: error: sync: there is no such IPVS setting; they are am_droprate, ",
        ),
        ("[[service]]\nudp = 9\n", "x.toml:1: error: match is missing: expected a service such as"),
        (
            "notify = 'notify me'\n",
            "x.toml:1: error: notify: 'notify me' does not begin with an absolute path",
        ),
        ("notify = ['/x']\n", "x.toml:1: error: notify: expected a program by its absolute path, with its"),
        ("slow_start = 1\n", "x.toml:1: error: slow_start: expected true or false"),
        ("zero_copy = true\n", "x.toml:1: error: zero_copy: expected one of \"auto\", \"on\", \"off\""),
        ("shortcut = 'on'\n", "x.toml:1: error: shortcut: expected true, false or \"auto\""),
        ("shortcut_flows = 0\n", "x.toml:1: error: shortcut_flows: 0 is not from 1 to 16777216"),
        ("shortcut_after = -1\n", "x.toml:1: error: shortcut_after: expected a number of packets"),
        ("huge_pages = true\n", "x.toml:1: error: huge_pages: expected one of \"auto\", \"on\", \"off\""),
        ("busy_poll = 1\n", "x.toml:1: error: busy_poll: expected true or false"),
        ("log_level = 'warning' # x\n", "x.toml:1: error: log_level: expected one of \"error\", \"warn\","),
        ("queues = 2\nnonsense\n", "x.toml:2: error: expected KEY = VALUE"),
        ("queues = 0\nframe_size = 1500\n", "x.toml:2: error: frame_size: 1500 is neither 2048 nor 4096"),
        (
            "[sysctl]\ndrop_entry = 3\nnonsense = 1\n",
            "x.toml:3: error: nonsense: there is no such IPVS setting",
        ),
        ("[sysctl]\ndrop_entry = 4\n", "x.toml:2: error: drop_entry: expected a whole number from 0 to 3"),
        (
            "[sysctl]\nsync_ports = 3\n",
            "x.toml:2: error: sync_ports: expected a power of two from 1 to 1073741824",
        ),
        (
            "[sysctl]\nsync_threshold = '50 50'\n",
            "x.toml:2: error: sync_threshold: expected two whole numbers",
        ),
        ("ftp_ports = [21, 0]\n", "x.toml:1: error: ftp_ports: at most 8 ports, none of them 0"),
        ("frames = 1000\n", "x.toml:1: error: frames: 1000 is not a power of two from 512 to 1048576"),
        ("marks = 'iptables'\n", "x.toml:1: error: marks: 'iptables' is not an absolute path"),
        ("ports = ['eth0:1']\n", "x.toml:1: error: ports: 'eth0:1' is not the name of an interface"),
        ("ports = ['a', 'b', 'a']\n", "x.toml:1: error: ports: an interface is named twice"),
        ("xdp_mode = 'fast'\n", "x.toml:1: error: xdp_mode: expected one of \"auto\", \"native\", \"skb\""),
        ("zero_copy = \n", "x.toml:1: error: zero_copy: expected one of \"auto\""),
        (
            "log_level = 'info'\nlog_level = 'info'\n",
            "x.toml:2: error: log_level: is given twice; delete one of them",
        ),
        (
            "[[service]]\nmatch = 'web'\n",
            "x.toml:2: error: match: expected a service such as \"tcp 192.0.2.1:80\"",
        ),
        (
            "[[service]]\nmatch = 'fwmark 1'\nudp = 9999999\n",
            "x.toml:3: error: udp: 9999999 is more than 2678400",
        ),
        (
            "[beyond_ipvs]\ndrop_untranslated = 1\n",
            "x.toml:2: error: drop_untranslated: expected true or false",
        ),
        ("[beyond_ipvs]\ndrop = true\n", "x.toml:2: error: there is no key `drop`; the keys are "),
        (
            "[[service]]\nmatch = 'fwmark 1'\n[[service]]\nmatch = 'fwmark 1'\n",
            "x.toml:2: error: match: \"fwmark 1\" is matched twice; join the two",
        ),
    ];
    for (text, expected) in table {
        let message = parse("x.toml", text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text}\ngave   {message}\nwanted {expected}");
    }
}

#[test]
fn every_key_says_whether_a_reload_follows_it() {
    let keys: BTreeSet<String> =
        toml::Table::try_from(Settings::default()).unwrap().keys().cloned().collect();
    let known: BTreeSet<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(known, keys);
    assert_eq!(KEYS.len(), known.len(), "each once");
}

#[test]
fn what_takes_a_restart_stays_until_then() {
    let running = parse("x", "queues = 2\n").unwrap();
    let text = "queues = 4\nlog_level = 'warn'\n[sysctl]\ndrop_entry = 1\n[beyond_ipvs]\nconn_max = 9\n\
                [[service]]\nmatch = 'tcp 192.0.2.1:80'\ntcp = 5\n";
    let mut next = parse("x", text).unwrap();
    let told: Vec<String> = changes(&running, &next)
        .iter()
        .map(|change| format!("{} {} > {} {:?}", change.key, change.before, change.now, change.needs))
        .collect();
    assert_eq!(
        told,
        [
            "beyond_ipvs.conn_max 0 > 9 Nothing",
            "log_level \"info\" > \"warn\" Nothing",
            "queues 2 > 4 Restart",
            "service [] > [{ match = \"tcp 192.0.2.1:80\", tcp = 5, tcp_fin = 0, udp = 0 }] Nothing",
            "sysctl.drop_entry 0 > 1 Nothing",
        ]
    );
    assert_eq!(sysctls(&running, &next), [("drop_entry".to_owned(), "1".to_owned())]);
    next.keep_what_takes_a_restart(&running);
    assert_eq!((next.queues, next.log_level.word()), (2, "warn"));
    let left = changes(&next, &parse("x", text).unwrap());
    assert_eq!(left.len(), 1, "it is told again: {left:?}");
    for (key, takes) in KEYS {
        assert_eq!(needs(key), takes);
    }
    assert_eq!(needs("new"), Needs::Restart, "who does not know does not promise");
}
