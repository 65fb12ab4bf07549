//! Warnings about `#xlvs:` lines: keys that mean nothing for the kind of check that the servers have.

use super::check::Checker;
use super::health::{CheckKind, HealthKeys, Trust};
use super::health_keys::HEALTH;
use super::lvs::VirtualServer;
use super::parse::{Block, Kind};

use CheckKind::{Dns, Grpc, Grpcs, Http, Https, Icmp, Program, Tcp, Tls, Udp};

/// Adds the warnings of all levels.
pub(super) fn blocks(checker: &mut Checker<'_>) {
    for line in &checker.parsed.near_markers {
        let text = "this is a comment; what xlvs is to read begins with #xlvs: and has no blank in that";
        checker.warn(Some(*line), text);
    }
    let config = &checker.parsed.config;
    let mut everywhere = Vec::new();
    for (index, server) in config.virtuals.iter().enumerate() {
        let block = Block::Virtual(Kind::Virtual, index);
        let outer = server.health.within(&config.health);
        let mut inside = Vec::new();
        for (number, real) in server.servers.iter().enumerate() {
            let keys = real.health.within(&outer);
            let kind = keys.kind(server);
            needless(checker, Block::Server(Kind::Virtual, index, number), &[kind]);
            inside.push(kind);
        }
        if inside.is_empty() {
            inside.push(outer.kind(server));
        }
        needless(checker, block, &inside);
        texts(checker, block, server, &inside);
        missing(checker, block, server, &outer, &inside);
        everywhere.extend(inside);
    }
    needless(checker, Block::Top, &everywhere);
}

/// Keys of a block that none of the checks inside of it looks at.
fn needless(checker: &mut Checker<'_>, block: Block, kinds: &[CheckKind]) {
    for key in &HEALTH {
        let Some(users) = users(key.name) else { continue };
        if !kinds.is_empty() && !kinds.iter().any(|kind| users.contains(kind)) {
            let words: Vec<&str> = users.iter().map(|kind| kind.word()).collect();
            let text = format!("{} has no effect here; it is for check = {}", key.name, words.join(", "));
            checker.warn_if_said(block, key.name, text);
        }
    }
    if checker.said(block, "check_rise").is_some() {
        let text = "reentry has no effect beside check_rise; delete one of them";
        checker.warn_if_said(block, "reentry", text);
    }
    if let (Some(_), Some(_)) = (checker.said(block, "check_interval"), checker.said(block, "check_limit")) {
        let text = "timeout has no effect beside check_interval and check_limit; delete it";
        checker.warn_if_said(block, "timeout", text);
    }
}

/// The kinds of check that look at a key; `None`: all.
fn users(key: &str) -> Option<&'static [CheckKind]> {
    Some(match key {
        "check_port" => &[Tcp, Udp, Program, Tls, Http, Https, Dns, Grpc, Grpcs],
        "check_source" => &[Tcp, Udp, Tls, Http, Https, Dns, Grpc, Grpcs, Icmp],
        _ if key.starts_with("http_host") => &[Http, Https, Grpc, Grpcs],
        _ if key.starts_with("http_") => &[Http, Https],
        _ if key.starts_with("tls_") => &[Tls, Https, Grpcs],
        _ if key.starts_with("dns_") => &[Dns],
        _ if key.starts_with("grpc_") => &[Grpc, Grpcs],
        _ => return None,
    })
}

/// Piranha's own texts beside a kind of check that has none.
fn texts(checker: &mut Checker<'_>, block: Block, server: &VirtualServer, kinds: &[CheckKind]) {
    if server.health.check.is_none() && kinds.iter().all(|kind| matches!(kind, Tcp | Udp | Program)) {
        return;
    }
    let used = |kinds_of: &[CheckKind]| kinds.iter().any(|kind| kinds_of.contains(kind));
    for (key, kinds_of) in [
        ("send", &[Tcp, Udp, Tls][..]),
        ("expect", &[Tcp, Udp, Tls, Program]),
        ("use_regex", &[Tcp, Udp, Tls]),
        ("send_program", &[Program]),
    ] {
        if !used(kinds_of) {
            let words: Vec<&str> = kinds.iter().map(|kind| kind.word()).collect();
            let text = format!("{key} has no effect with check = {}; delete it", words[0]);
            checker.warn_if_said(block, key, text);
        }
    }
}

/// Without these the virtual server is not run.
fn missing(
    checker: &mut Checker<'_>,
    block: Block,
    server: &VirtualServer,
    keys: &HealthKeys,
    kinds: &[CheckKind],
) {
    let line = checker.said(block, "check").map(|said| said.line).or_else(|| checker.header(block));
    if kinds.contains(&Program) && server.send_program.is_none() {
        checker.warn(line, "check = program needs send_program; without it the service is not run");
    }
    let has_name = |real: &super::lvs::RealServer| real.health.within(keys).dns_name.is_some();
    if kinds.contains(&Dns) && keys.dns_name.is_none() && !server.servers.iter().all(has_name) {
        checker.warn(line, "check = dns needs dns_name; without it the service is not run");
    }
    let verified = keys.tls_verify.as_ref().is_some_and(|trust| *trust != Trust::Nothing);
    let named = keys.tls_name.is_some() || keys.http_host.is_some();
    if verified && !named && kinds.iter().any(|kind| matches!(kind, Tls | Https | Grpcs)) {
        let text = "tls_verify without tls_name: the certificate must have the server's address in it; \
                    add tls_name = NAME";
        checker.warn_if_said(block, "tls_verify", text);
    }
}
