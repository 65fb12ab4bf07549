//! lvs.cf(5).

use super::page::Page;
use crate::config::health_keys::HEALTH;
use crate::config::keys::{GLOBAL, Key, SERVER, Standing, VIRTUAL};

const EXAMPLE: &str = "\
primary = 192.0.2.2
service = lvs
network = nat
nat_router = 10.8.8.1 eth1:0
virtual web {
     active = 1
     address = 192.0.2.1 eth0:1
     vip_nmask = 255.255.255.255
     port = 80
     persistent = 600
     send = \"GET / HTTP/1.0\\r\\n\\r\\n\"
     expect = \"HTTP\"
     scheduler = wlc
     server lvs-03 {
         address = 10.8.8.33
         active = 1
         weight = 1
     }
}";

/// The page.
pub fn page() -> String {
    let mut page =
        Page::new("LVS.CF", "5", "lvs.cf", "virtual services and real servers of the xlvs load balancer");
    page.section("SYNOPSIS").paragraph("`/etc/sysconfig/ha/lvs.cf`");
    page.section("DESCRIPTION").paragraph(
        "The file that Piranha's lvsd and its web tool had, read by `xlvs`(8) as it is. `xlvs check` \
         <FILE> says what is wrong with one, and what does other than it seems to.",
    );
    grammar(&mut page);
    table(&mut page, "KEYS OF THE TOP LEVEL", "", &GLOBAL);
    let same = "Blocks of `failover` have the same keys and are not run.";
    table(&mut page, "KEYS OF A VIRTUAL BLOCK", same, &VIRTUAL);
    table(&mut page, "KEYS OF A SERVER BLOCK", "", &SERVER);
    let beyond = "Piranha takes these lines for comments: `#xlvs:` <KEY> = <VALUE>, with the words of any other line \
                  behind the colon, and no blank before it. A key in a `server` block is about that server, in a \
                  `virtual` block about its servers, and outside of all blocks about every server, unless a block \
                  further inside has it.";
    table(&mut page, "KEYS BEYOND PIRANHA", beyond, &HEALTH);
    page.section("DIFFERENCES").paragraph(
        "All errors of a file are reported, not the first alone. Lines may end as on Windows. A reload \
         applies every key, weights and checks included. Weight 0 is 0, a `sorry_server` is really used, and a \
         program of `load_monitor` that hangs is killed. See `reload` in `xlvs`(8).",
    );
    page.section("FILES")
        .item("`/etc/sysconfig/ha/lvs.cf`", "Unless `xlvs run --config` or xlvs.toml name another file.");
    page.section("EXAMPLES").example(EXAMPLE);
    page.section("SEE ALSO").paragraph("`xlvs`(8), `ipvsadm`(8)");
    page.render()
}

fn grammar(page: &mut Page) {
    page.section("GRAMMAR")
        .paragraph(
            "A line is a key with its value, or begins or ends a block. There are `virtual` blocks at the \
             top level and `server` blocks inside of them:",
        )
        .example(
            "KEY = VALUE\nvirtual NAME {\n     KEY = VALUE\n     server NAME {\n         KEY = \
             VALUE\n     }\n}",
        )
        .paragraph(
            "The equal sign and the braces are words of their own, with blanks around them. What begins \
             with # is a comment, if nothing stands before it on the line. A value with blanks is put in \
             double quotes. Capitals matter. If a key is given twice, the last one counts.",
        )
        .paragraph("Numbers are as in C: 16, 0x10 and 020 are the same.");
}

fn table(page: &mut Page, title: &str, introduction: &str, keys: &[Key]) {
    page.section(title);
    if !introduction.is_empty() {
        page.paragraph(introduction);
    }
    for key in keys {
        let default = key.default.map_or(String::new(), |default| format!(" Default: `{default}`."));
        let meaning = match key.standing {
            Standing::Obeyed => key.meaning.to_owned(),
            Standing::NotYet => format!("{} Not acted on in this version.", key.meaning),
            Standing::Ignored => format!("Has no effect. {}", key.meaning),
        };
        let what = format!("`{}` = <{}>", key.name, key.takes.words());
        page.item(&what, &(meaning + &default));
    }
}
