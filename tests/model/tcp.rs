//! The TCP states of ipvs.md section 3.1, as its tables print them.

/// Columns of the tables.
pub const STATES: [&str; 11] = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];
/// Seconds by state.
pub const TIMEOUTS: [u64; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
/// Names in listings, by state.
pub const NAMES: [&str; 11] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

const INPUT: &str = "
 syn         SR ES ES SR SR SR SR SR SR SR SR
 fin         CL CW SS TW TW TW CL CW LA LI TW
 ack         ES ES SS ES FW TW CL CW CL LI ES
 rst         CL CL CL SR CL CL CL CL LA LI SR";
const OUTPUT: &str = "
 syn         SS ES SS SR SS SS SS SS SS LI SR
 fin         TW FW SS TW FW TW CL TW LA LI TW
 ack         ES ES SS ES FW TW CL CW LA ES ES
 rst         CL CL SS CL CL TW CL CL CL CL CL";

/// The number of a state that is named as in the tables.
pub fn number(state: &str) -> usize {
    STATES.iter().position(|name| *name == state).expect("a state of the tables")
}

/// The state after a segment with `flags` (letters of `SFRPA`) in one direction.
pub fn next(state: usize, from_client: bool, flags: &str) -> usize {
    let events = [('R', "rst"), ('S', "syn"), ('F', "fin"), ('A', "ack")];
    let Some((_, event)) = events.into_iter().find(|(letter, _)| flags.contains(*letter)) else {
        return number("CL");
    };
    let table = if from_client { INPUT } else { OUTPUT };
    let row = table.lines().find_map(|line| line.trim().strip_prefix(event)).expect("a row");
    number(row.split_whitespace().nth(state).expect("a column"))
}

/// Whether connections in this state count as active.
pub fn is_active(state: usize) -> bool {
    ["ES", "SS", "SR", "SA"].contains(&STATES[state])
}
