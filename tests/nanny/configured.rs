//! From the text of `lvs.cf` to the check of a server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use xlvs::config::health_keys::HEALTH;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::wanted::Wanted;
use xlvs::nanny::{Check, Expect, Method, Timing, Trust};

fn file(top: &str, block: &str, server: &str) -> String {
    format!(
        "{top}\nvirtual v {{\nactive = 1\naddress = 192.0.2.9 eth0:1\nport = 8080\n{block}\nserver s {{\n\
         address = 10.0.0.1\nactive = 1\n{server}\n}}\n}}\n"
    )
}

/// The check of the one server, or why there is none.
fn configured(top: &str, block: &str, server: &str) -> Result<Arc<Check>, String> {
    let text = file(top, block, server);
    let config = load(&text, Names::NONE).unwrap_or_else(|errors| panic!("{text}{:?}", &errors[..]));
    let wanted = Wanted::new(&config);
    match wanted.servers().next() {
        Some((_, server)) => Ok(Arc::clone(&server.check)),
        None => Err(wanted.refused.join("\n")),
    }
}

fn method(block: &str) -> Method {
    configured("", block, "").unwrap_or_else(|why| panic!("{block}: {why}")).method.clone()
}

#[test]
fn without_a_line_of_ours_it_is_piranhas_check() {
    let connect = Method::Tcp { tls: None, send: Vec::new(), expect: None };
    assert_eq!(method(""), connect);
    let web = Method::Tcp {
        tls: None,
        send: b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        expect: Some(Expect::Prefix(b"HTTP".to_vec())),
    };
    assert_eq!(method("port = 80"), web);
    for said in ["send = \"\"", "expect = \"\"", "send_program = \"/bin/true\"", "#xlvs: check = tcp"] {
        assert_ne!(method(&format!("port = 80\n{said}")), web, "{said}");
    }
    let udp = Method::Udp { send: b"x".to_vec(), expect: Expect::Anything };
    assert_eq!(method("protocol = udp\nsend = x"), udp);
    assert_eq!(method("protocol = udp\nsend = x\nexpect = *"), udp);
    let text = Method::Tcp { tls: None, send: Vec::new(), expect: Some(Expect::Anything) };
    assert_eq!(method("expect = \"\"\nuse_regex = 1"), text);
    let program = Method::Program {
        words: ["/bin/check", "%h", "-x"].map(str::to_owned).to_vec(),
        expect: Some(b"OK\n".to_vec()),
    };
    assert_eq!(method("send_program = \"/bin/check  %h -x\"\nexpect = \"OK\\n\"\nsend = x"), program);
}

#[test]
fn what_cannot_be_checked_is_refused_in_one_line() {
    for (block, said) in [
        ("expect = \"(\"\nuse_regex = 1", "is not a regular expression that can be used: a ( is not closed"),
        ("expect = \"(a)\\\\1\"\nuse_regex = 1", "\\1 refers back"),
        ("protocol = udp", "is UDP and has nothing to check its servers with"),
        ("send_program = \" \"", "has no program in send_program"),
        ("#xlvs: check = program", "has no program in send_program"),
        ("#xlvs: check = dns", "has no dns_name"),
    ] {
        let error = configured("", block, "").expect_err(block);
        assert!(error.contains(said) && error.ends_with("it is not run") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn timing_is_piranhas_unless_said_otherwise() {
    let of = |block: &str| configured("", block, "").expect(block).timing;
    let seconds = Duration::from_secs;
    let six = Timing { interval: seconds(6), limit: seconds(6), rise: 2, fall: 1, jitter: 0 };
    assert_eq!(of(""), Timing { interval: seconds(10), limit: seconds(10), rise: 18, fall: 1, jitter: 0 });
    assert_eq!(of("timeout = 6\nreentry = 15"), six);
    assert_eq!(of("timeout = 60\nreentry = 0").rise, 3, "0 is 180");
    assert_eq!(of("timeout = 0\nreentry = -1"), Timing::piranha(1, 1));
    let half = Timing { interval: Duration::from_millis(500), rise: 30, ..six };
    assert_eq!(of("timeout = 6\nreentry = 15\n#xlvs: check_interval = 0.5"), half);
    assert_eq!(of("timeout = 6\nreentry = 15\n#xlvs: check_rise = 5"), Timing { rise: 5, ..six });
    let lines =
        "timeout = 6\nreentry = 15\n#xlvs: check_limit = 1\n#xlvs: check_fall = 3\n#xlvs: check_jitter = 20";
    assert_eq!(of(lines), Timing { limit: seconds(1), fall: 3, jitter: 20, ..six });
}

#[test]
fn the_innermost_line_counts() {
    let said = |value: &str| format!("#xlvs: check_port = {value}");
    let port = |top: &str, block: &str, server: &str| {
        configured(top, block, server).expect("a check").endpoint.port()
    };
    assert_eq!(port("", "", ""), 8080);
    assert_eq!(port(&said("1"), "", ""), 1);
    assert_eq!(port(&said("1"), &said("2"), ""), 2);
    assert_eq!(port(&said("1"), &said("2"), &said("3")), 3);
    assert_eq!(port("", "", "port = 99"), 99);
    let source = configured("#xlvs: check_source = 10.0.0.9", "", "").expect("a check").source;
    assert_eq!(source, Some(IpAddr::from([10, 0, 0, 9])));
}

#[test]
fn a_page_over_tls() {
    let lines = "#xlvs: check = https\n#xlvs: http_version = 2\n#xlvs: http_path = /health?x=1\n\
                 #xlvs: http_host = www.example.com:8443\n#xlvs: http_status = 200,204-206\n\
                 #xlvs: http_header = \"Server: ^nginx\"\n#xlvs: http_body = \"^ok\\n$\"\n\
                 #xlvs: tls_verify = /etc/ca.pem\n#xlvs: tls_expiry = 14";
    let Method::Http(request) = method(lines) else { panic!("no page") };
    let tls = request.tls.as_ref().expect("TLS");
    assert_eq!(tls.trust, Trust::File("/etc/ca.pem".into()));
    assert_eq!((tls.name.as_deref(), tls.expiry_days), (Some("www.example.com"), Some(14)));
    assert_eq!((request.http2, request.path.as_str()), (true, "/health?x=1"));
    assert_eq!(request.host.as_deref(), Some("www.example.com:8443"));
    assert_eq!(request.statuses, [(200, 200), (204, 206)]);
    let (name, value) = request.header.as_ref().expect("a header");
    assert!(name == "Server" && value.is_in(b"nginx/1.2") && !value.is_in(b"not nginx"));
    assert!(request.body.as_ref().expect("a body").is_in(b"ok\n"));
}

#[test]
fn equal_checks_are_one() {
    let server =
        |name: &str, rest: &str| format!("server {name} {{\naddress = 10.0.0.1\nactive = 1\n{rest}\n}}\n");
    let block = |name: &str, address: &str, servers: &str| {
        format!("virtual {name} {{\nactive = 1\naddress = {address} eth0:1\nport = 8080\n{servers}}}\n")
    };
    let text = [
        block("a", "192.0.2.1", &server("s", "")),
        block(
            "b",
            "192.0.2.2",
            &(server("t", "weight = 7") + &server("u", "port = 9090\n#xlvs: check_port = 8080")),
        ),
        block("c", "192.0.2.3", &server("v", "#xlvs: check_fall = 2")),
    ]
    .concat();
    let wanted = Wanted::new(&load(&text, Names::NONE).expect("a file"));
    let checks: Vec<_> = wanted.servers().map(|(_, server)| &server.check).collect();
    assert!(Arc::ptr_eq(checks[0], checks[1]) && Arc::ptr_eq(checks[0], checks[2]));
    assert!(!Arc::ptr_eq(checks[0], checks[3]), "another count is another check");
    assert_eq!(wanted.checks().len(), 2);
    let mut again = Wanted::new(&load(&text.replace("192.0.2.2", "192.0.2.7"), Names::NONE).expect("a file"));
    again.adopt_checks(&wanted);
    assert!(again.checks().iter().zip(wanted.checks()).all(|(new, old)| Arc::ptr_eq(new, old)), "they go on");
}

/// Every key that has a default does with it what it does without a line.
#[test]
fn the_defaults_in_the_manual_are_true() {
    let kinds = ["tcp", "tls", "http", "https", "grpc", "icmp", "dns\n#xlvs: dns_name = example.com"];
    for kind in kinds {
        let lines = format!("#xlvs: check = {kind}");
        let absent = configured("", &lines, "").expect(kind);
        for key in &HEALTH {
            let Some(default) = key.default else { continue };
            let said = configured("", &format!("{lines}\n#xlvs: {} = {default}", key.name), "").expect(kind);
            assert_eq!(said, absent, "{kind}: {} is not {default} without a line", key.name);
        }
    }
}
