//! Real servers for health checks: nginx with a certificate of its own authority, and dnsmasq.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// The name in the certificate; nginx has this host, and dnsmasq knows it.
pub const NAME: &str = "www.example.com";
/// What dnsmasq knows of it.
pub const ADDRESS: &str = "192.0.2.7";

/// A program; killed when dropped.
pub struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Running(child.unwrap_or_else(|error| panic!("{name:?}: {error}; tests/install.sh test installs it")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `address` takes connections, called from where the server is.
pub fn await_listener(address: SocketAddr) {
    let patience = (0..1000).map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(10)));
    for attempt in patience {
        if attempt.is_ok() {
            return;
        }
        // The server is starting, and nothing but trying again tells when it is there.
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("nobody listens on {address}");
}

/// A directory with the certificate of an authority (`ca.pem`) and one for [`NAME`] and `address` by it, valid in January 2026, with its key.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new(address: IpAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let validity = |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(2026, 1, 1);
            params.not_after = date_time_ymd(2026, 2, 1);
        };
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        validity(&mut authority);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority_key = KeyPair::generate().unwrap();
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let mut server = CertificateParams::new(vec![NAME.to_owned(), address.to_string()]).unwrap();
        validity(&mut server);
        let key = KeyPair::generate().unwrap();
        let pem = server.signed_by(&key, &issuer).unwrap().pem();
        fs::write(directory.path().join("ca.pem"), authority_pem).unwrap();
        fs::write(directory.path().join("server.pem"), pem).unwrap();
        fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Certificates(directory)
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// nginx on an address: HTTP/1 on 8080, HTTP/2 on 8082, both over TLS on 8443. `/` says `it works`, `/broken` is a 503, `/old` a 301,
/// `/large` 1 MB of `x`.
pub struct Nginx {
    _running: Running,
    _directory: TempDir,
    _certificates: Certificates,
}

impl Nginx {
    pub fn start(address: IpAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(address);
        let path = directory.path();
        fs::write(path.join("large"), "x".repeat(1 << 20)).unwrap();
        fs::write(path.join("nginx.conf"), configuration(path, address, &certificates)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(path.join("error.log")).arg("-p").arg(path).arg("-c").arg("nginx.conf");
        let running = Running::start(&mut command);
        for port in [8080, 8082, 8443] {
            await_listener((address, port).into());
        }
        Nginx { _running: running, _directory: directory, _certificates: certificates }
    }
}

/// A single process: its end is the server's end.
fn configuration(directory: &Path, address: IpAddr, certificates: &Certificates) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", directory.join("t").display()))
        .concat();
    let [certificate, key] =
        ["server.pem", "key.pem"].map(|name| certificates.path(name).display().to_string());
    let root = directory.display();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{temporary}ssl_certificate {certificate};\nssl_certificate_key {key};\n\
         server {{\nlisten {address}:8080 default_server;\nlisten {address}:8082 http2 default_server;\n\
         listen {address}:8443 ssl http2 default_server;\nreturn 404;\n}}\n\
         server {{\nlisten {address}:8080;\nlisten {address}:8082 http2;\nlisten {address}:8443 ssl http2;\n\
         server_name {NAME};\nadd_header X-Health \"good as gold\" always;\n\
         location = /large {{ root {root}; }}\nlocation = /broken {{ return 503; }}\n\
         location = /old {{ return 301 /; }}\nlocation / {{ return 200 \"it works\\n\"; }}\n}}\n}}\n"
    )
}

/// dnsmasq on port 5353 of an address.
pub struct Dnsmasq {
    _running: Running,
}

impl Dnsmasq {
    pub fn start(address: IpAddr) -> Self {
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
            "--pid-file=",
        ]);
        command.args(["--bind-interfaces", "--port=5353", "--log-facility=/dev/null"]);
        command.arg(format!("--listen-address={address}"));
        command.arg(format!("--host-record={NAME},{ADDRESS},2001:db8::7"));
        command.arg(format!("--mx-host=example.com,mail.{NAME},10"));
        command.args(["--txt-record=example.com,v=spf1 -all", "--cname=alias.example.com,www.example.com"]);
        command.args(["--local=/example.com/"]);
        let running = Running::start(&mut command);
        await_listener((address, 5353).into());
        Dnsmasq { _running: running }
    }
}
