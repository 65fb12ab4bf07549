//! The SCTP state tables of IPVS (ipvs.md section 3.3): only the type of a packet's first chunk counts, and an ABORT that is
//! bundled behind a COOKIE ECHO or COOKIE ACK. Golden `sctp-states` walks through them.

use super::Course;
use crate::net::parse::SctpChunk;

/// Number of states.
pub const STATES: usize = 14;

/// Timeouts in seconds, by state number. Nothing sets them.
pub const TIMEOUTS: [u32; STATES] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

/// Association states, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet.
    None = 0,
    /// The client sent an INIT.
    Init1,
    /// It sent another one.
    Init,
    /// The server sent its cookie.
    CookieSent,
    /// The client returned the cookie.
    CookieReplied,
    /// The server sent an INIT, or the client a cookie: one of the two is awaited.
    CookieWait,
    /// Both ends sent cookies.
    Cookie,
    /// The server returned the cookie.
    CookieEchoed,
    /// Data may flow.
    Established,
    /// The server closes.
    ShutdownSent,
    /// The client closes.
    ShutdownReceived,
    /// The server agreed to close.
    ShutdownAckSent,
    /// Aborted before it was established.
    Rejected,
    /// Over.
    Closed,
}

use State::{
    Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS, CookieWait as CW,
    Established as ES, Init as IN, Init1 as I1, None as NO, Rejected as RJ, ShutdownAckSent as SA,
    ShutdownReceived as SR, ShutdownSent as SS,
};

const ALL: [State; STATES] = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

/// Rows: DATA and whatever has no row of its own, INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, SHUTDOWN, SHUTDOWN ACK, SHUTDOWN
/// COMPLETE, ERROR, ABORT; columns: the state before.
type Table = [[State; STATES]; 10];

const INPUT: Table = [
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
    [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
    [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
    [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
];

const OUTPUT: Table = [
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
    [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
    [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
    [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
    [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
];

const INPUT_ONLY: Table = [
    [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
    [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],
    [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
    [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
    [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
];

/// The row of the tables for a packet.
fn row(chunk: SctpChunk) -> usize {
    match chunk.kind {
        _ if chunk.aborts => 9,
        SctpChunk::INIT => 1,
        SctpChunk::INIT_ACK => 2,
        SctpChunk::COOKIE_ECHO => 3,
        SctpChunk::COOKIE_ACK => 4,
        SctpChunk::SHUTDOWN => 5,
        SctpChunk::SHUTDOWN_ACK => 6,
        SctpChunk::SHUTDOWN_COMPLETE => 7,
        SctpChunk::ERROR => 8,
        _ => 0,
    }
}

impl State {
    /// The state of a number; numbers past the last are `None`, which nothing produces.
    pub fn from_number(number: u8) -> State {
        ALL.get(usize::from(number)).copied().unwrap_or(NO)
    }

    /// The state after a packet.
    pub fn next(self, course: Course, chunk: SctpChunk) -> State {
        let table = match course {
            Course::Input => &INPUT,
            Course::Output => &OUTPUT,
            Course::InputOnly => &INPUT_ONLY,
        };
        table[row(chunk)][self as usize]
    }

    /// Whether the handshake has begun and is not over.
    pub fn is_half_open(self) -> bool {
        matches!(self, I1 | IN | CS | CR | CW | CO | CE)
    }

    /// As listings show it.
    pub fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            I1 => "INIT1",
            IN => "INIT",
            CS => "C-SENT",
            CR => "C-REPLIED",
            CW => "C-WAIT",
            CO => "COOKIE",
            CE => "C-ECHOED",
            ES => "ESTABLISHED",
            SS => "S-SENT",
            SR => "S-RECEIVED",
            SA => "S-ACK-SENT",
            RJ => "REJECTED",
            CL => "CLOSED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(course: Course, kinds: &[u8]) -> Vec<&'static str> {
        let states = kinds.iter().scan(State::None, |state, &kind| {
            *state = state.next(course, SctpChunk { kind, aborts: kind == SctpChunk::ABORT });
            Some(state.name())
        });
        states.collect()
    }

    #[test]
    fn an_association_of_which_only_the_client_is_seen() {
        let kinds =
            [SctpChunk::INIT, SctpChunk::COOKIE_ECHO, 0, SctpChunk::SHUTDOWN, SctpChunk::SHUTDOWN_COMPLETE];
        let names = ["INIT1", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "CLOSED"];
        assert_eq!(walk(Course::InputOnly, &kinds), names);
    }
}
