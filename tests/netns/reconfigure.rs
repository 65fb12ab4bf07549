//! Changes of the configuration under real connections, from file and command line to the sockets at both ends.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::Signal;

use super::daemon::{Daemon, VIP};
use super::rig::{PATIENCE, Rig, wait_until};

const LVS: &str = "primary = 10.1.0.1
virtual web {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.255
 port = 8080
 scheduler = rr
 timeout = 1
 reentry = 1
 server one {
  address = 10.2.0.2
  active = 1
 }
 server two {
  address = 10.2.0.3
  active = 1
 }
}
";

fn without_two() -> String {
    LVS.replace("address = 10.2.0.3\n  active = 1", "address = 10.2.0.3\n  active = 0")
}

/// How a server's connection ended: the first word that it said, and the error if it was no orderly end.
type End = (u8, Option<ErrorKind>);

/// Servers that echo, at both addresses; the ends of their connections.
fn serve(rig: &Rig) -> Receiver<End> {
    rig.server.ip("address add 10.2.0.3/24 dev eth0");
    let (sender, ends) = channel();
    for address in ["10.2.0.2:8080", "10.2.0.3:8080"] {
        let listener = rig.server.enter(|| TcpListener::bind(address).unwrap());
        let sender = sender.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (stream.unwrap(), sender.clone());
                thread::spawn(move || {
                    let (mut buffer, mut first) = ([0], None);
                    let error = loop {
                        match stream.read(&mut buffer) {
                            Ok(0) => break None,
                            Ok(_) => {
                                first.get_or_insert(buffer[0]);
                                stream.write_all(&buffer).unwrap();
                            }
                            Err(error) => break Some(error.kind()),
                        }
                    };
                    // Checks connect and say nothing; the test may be over.
                    if let Some(first) = first {
                        let _ = sender.send((first, error));
                    }
                });
            }
        });
    }
    ends
}

struct Client {
    stream: TcpStream,
    word: u8,
}

impl Client {
    fn connect(rig: &Rig, word: u8) -> Client {
        let address: SocketAddr = format!("{VIP}:8080").parse().unwrap();
        let stream = rig.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { stream, word };
        assert!(client.speaks(), "a new connection");
        client
    }

    /// Whether the server answers.
    fn speaks(&mut self) -> bool {
        let mut answer = [0];
        let said = self.stream.write_all(&[self.word]).and_then(|()| self.stream.read_exact(&mut answer));
        said.is_ok() && answer == [self.word]
    }

    /// How the connection ends, without a word of the client's.
    fn end(mut self) -> Option<ErrorKind> {
        match self.stream.read(&mut [0]) {
            Ok(0) => None,
            Ok(_) => panic!("nobody has asked the server"),
            Err(error) => Some(error.kind()),
        }
    }
}

/// The daemon, with both servers up.
fn start(rig: &Rig, settings: &str) -> Daemon {
    let daemon = Daemon::with_lvs_and(rig, tempfile::tempdir().unwrap(), LVS, settings);
    await_both(&daemon);
    daemon
}

fn await_both(daemon: &Daemon) {
    wait_until("both servers are up", || daemon.listing("-Ln").matches(":8080").count() == 3);
}

fn shows(daemon: &Daemon, text: &str) -> bool {
    daemon.listing("-Ln").contains(text)
}

#[test]
fn a_reload_under_traffic_follows_the_file_and_breaks_nothing() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let daemon = start(&rig, "");
    let mut clients = [b'a', b'b'].map(|word| Client::connect(&rig, word));
    daemon.write_lvs(&LVS.replace("scheduler = rr", "scheduler = wlc\n persistent = 60"));
    daemon.signal(Signal::SIGHUP);
    wait_until("the file is followed", || shows(&daemon, "wlc persistent 60"));
    assert!(clients.iter_mut().all(Client::speaks));
    daemon.write_lvs("virtual broken {\n nonsense = 1\n");
    let (done, told) = daemon.xlvs("reload");
    assert!(!done && told.contains("lvs.cf:2: error: unknown command: 'nonsense'"), "{told}");
    assert!(shows(&daemon, "wlc persistent 60") && clients.iter_mut().all(Client::speaks));
    daemon.write_lvs(&without_two());
    let (done, told) = daemon.xlvs("reload");
    assert!(done, "{told}");
    assert!(clients.iter_mut().all(Client::speaks), "also that of the server which leaves");
    let (_, status) = daemon.xlvs("status");
    assert!(
        status.contains("draining 10.2.0.3:8080 of TCP 10.1.0.30:8080 (removed): 1 connection left"),
        "{status}"
    );
    daemon.write_lvs(LVS);
    assert!(daemon.xlvs("reload").0);
    assert!(clients.iter_mut().all(Client::speaks));
    let (_, status) = daemon.xlvs("status");
    assert!(!status.contains("draining"), "{status}");
}

#[test]
fn files_are_watched_where_asked() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let daemon = start(&rig, "watch = true\n");
    let mut client = Client::connect(&rig, b'a');
    // As editors do it: another file takes its place.
    let beside = daemon.lvs_path().with_extension("new");
    fs::write(&beside, LVS.replace("scheduler = rr", "scheduler = wlc")).unwrap();
    fs::rename(&beside, daemon.lvs_path()).unwrap();
    wait_until("a file that was renamed is followed", || shows(&daemon, "10.1.0.30:8080 wlc"));
    // Half a file parses, but is not what anybody wants; and while it is being written it is not looked at.
    let mut file = fs::File::create(daemon.lvs_path()).unwrap();
    file.write_all(LVS.split(" server two").next().unwrap().as_bytes()).unwrap();
    let half = "ends within a block";
    assert!(!daemon.read_log().contains(half));
    drop(file);
    wait_until("the log says why", || daemon.read_log().contains(half));
    assert!(shows(&daemon, "10.2.0.3:8080"));
    daemon.write_lvs("nonsense = 1\n");
    wait_until("what is wrong is said", || daemon.read_log().contains("unknown command: 'nonsense'"));
    assert!(shows(&daemon, "10.2.0.3:8080"));
    daemon.write_lvs(&LVS.replace("scheduler = rr", "scheduler = sh"));
    wait_until("a file that is right again is followed", || shows(&daemon, "10.1.0.30:8080 sh"));
    assert_eq!(daemon.read_log().matches("unknown command: 'nonsense'").count(), 1, "{}", daemon.read_log());
    assert!(client.speaks());
}

/// A name server that does not answer delays the reload, and nothing else.
#[test]
fn while_names_are_looked_up_everything_goes_on() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let names = rig.server.enter(|| UdpSocket::bind("10.2.0.2:53").unwrap());
    names.set_read_timeout(Some(PATIENCE)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_resolver(&rig, directory, LVS, "nameserver 10.2.0.2\n");
    await_both(&daemon);
    daemon.write_lvs(&LVS.replace("address = 10.2.0.3", "address = two.example.net"));
    daemon.signal(Signal::SIGHUP);
    names.recv(&mut [0; 512]).expect("the name is looked up");
    daemon.ipvsadm("-e -t 10.1.0.30:8080 -r 10.2.0.3 -m -w 7");
    rig.server.run("iptables -I INPUT -d 10.2.0.2 -p tcp --dport 8080 -j REJECT --reject-with tcp-reset");
    wait_until("a server that fails goes", || !shows(&daemon, "10.2.0.2:8080"));
    assert!(shows(&daemon, "10.2.0.3:8080                Masq    7"), "nothing was read meanwhile");
    assert!(!daemon.read_log().contains("reload"), "{}", daemon.read_log());
    daemon.signal(Signal::SIGHUP);
    daemon.stop();
}

/// What happens to the files while the daemon starts, or reads others, is not missed.
#[test]
fn a_change_during_the_start_is_followed_and_so_is_another_file_that_a_reload_names() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let directory = tempfile::tempdir().unwrap();
    let (socket, lvs) = (directory.path().join("control.sock"), directory.path().join("lvs.cf"));
    let daemon = Daemon::spawn_with(&rig, directory, Some(LVS), &[], "watch = true\n");
    wait_until("the files have been read", || socket.exists());
    fs::write(&lvs, LVS.replace("scheduler = rr", "scheduler = wlc")).unwrap();
    let daemon = daemon.answering();
    wait_until("the change is followed", || shows(&daemon, "10.1.0.30:8080 wlc"));
    drop(daemon);

    // Without --config the settings name the file.
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    for folder in [&one, &two] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("lvs.cf"), LVS).unwrap();
    }
    let link = directory.path().join("present");
    symlink(&one, &link).unwrap();
    let settings = format!("watch = true\nlvs_cf = \"{}/lvs.cf\"\n", link.display());
    let daemon = Daemon::by_settings(&rig, directory, &settings);
    await_both(&daemon);
    // A link on the way is replaced, as releases are switched.
    fs::write(two.join("lvs.cf"), LVS.replace("scheduler = rr", "scheduler = lc")).unwrap();
    let beside = link.with_extension("new");
    symlink(&two, &beside).unwrap();
    fs::rename(&beside, &link).unwrap();
    wait_until("where the link leads to now", || shows(&daemon, "10.1.0.30:8080 lc"));
    fs::write(two.join("lvs.cf"), LVS.replace("scheduler = rr", "scheduler = dh")).unwrap();
    wait_until("a change there", || shows(&daemon, "10.1.0.30:8080 dh"));
    daemon.change_settings("present/lvs.cf", "one/lvs.cf");
    assert!(daemon.xlvs("reload").0 && shows(&daemon, "10.1.0.30:8080 rr"));
    fs::write(one.join("lvs.cf"), LVS.replace("scheduler = rr", "scheduler = sh")).unwrap();
    wait_until("the file that a reload names", || shows(&daemon, "10.1.0.30:8080 sh"));
}

#[test]
fn settings_are_read_again_and_those_that_take_a_restart_are_named() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let daemon = start(&rig, "");
    daemon.append_settings(
        "queues = 1\nlog_level = \"debug\"\n[beyond_ipvs]\ndrain_removed = 7\n[sysctl]\ndrop_entry = 2\n",
    );
    let (done, told) = daemon.xlvs("reload");
    let lines: Vec<&str> = told.lines().collect();
    assert!(done && lines.len() == 5, "{told}");
    assert_eq!(lines[1], "xlvs.toml: beyond_ipvs.drain_removed is 7 now, it was 300");
    assert_eq!(lines[3], "xlvs.toml: queues = 1 takes a restart; until then it is 0");
    assert_eq!(daemon.xlvs("sysctl xlvs.drain_removed").1, "xlvs.drain_removed = 7\n");
    assert_eq!(daemon.xlvs("sysctl drop_entry").1, "net.ipv4.vs.drop_entry = 1\n", "automatic, and at ease");
    let (_, told) = daemon.xlvs("reload");
    assert_eq!(told.lines().count(), 2, "what takes a restart is said until it comes: {told}");
    daemon.append_settings("nonsense = 1\n");
    assert!(!daemon.xlvs("reload").0, "a broken file changes nothing");
}

#[test]
fn a_drain_ends_at_its_deadline_with_resets_to_both_ends() {
    let rig = Rig::new();
    let ends = serve(&rig);
    let daemon = start(&rig, "");
    let clients = [b'a', b'b'].map(|word| Client::connect(&rig, word));
    let address = clients[0].stream.peer_addr().unwrap();
    assert_eq!(address.to_string(), format!("{VIP}:8080"));
    // Both are idle from here on: their numbers have to be asked for.
    let (done, told) = daemon.xlvs("drain one --deadline 3s --wait");
    assert!(done, "{told}");
    assert!(
        told.contains("draining 10.2.0.2:8080 of TCP 10.1.0.30:8080: 1 connection left, which ends in 3 s"),
        "{told}"
    );
    assert!(told.starts_with("drained: no connection is left\n"), "{told}");
    let (word, error) = ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!(error, Some(ErrorKind::ConnectionReset), "the server is told");
    for mut client in clients {
        if client.word == word {
            assert_eq!(client.end(), Some(ErrorKind::ConnectionReset), "and so is the client");
        } else {
            assert!(client.speaks(), "that of the other server goes on");
        }
    }
    let mut next = Client::connect(&rig, b'c');
    assert!(next.speaks() && shows(&daemon, "10.2.0.2:8080                Masq    0"));
    let (done, told) = daemon.xlvs("drain --undo 10.2.0.2");
    assert!(done && told == "10.2.0.2:8080 of TCP 10.1.0.30:8080 takes new connections again\n", "{told}");
    assert!(shows(&daemon, "10.2.0.2:8080                Masq    1"));
}

#[test]
fn a_plan_says_what_a_reload_then_does() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let daemon = start(&rig, "");
    let mut clients = [b'a', b'b', b'c', b'd'].map(|word| Client::connect(&rig, word));
    let other = daemon.lvs_path().with_file_name("other.cf");
    fs::write(&other, without_two()).unwrap();
    let plan = format!("plan {} --max-broken 1", other.display());
    let (code, told) = daemon.xlvs_code(&plan);
    assert_eq!(
        told,
        "removed server 10.2.0.3:8080 of TCP 10.1.0.30:8080: Masq weight 1 [2 drained]\n\
         connections: 2 kept, 2 drained (until they end, or 300 s), 0 broken at once; persistence templates ended: 0\n"
    );
    assert_eq!(code, Some(0));
    daemon.sysctl("xlvs.drain_removed", "0");
    let (code, told) = daemon.xlvs_code(&plan);
    assert!(code == Some(1) && told.contains("2 kept, 0 drained, 2 broken at once"), "{code:?} {told}");
    let (code, told) = daemon.xlvs_code(&(plan.clone() + " --json"));
    assert!(code == Some(1) && told.contains("\"broken\":2"), "{code:?} {told}");
    assert_eq!(daemon.xlvs_code("plan /nonexistent").0, Some(2));
    assert!(clients.iter_mut().all(Client::speaks), "a plan changes nothing");
    fs::rename(&other, daemon.lvs_path()).unwrap();
    assert!(daemon.xlvs("reload").0);
    wait_until("two are broken, as foretold", || daemon.status().connections == 2);
    assert_eq!(clients.iter_mut().map(Client::speaks).filter(|speaks| *speaks).count(), 2);
}

#[test]
fn what_is_not_confirmed_goes_back_by_itself() {
    let rig = Rig::new();
    let _ends = serve(&rig);
    let daemon = start(&rig, "");
    let mut clients = [b'a', b'b'].map(|word| Client::connect(&rig, word));
    let other = daemon.lvs_path().with_file_name("other.cf");
    fs::write(&other, without_two().replace("scheduler = rr", "scheduler = wlc")).unwrap();
    let before = daemon.listing("-Ln");
    let (done, told) = daemon.xlvs(&format!("apply {} --confirm 3s", other.display()));
    assert!(done && told.contains("it goes back by itself in 3 s"), "{told}");
    assert!(shows(&daemon, "10.1.0.30:8080 wlc"));
    let (_, status) = daemon.xlvs("status");
    assert!(status.contains("other.cf, on trial: the former one comes back in "), "{status}");
    let (done, told) = daemon.xlvs("reload");
    assert!(!done && told.contains("is on trial for"), "{told}");
    assert!(clients.iter_mut().all(Client::speaks));
    wait_until("the former configuration is back", || daemon.listing("-Ln") == before);
    assert!(clients.iter_mut().all(Client::speaks));
    assert!(daemon.read_log().contains("nobody has confirmed the configuration of"));
    // And one that is confirmed stays, and takes the site's file's place.
    let (done, _) = daemon.xlvs(&format!("apply {} --confirm 60s --install", other.display()));
    assert!(done);
    let (done, told) = daemon.xlvs("confirm");
    assert!(done && told.contains("installed as "), "{told}");
    assert_eq!(fs::read_to_string(daemon.lvs_path()).unwrap(), fs::read_to_string(&other).unwrap());
    assert!(daemon.xlvs("reload").0 && shows(&daemon, "10.1.0.30:8080 wlc"));
    assert_eq!(daemon.xlvs("confirm"), (false, "no configuration is on trial\n".into()));
    assert!(clients.iter_mut().all(Client::speaks));
}
