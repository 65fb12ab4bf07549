//! The SCTP states of ipvs.md section 3.3, as its tables print them.

/// Columns of the tables.
pub const STATES: [&str; 14] =
    ["NO", "I1", "IN", "CS", "CR", "CW", "CO", "CE", "ES", "SS", "SR", "SA", "RJ", "CL"];
/// Seconds by state.
pub const TIMEOUTS: [u64; 14] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];
/// Names in listings, by state.
pub const NAMES: [&str; 14] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];
/// Chunks that have a row of their own.
const ROWS: [(&str, &str); 9] = [
    ("INIT", "i"),
    ("INIT-ACK", "ia"),
    ("COOKIE-ECHO", "ce"),
    ("COOKIE-ACK", "ca"),
    ("SHUTDOWN", "s"),
    ("SHUTDOWN-ACK", "sa"),
    ("SHUTDOWN-COMPLETE", "sc"),
    ("ERROR", "er"),
    ("ABORT", "ab"),
];

const INPUT: &str = "
 d           ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL
 i           I1 IN IN CS CR CW CO CE ES SS SR SA IN IN
 ia          CW CW CW CS CR CO CO CE ES SS SR SA RJ CL
 ce          CR IN IN CR CR CW CO CE ES SS SR SA RJ CL
 ca          ES I1 IN CS CR CW CO ES ES SS SR SA RJ CL
 s           SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL
 sa          CL IN IN CS CR CW CO CE ES CL SR CL RJ CL
 sc          CL CL CL CS CR CW CO CE ES SS SR CL RJ CL
 er          CL I1 IN CS CR CW CO CL ES SS SR SA RJ CL
 ab          CL CL CL CL CL RJ CL CL CL CL CL CL CL CL";
const OUTPUT: &str = "
 d           ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL
 i           CW CW CW CW CW CW CW CW ES CW CW CW CW CW
 ia          CS CS CS CS CR CW CO CE ES SS SR SA RJ CL
 ce          CE CE CE CE CE CE CE CE ES SS SR SA RJ CL
 ca          ES ES ES ES ES ES ES ES ES SS SR SA RJ CL
 s           SS SS SS SS SS SS SS SS SS SS SR SA RJ CL
 sa          SA SA SA SA SA CW CO CE ES SA SA SA RJ CL
 sc          CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL
 er          CL CL CL CL CL CW CO CE ES SS SR SA RJ CL
 ab          CL RJ CL CL CL CL CL CL CL CL CL CL CL CL";

/// The state after a packet whose first chunk is `chunk`, in one direction.
pub fn next(state: usize, from_client: bool, chunk: &str) -> usize {
    let event = ROWS.iter().find(|(name, _)| *name == chunk).map_or("d", |(_, event)| event);
    let table = if from_client { INPUT } else { OUTPUT };
    let mut rows = table.lines().map(str::split_whitespace);
    let mut row = rows.find(|row| row.clone().next() == Some(event)).expect("a row");
    let after = row.nth(1 + state).expect("a column");
    STATES.iter().position(|name| *name == after).expect("a state of the tables")
}
