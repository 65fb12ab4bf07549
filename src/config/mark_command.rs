//! An `iptables -t mangle ...` command line applied to a saved text, for those who build rules one by one.

use super::marks::words;

const EMPTY: &str = "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                     :POSTROUTING ACCEPT [0:0]\nCOMMIT\n";

/// The saved text after a command: `-A CHAIN rule`, `-N CHAIN`, or `-F` (all rules of the table). An empty text is
/// an empty mangle table. `ip6tables` rules become `-A CHAIN -6 rule`. The rule itself is not judged here.
pub fn apply_command(saved: &str, command: &str) -> Result<String, String> {
    let line = rule_line(command)?;
    let saved = if saved.trim().is_empty() { EMPTY } else { saved };
    if line == "-F" {
        return Ok(flushed(saved));
    }
    let start = saved.find("*mangle").ok_or("the saved text has no *mangle table")?;
    let place = match line.starts_with(':') {
        true => saved[start..].find('\n').map(|end| start + end + 1),
        false => saved[start..].find("\nCOMMIT").map(|end| start + end + 1),
    };
    let place = place.ok_or("the saved mangle table has no COMMIT")?;
    Ok(format!("{}{line}\n{}", &saved[..place], &saved[place..]))
}

/// The saved line of a command: `-A CHAIN rule`, `:CHAIN - [0:0]` or `-F`.
pub fn rule_line(command: &str) -> Result<String, String> {
    let words = words(command).ok_or("a quote is not closed")?;
    let mut words = words.into_iter().peekable();
    let program = words.next().unwrap_or_default();
    let version = match program.rsplit('/').next() {
        Some("iptables") => None,
        Some("ip6tables") => Some("-6".to_owned()),
        _ => return Err(format!("'{program}' is not iptables or ip6tables")),
    };
    let mut rest: Vec<String> = words.collect();
    rest.retain(|word| word != "-w" && word != "--wait");
    let table = rest.iter().position(|word| word == "-t" || word == "--table");
    let named =
        table.filter(|at| at + 1 < rest.len()).map(|at| rest.drain(at..at + 2).nth(1).unwrap_or_default());
    if named.as_deref() != Some("mangle") {
        return Err("only -t mangle gives marks".to_owned());
    }
    let (command, chain) = (rest.first().map(String::as_str), rest.get(1));
    match (command, chain) {
        (Some("-A" | "--append"), Some(chain)) => {
            let rule = version.into_iter().chain(rest[2..].iter().cloned()).map(requoted);
            Ok(format!("-A {chain} {}", rule.collect::<Vec<_>>().join(" ")))
        }
        (Some("-N" | "--new-chain"), Some(chain)) => Ok(format!(":{chain} - [0:0]")),
        (Some("-F" | "--flush"), None) => Ok("-F".to_owned()),
        _ => Err("expected -A CHAIN RULE, -N CHAIN or -F".to_owned()),
    }
}

fn requoted(word: String) -> String {
    match word.is_empty() || word.contains([' ', '\t', '"', '\'', '\\', '\n']) {
        true => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")),
        false => word,
    }
}

fn flushed(saved: &str) -> String {
    let mut table = "";
    let kept = saved.lines().filter(|line| {
        if line.starts_with('*') {
            table = line;
        }
        table != "*mangle" || line.starts_with(['*', ':', '#', 'C'])
    });
    kept.map(|line| format!("{line}\n")).collect()
}
