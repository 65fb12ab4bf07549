//! FTP through the daemon: vsftpd is the server, curl the client.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use tempfile::TempDir;

use super::daemon::{Daemon, VIP};
use super::namespace::Namespace;
use super::rig::{Rig, wait_until};

const VIP6: &str = "fd00:1::30";
const SERVER6: &str = "fd00:2::2";

/// vsftpd, with one file; killed when dropped.
pub struct Server {
    process: Child,
    directory: TempDir,
}

impl Server {
    /// Serves on this port of all addresses of the rig's server.
    fn start(rig: &Rig, port: u16) -> Self {
        Self::start_in(&rig.server, "10.2.0.2", port)
    }

    /// Serves on this port of all addresses of a host that has this one.
    pub fn start_in(host: &Namespace, address: &str, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("files")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        // It refuses to chroot to where an anonymous user could write, and must be able to go there.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("files/megabyte"), megabyte()).unwrap();
        fs::write(path("vsftpd.conf"), configuration(directory.path(), port)).unwrap();
        let process = host.enter(|| Command::new("vsftpd").arg(path("vsftpd.conf")).spawn().unwrap());
        let server = Server { process, directory };
        let address = format!("{address}:{port}");
        wait_until("vsftpd listens", || host.enter(|| TcpStream::connect(&address).is_ok()));
        server
    }

    /// Where the client puts what it gets.
    pub fn received(&self) -> String {
        self.directory.path().join("received").display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "background=NO\nlisten=NO\nlisten_ipv6=YES\nlisten_port={port}\nftp_data_port={}\n\
         anonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\nanon_root={directory}/files\n\
         secure_chroot_dir={directory}/empty\nconnect_from_port_20=YES\nport_enable=YES\npasv_enable=YES\n\
         seccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\nxferlog_enable=NO\n",
        port - 1
    )
}

pub fn megabyte() -> Vec<u8> {
    (0..1_000_000u32).map(|i| (i % 251) as u8).collect()
}

/// Gets the file, and the directory's listing with the same control connection. The address that the server names is called.
fn fetch(rig: &Rig, server: &Server, host: &str, mode: &str) {
    let received = server.received();
    let curl = format!(
        "curl -sS --max-time 10 --no-ftp-skip-pasv-ip {mode} ftp://{host}/megabyte -o {received} ftp://{host}/"
    );
    let listing = rig.client.run(&curl);
    assert!(listing.contains("megabyte"), "{mode}: {listing}");
    assert!(fs::read(&received).unwrap() == megabyte(), "{mode}: another file arrived");
}

#[test]
fn passive_and_active_mode_work_with_either_pair_of_commands() {
    let rig = Rig::new();
    let server = Server::start(&rig, 21);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t {VIP}:21 -s rr"));
    daemon.ipvsadm(&format!("-a -t {VIP}:21 -r 10.2.0.2:21 -m"));
    for mode in ["--disable-epsv", "--ftp-pasv", "--ftp-port - --disable-eprt", "--ftp-port -"] {
        fetch(&rig, &server, VIP, mode);
    }
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn a_server_may_listen_on_another_port_and_be_found_by_a_mark() {
    let rig = Rig::new();
    let server = Server::start(&rig, 2121);
    let rule = format!("-d {VIP}/32 -p tcp -m tcp --dport 21 -j MARK --set-mark 21");
    let daemon = Daemon::start(&rig, &[&rule]);
    daemon.ipvsadm("-A -f 21 -s rr");
    daemon.ipvsadm("-a -f 21 -r 10.2.0.2:2121 -m");
    for mode in ["--disable-epsv", "--ftp-port -"] {
        fetch(&rig, &server, VIP, mode);
    }
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}

#[test]
fn ipv6_works_as_well() {
    let rig = Rig::new();
    for (namespace, interface, near, router) in
        [(&rig.client, "front", "fd00:1::2", "fd00:1::1"), (&rig.server, "back", SERVER6, "fd00:2::1")]
    {
        namespace.ip(&format!("address add {near}/64 dev eth0 nodad"));
        rig.router.ip(&format!("address add {router}/64 dev {interface} nodad"));
        namespace.ip(&format!("route add default via {router}"));
    }
    rig.router.ip(&format!("address add {VIP6}/128 dev front nodad"));
    rig.router.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    let server = Server::start(&rig, 21);
    let daemon = Daemon::start(&rig, &[]);
    daemon.ipvsadm(&format!("-A -t [{VIP6}]:21 -s rr"));
    daemon.ipvsadm(&format!("-a -t [{VIP6}]:21 -r [{SERVER6}]:21 -m"));
    for mode in ["--ftp-pasv", "--ftp-port -"] {
        fetch(&rig, &server, &format!("[{VIP6}]"), &format!("--globoff {mode}"));
    }
    let packets = daemon.stop();
    assert!(packets.dropped.is_empty(), "{packets:?}");
}
