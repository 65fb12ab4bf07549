//! The TCP state table of IPVS (ipvs.md section 3.1): no windows, no sequence numbers, only flags.

use super::Course;
use crate::net::parse::TcpFlags;

/// Number of states.
pub const STATES: usize = 11;

/// Default timeouts in seconds, by state number.
pub const TIMEOUTS: [u32; STATES] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

/// Connection states, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet.
    None = 0,
    /// Data may flow.
    Established,
    /// The server side sent a SYN first.
    SynSent,
    /// The client sent a SYN.
    SynRecv,
    /// The server closed first.
    FinWait,
    /// Both closed.
    TimeWait,
    /// Reset, or a segment that fits nothing.
    Close,
    /// The client closed first.
    CloseWait,
    /// Waiting for the last ACK.
    LastAck,
    /// An expected FTP data connection.
    Listen,
    /// secure_tcp: SYN/ACK awaited.
    SynAck,
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, None as NO,
    SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

const ALL: [State; STATES] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

/// Rows: SYN, FIN, ACK, RST; columns: the state before.
type Table = [[State; STATES]; 4];

/// The next states for each [`Course`].
#[derive(Debug)]
pub struct StateTables {
    input: Table,
    output: Table,
    input_only: Table,
}

const NORMAL: StateTables = StateTables {
    input: [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
    ],
    output: [
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    input_only: [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
};

/// `secure_tcp`: only what the server sends makes a connection established.
const SECURE: StateTables = StateTables {
    input: [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
    output: [
        [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
    input_only: [
        [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
};

impl StateTables {
    /// The tables of normal times, or those of `secure_tcp`.
    pub fn new(secure: bool) -> &'static StateTables {
        if secure { &SECURE } else { &NORMAL }
    }

    fn of(&self, course: Course) -> &Table {
        match course {
            Course::Input => &self.input,
            Course::Output => &self.output,
            Course::InputOnly => &self.input_only,
        }
    }
}

impl State {
    /// The state of a number; numbers past the last are `None`, which nothing produces.
    pub fn from_number(number: u8) -> State {
        ALL.get(usize::from(number)).copied().unwrap_or(NO)
    }

    /// The state after a segment. RST outweighs SYN, SYN outweighs FIN, FIN outweighs ACK; none of them closes.
    pub fn next(self, tables: &StateTables, course: Course, flags: TcpFlags) -> State {
        let row = match flags {
            TcpFlags { rst: true, .. } => 3,
            TcpFlags { syn: true, .. } => 0,
            TcpFlags { fin: true, .. } => 1,
            TcpFlags { ack: true, .. } => 2,
            _ => return CL,
        };
        tables.of(course)[row][self as usize]
    }

    /// Whether a connection in this state counts as active.
    pub fn is_active(self) -> bool {
        matches!(self, ES | SS | SR | SA)
    }

    /// Whether the handshake has begun and is not over.
    pub fn is_half_open(self) -> bool {
        matches!(self, SS | SR | SA)
    }

    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            ES => "ESTABLISHED",
            SS => "SYN_SENT",
            SR => "SYN_RECV",
            FW => "FIN_WAIT",
            TW => "TIME_WAIT",
            CL => "CLOSE",
            CW => "CLOSE_WAIT",
            LA => "LAST_ACK",
            LI => "LISTEN",
            SA => "SYNACK",
        }
    }
}
