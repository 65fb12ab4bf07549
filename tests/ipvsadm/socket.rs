//! The control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use xlvs::admin::{ControlSocket, NoNames, Transport as _, TransportError};
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{Edit, Errno};
use xlvs::ipvs::view::TimeoutView;

use super::run_with;

#[test]
fn without_a_daemon_the_answer_is_that_of_a_missing_kernel_module_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let mut socket = ControlSocket::new(&path);
    let output = run_with("-Ln", "", &mut socket, &NoNames);
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "Can't initialize ipvs: Protocol not available",
            "Are you sure that IP Virtual Server is built in the kernel or as module?"
        ]
    );
    assert!(lines[2].starts_with("the xlvs daemon is not running: no answer on "), "{lines:?}");
    assert!(lines[2].contains(path.to_str().unwrap()), "{lines:?}");
    assert_eq!((output.stdout.as_str(), output.code, lines.len()), ("", 2, 3));
    assert_eq!(run_with("-Lnc", "", &mut socket, &NoNames), output);
}

#[test]
fn a_user_whom_the_daemon_refuses_before_it_is_asked_learns_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        stream.read_line(&mut String::new()).unwrap();
        for reply in [Reply::Done, Reply::Refused(Errno::EPERM)] {
            writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply).unwrap()).unwrap();
        }
    });
    let mut socket = ControlSocket::new(&path);
    let zero = || Request::Edit(Edit::Zero(None));
    assert_eq!(socket.call(zero()).unwrap(), Reply::Done);
    daemon.join().unwrap();
    // The refusal is there already, and nobody who reads.
    let answer = socket.call(zero());
    assert!(matches!(answer, Err(TransportError::NotPermitted { .. })), "{answer:?}");
}

#[test]
fn one_connection_carries_all_requests_of_a_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut asked = Vec::new();
        let replies =
            [Reply::Timeouts(TimeoutView { tcp: 900, tcp_fin: 120, udp: 300 }), Reply::Refused(Errno::ESRCH)];
        for reply in replies {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            asked.push(serde_json::from_str::<Request>(&line).unwrap());
            writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply).unwrap()).unwrap();
        }
        asked
    });
    let mut socket = ControlSocket::new(&path);
    let output = run_with("-R --compat", "-L --timeout\n-Z\n-C\n", &mut socket, &NoNames);
    assert_eq!(daemon.join().unwrap(), [Request::GetTimeouts, Request::Edit(Edit::Zero(None))]);
    assert_eq!(output.stdout, "Timeout (tcp tcpfin udp): 900 120 300\n");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines[0], "No such service");
    assert!(lines[1].contains("did not answer") && lines[1].contains("control.sock"), "{lines:?}");
    assert_eq!(output.code, 2);
}
