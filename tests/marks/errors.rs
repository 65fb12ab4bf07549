//! What an error about a saved rule says.

use xlvs::config::marks::parse_marks;

use super::{names, render, table};

const ADVICE: &str = "xlvs understands -s -d -i -p, --sport and --dport (tcp, udp, sctp, multiport), -m mark, -m comment, \
    and -j MARK, ACCEPT, RETURN or a chain; rewrite the rule, or move it out of mangle PREROUTING";

#[test]
fn errors_quote_the_line() {
    let table_of = [
        (
            "-A PREROUTING -m state --state NEW -j MARK --set-mark 1",
            "line 3: -m state is not understood; ADVICE: -A PREROUTING -m state --state NEW -j MARK --set-mark 1\n",
        ),
        (
            "-A PREROUTING -j DROP",
            "line 3: target DROP is not understood: it is no chain of this table; ADVICE: -A PREROUTING -j DROP\n",
        ),
        (
            "-A PREROUTING -p tcp --syn",
            "line 3: --syn is not understood; ADVICE: -A PREROUTING -p tcp --syn\n",
        ),
        (
            "-A PREROUTING --dport 80",
            "line 3: ports need -p tcp, udp, udplite, sctp or dccp in the same rule: -A PREROUTING --dport 80\n",
        ),
        (
            "-A PREROUTING -p tcp --dport 9:2",
            "line 3: '9:2' is not a port or a range of ports: -A PREROUTING -p tcp --dport 9:2\n",
        ),
        (
            "-A PREROUTING -p tcp --dport x",
            "line 3: 'x' is not a port number or a service of /etc/services: -A PREROUTING -p tcp --dport x\n",
        ),
        (
            "-A PREROUTING -d 10.0.0.1,10.0.0.2",
            "line 3: '10.0.0.1,10.0.0.2' is not one address with an optional mask; write one rule for each: -A PREROUTING -d 10.0.0.1,10.0.0.2\n",
        ),
        (
            "-A PREROUTING -j MARK",
            "line 3: -j MARK needs --set-mark, --set-xmark, --or-mark, --and-mark or --xor-mark: -A PREROUTING -j MARK\n",
        ),
        (
            "-A PREROUTING -j MARK --set-mark 1x",
            "line 3: '1x' is not a mark, which is a number from 0 to 4294967295 with an optional /mask: -A PREROUTING -j MARK --set-mark 1x\n",
        ),
        ("-A PREROUTING -d", "line 3: -d needs a value: -A PREROUTING -d\n"),
        (
            "-A PREROUTING -m comment --comment \"x",
            "line 3: a quote is not closed: -A PREROUTING -m comment --comment \"x\n",
        ),
        (
            "-A PREROUTING -j A",
            "line 3: target A is not understood: it is no chain of this table; ADVICE: -A PREROUTING -j A\n",
        ),
        (
            ":A - [0:0]\n:B - [0:0]\n-A A -j B\n-A B -j A\n-A PREROUTING -j B",
            "line 5: the chains call each other in a circle: -A A -j B\n",
        ),
        (
            "-A GONE -j ACCEPT",
            "line 3: there is no chain GONE; expected a line :GONE - [0:0] above: -A GONE -j ACCEPT\n",
        ),
        (
            "-A PREROUTING -m conntrack --ctstate INVALID -j DROP",
            "line 3: -m conntrack is not understood; ADVICE: -A PREROUTING -m conntrack --ctstate INVALID -j DROP\n",
        ),
        (
            "-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff",
            "line 3: --restore-mark is not understood; ADVICE: -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff\n",
        ),
        (
            "-A PREROUTING -p icmp -j DROP",
            "line 3: target DROP is not understood: it is no chain of this table; ADVICE: -A PREROUTING -p icmp -j DROP\n",
        ),
        (
            "-A PREROUTING ! -p icmp -m ttl --ttl-lt 9 -j ACCEPT",
            "line 3: -m ttl is not understood; ADVICE: -A PREROUTING ! -p icmp -m ttl --ttl-lt 9 -j ACCEPT\n",
        ),
        (
            "-A PREROUTING -m string --string -j LOG -j DROP",
            "line 3: -m string is not understood; ADVICE: -A PREROUTING -m string --string -j LOG -j DROP\n",
        ),
        (
            "-A PREROUTING -m time -g LOG",
            "line 3: -m time is not understood; ADVICE: -A PREROUTING -m time -g LOG\n",
        ),
        ("-X", "line 3: -X is not understood; expected -A CHAIN, :CHAIN or COMMIT: -X\n"),
        (
            ":PREROUTING DROP [0:0]",
            "line 3: the policy DROP cannot be followed: xlvs only marks packets; use ACCEPT: :PREROUTING DROP\n",
        ),
        (
            "-A PREROUTING -j REJECT\n-A PREROUTING -f",
            "line 3: target REJECT is not understood: it is no chain of this table; ADVICE: -A PREROUTING -j REJECT\nline 4: -f is not understood; ADVICE: -A PREROUTING -f\n",
        ),
    ];
    for (lines, expected) in table_of {
        let errors = parse_marks(&table(lines), names()).expect_err(lines);
        assert_eq!(render(&errors), expected.replace("ADVICE", ADVICE), "{lines}");
    }
    let errors = parse_marks("-A PREROUTING -j X\nrubbish\n", names()).unwrap_err();
    assert_eq!(
        render(&errors),
        "line 1: the line *mangle is missing above the rules, and COMMIT below them; xlvs reads what \
         `iptables-save -t mangle` prints, not commands: -A PREROUTING -j X\n"
    );
    let errors = parse_marks("*mangle\nCOMMIT\n-A PREROUTING -j X\n", names()).unwrap_err();
    assert_eq!(
        render(&errors),
        "line 3: no table is open here; expected a line such as *mangle: -A PREROUTING -j X\n"
    );
    let errors = parse_marks("*mangle\n-A PREROUTING -j ACCEPT\n", names()).unwrap_err();
    let expected =
        "line 1: COMMIT is missing at the end of the table, so iptables-restore would not load it: *mangle\n";
    assert_eq!(render(&errors), expected);
}
