//! What ipvsadm says to the kernel's error numbers (reference 9.2).

use super::options::Command;
use crate::ipvs::edit::Errno;

/// The text for `errno` as an answer to `command`.
pub fn refusal(command: Command, errno: Errno) -> String {
    use Command as C;
    let text = match (command, errno) {
        (C::AddService, Errno::EEXIST) => "Service already exists",
        (C::AddService | C::EditService, Errno::ENOENT) => "Scheduler or persistence engine not found",
        (C::EditService | C::DeleteService | C::Zero | C::List | C::Save, Errno::ESRCH) => "No such service",
        (C::AddServer | C::EditServer | C::DeleteServer, Errno::ESRCH) => "Service not defined",
        (C::AddServer, Errno::EEXIST) => "Destination already exists",
        (C::EditServer | C::DeleteServer, Errno::ENOENT) => "No such destination",
        (C::StartDaemon, Errno::EEXIST) => "Daemon has already run",
        (C::StopDaemon, Errno::ESRCH) => "No daemon is running",
        (_, Errno::EPERM) => "Permission denied (you must be root)",
        (_, Errno::EINVAL) => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        (_, Errno::EOPNOTSUPP) => "Operation not supported with IPv6",
        (_, Errno::EAFNOSUPPORT) => "Operation not supported with specified address family",
        (_, errno) => return errno.to_string(),
    };
    text.to_owned()
}
