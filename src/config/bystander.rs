//! Rules that cannot concern the mark of a balanced packet, whatever else they say, and so need not be understood
//! (iptables-extensions(8)).

/// Targets that neither change the mark nor end the walk, whatever their options are.
const HARMLESS: [&str; 23] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "ECN",
    "HL",
    "IDLETIMER",
    "LED",
    "LOG",
    "NFLOG",
    "NOTRACK",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
    "ULOG",
];

/// What CONNMARK may be told without reaching the packet's own mark; with `--restore-mark` it does.
const OF_THE_CONNECTION: [&str; 9] = [
    "--save-mark",
    "--set-mark",
    "--set-xmark",
    "--and-mark",
    "--or-mark",
    "--xor-mark",
    "--nfmask",
    "--ctmask",
    "--mask",
];

/// The harmless target of a rule, given its words.
pub(super) fn harmless_target(words: &[String]) -> Option<&str> {
    let (target, options) = only_jump(words)?;
    let harmless = match target {
        "CONNMARK" => {
            let mut long = options.iter().filter(|word| word.starts_with("--")).peekable();
            long.peek().is_some() && long.all(|word| OF_THE_CONNECTION.contains(&word.as_str()))
        }
        _ => HARMLESS.contains(&target),
    };
    harmless.then_some(target)
}

/// Whether a rule takes ICMP alone and does no more than let it pass or mark it. ICMP never opens a connection, and
/// an ICMP error about a connection follows the packet that it quotes, so no mark of an ICMP packet is ever looked
/// at: the rule is as good as one that never matches.
pub(super) fn is_icmp_only(words: &[String]) -> bool {
    let passes = only_jump(words).is_some_and(|(target, _)| ["ACCEPT", "RETURN", "MARK"].contains(&target));
    let protocol = |at: usize| {
        let option = ["-p", "--protocol", "--proto"].contains(&words[at].as_str());
        option && (at == 0 || words[at - 1] != "!")
    };
    let mut named = (0..words.len()).filter(|at| protocol(*at)).map(|at| words.get(at + 1));
    let icmp = |name: &String| {
        ["icmp", "1", "icmpv6", "ipv6-icmp", "58"].contains(&name.to_ascii_lowercase().as_str())
    };
    passes && named.next().flatten().is_some_and(icmp) && named.next().is_none()
}

/// Target and what follows it, if `-j` stands there once. The same word may be somebody's text, as in `--string -j`;
/// which of two is the jump cannot be told without knowing every option.
fn only_jump(words: &[String]) -> Option<(&str, &[String])> {
    let jumps = ["-j", "--jump", "-g", "--goto"];
    let mut found = (0..words.len()).filter(|at| jumps.contains(&words[*at].as_str()));
    let (at, None) = (found.next()?, found.next()) else { return None };
    let target = words.get(at + 1).filter(|_| words[at].starts_with("-j") || words[at] == "--jump")?;
    Some((target, &words[at + 2..]))
}
