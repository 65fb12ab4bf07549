//! Heartbeats as bytes: Piranha's four (reference/piranha.md 4.2), or longer ones that prove who sent them and that they are new.
//!
//! # The authenticated form
//!
//! 68 bytes, numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | `xlvP` |
//! | 4 | version, 1 |
//! | 5 | the sender's role: 0 primary, 1 backup |
//! | 6 | path: 0 public, 1 private |
//! | 7 | 0 |
//! | 8–11 | the word |
//! | 12–19 | the sender's boot: a random number of this run |
//! | 20–27 | echo: the boot of the receiver as the sender knows it, 0 if not |
//! | 28–35 | number of the round, from 1 up; both paths carry the same |
//! | 36–67 | HMAC-SHA256 of the bytes before |
//!
//! No clock is needed. A message counts only if it echoes the receiver's present boot, so what was recorded before the receiver
//! started is never taken; within that, numbers only grow, and a boot that another one of the sender's has replaced stays
//! replaced. A message that is genuine but echoes another boot is answered at once, so that the sender learns the present one.
//! The role keeps a sender's own messages from being reflected to it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

/// Length of Piranha's heartbeat in bytes.
pub const PLAIN_LEN: usize = 4;
/// Length of an authenticated heartbeat in bytes.
pub const AUTHENTICATED_LEN: usize = SIGNED_LEN + 32;
/// Shortest key in bytes.
pub const KEY_LEN_MIN: usize = 16;

const SIGNED_LEN: usize = 36;
const MAGIC: [u8; 4] = *b"xlvP";
const VERSION: u8 = 1;

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// "I am active."
    Running,
    /// "I am alive and inactive."
    Stopped,
    /// Accepted and without effect, as in Piranha.
    Hold,
    /// Accepted and without effect, as in Piranha.
    Held,
}

impl Word {
    const ALL: [Word; 4] = [Word::Running, Word::Stopped, Word::Hold, Word::Held];

    const fn value(self) -> u32 {
        match self {
            Word::Running => 0xbdad_dbda,
            Word::Stopped => 0xadbd_dabd,
            Word::Hold => 0xdeaf_babe,
            Word::Held => 0xdeaf_dada,
        }
    }

    fn of(value: u32) -> Result<Word, Refusal> {
        Word::ALL.into_iter().find(|word| word.value() == value).ok_or(Refusal::Incompatible)
    }

    /// Piranha's heartbeat: the word in the byte order of the machine.
    pub const fn to_bytes(self) -> [u8; PLAIN_LEN] {
        self.value().to_ne_bytes()
    }

    /// The word of Piranha's heartbeat. Those of `service = fos` are incompatible, as in Piranha's lvs mode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Word, Refusal> {
        let bytes: [u8; PLAIN_LEN] = bytes.try_into().map_err(|_| Refusal::Malformed)?;
        Word::of(u32::from_ne_bytes(bytes))
    }
}

/// Which of the two directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one whose address is `primary`.
    Primary,
    /// The one whose address is `backup`.
    Backup,
}

impl Role {
    /// The other director's.
    pub const fn partner(self) -> Role {
        match self {
            Role::Primary => Role::Backup,
            Role::Backup => Role::Primary,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
        })
    }
}

/// Which of the two ways between the directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Between `primary` and `backup`.
    Public,
    /// Between `primary_private` and `backup_private`.
    Private,
}

impl Path {
    /// Both.
    pub const ALL: [Path; 2] = [Path::Public, Path::Private];
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Public => "public",
            Path::Private => "private",
        })
    }
}

/// Why a datagram is no heartbeat of the partner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It comes from an address that is not the partner's.
    #[error("heartbeat from a stranger")]
    Stranger,
    /// Wrong length or form. Piranha's words.
    #[error("bad heartbeat packet")]
    Malformed,
    /// An unknown word. Piranha's words.
    #[error("Incompatible heartbeat received -- other system not using identical services")]
    Incompatible,
    /// Piranha's form, where a key is set.
    #[error("heartbeat without authentication: set the key_file of [pulse] on both routers, or on neither")]
    Plain,
    /// The authenticated form, where no key is set.
    #[error(
        "authenticated heartbeat, but no key here: set the key_file of [pulse] on both routers, or on neither"
    )]
    NoKey,
    /// The HMAC is wrong.
    #[error("forged heartbeat, or the keys of the routers differ")]
    Forged,
    /// Genuine, but of a run that has the role of this one.
    #[error(
        "heartbeat of a router that has the same role as this one: primary and backup of lvs.cf must be the same on both"
    )]
    SameRole,
    /// Genuine, and has been received before, or is older than what has been.
    #[error("repeated heartbeat")]
    Repeated,
    /// Genuine, but not made for this run: it is to be answered by [`Wire::answer`].
    #[error("heartbeat that does not know this run yet")]
    Unfresh,
}

/// How many datagrams were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// See [`Refusal::Stranger`].
    pub stranger: u64,
    /// See [`Refusal::Malformed`].
    pub malformed: u64,
    /// See [`Refusal::Incompatible`].
    pub incompatible: u64,
    /// See [`Refusal::Plain`] and [`Refusal::NoKey`].
    pub unlike: u64,
    /// See [`Refusal::Forged`].
    pub forged: u64,
    /// See [`Refusal::SameRole`].
    #[serde(default)]
    pub same_role: u64,
    /// See [`Refusal::Repeated`].
    pub repeated: u64,
    /// See [`Refusal::Unfresh`].
    pub unfresh: u64,
}

impl Refused {
    /// Counts one; returns how many of the kind there are now.
    pub fn count(&mut self, refusal: Refusal) -> u64 {
        let count = match refusal {
            Refusal::Stranger => &mut self.stranger,
            Refusal::Malformed => &mut self.malformed,
            Refusal::Incompatible => &mut self.incompatible,
            Refusal::Plain | Refusal::NoKey => &mut self.unlike,
            Refusal::Forged => &mut self.forged,
            Refusal::SameRole => &mut self.same_role,
            Refusal::Repeated => &mut self.repeated,
            Refusal::Unfresh => &mut self.unfresh,
        };
        *count += 1;
        *count
    }

    /// All together.
    pub fn total(&self) -> u64 {
        let Refused { stranger, malformed, incompatible, unlike, forged, same_role, repeated, unfresh } =
            self;
        stranger + malformed + incompatible + unlike + forged + same_role + repeated + unfresh
    }
}

/// A key that both directors have.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// `None` if it has fewer than [`KEY_LEN_MIN`] bytes.
    pub fn new(bytes: &[u8]) -> Option<Key> {
        (bytes.len() >= KEY_LEN_MIN).then(|| Key(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The numbers of one run of the partner that have been received.
#[derive(Clone, Copy, Debug)]
struct PartnerRun {
    boot: u64,
    /// By path; 0 before the first.
    highest: [u64; 2],
}

/// Makes this director's heartbeats and judges the partner's.
#[derive(Clone, Debug)]
pub struct Wire {
    pub(super) role: Role,
    pub(super) mac: Option<Hmac<Sha256>>,
    pub(super) boot: u64,
    round: u64,
    /// Number of the last message of [`crate::pulse::account`].
    pub(super) accounts_sent: u64,
    /// The partner's boot and number of the last one received, by path.
    pub(super) accounts_heard: [(u64, u64); 2],
    partner: Option<PartnerRun>,
    /// Boots of the partner that others have replaced. Only genuine messages made for this run add to it.
    replaced: Vec<u64>,
    /// The boot of the last genuine message that was not made for this run.
    stale: u64,
    refused: Refused,
}

impl Wire {
    /// For a director in `role`; `boot` is random and not 0. Without a key heartbeats are Piranha's.
    pub fn new(role: Role, key: Option<&Key>, boot: u64) -> Wire {
        // HMAC takes keys of any length.
        let mac = key.and_then(|key| Hmac::new_from_slice(&key.0).ok());
        Wire {
            role,
            mac,
            boot,
            round: 0,
            accounts_sent: 0,
            accounts_heard: [(0, 0); 2],
            partner: None,
            replaced: Vec::new(),
            stale: 0,
            refused: Refused::default(),
        }
    }

    /// Whether heartbeats prove who sent them.
    pub fn is_authenticated(&self) -> bool {
        self.mac.is_some()
    }

    /// What was refused so far.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Counts what was refused before it came here; returns how many of the kind there are.
    pub fn refuse(&mut self, refusal: Refusal) -> u64 {
        self.refused.count(refusal)
    }

    /// Which run of the partner's is heard.
    pub(super) fn partner_boot(&self) -> Option<u64> {
        self.partner.map(|partner| partner.boot)
    }

    /// A heartbeat for each of `paths`.
    pub fn heartbeats(&mut self, word: Word, paths: &[Path]) -> Vec<(Path, Vec<u8>)> {
        self.round += 1;
        let echo = self.partner.map_or(self.stale, |partner| partner.boot);
        paths.iter().map(|path| (*path, self.heartbeat(word, *path, echo))).collect()
    }

    /// The answer to what was refused as [`Refusal::Unfresh`]: it tells the partner of this run.
    pub fn answer(&mut self, word: Word, path: Path) -> Vec<u8> {
        self.round += 1;
        self.heartbeat(word, path, self.stale)
    }

    fn heartbeat(&self, word: Word, path: Path, echo: u64) -> Vec<u8> {
        let Some(mac) = &self.mac else { return word.to_bytes().into() };
        let mut bytes = Vec::with_capacity(AUTHENTICATED_LEN);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.role as u8, path as u8, 0]);
        bytes.extend(word.value().to_le_bytes());
        for number in [self.boot, echo, self.round] {
            bytes.extend(number.to_le_bytes());
        }
        let code = mac.clone().chain_update(&bytes).finalize();
        bytes.extend(code.into_bytes());
        bytes
    }

    /// Judges a datagram that came by `path` from the partner's address. What is refused is counted.
    pub fn receive(&mut self, path: Path, bytes: &[u8]) -> Result<Word, Refusal> {
        let judged = match &self.mac {
            Some(mac) => open(mac, bytes).and_then(|message| self.judge(path, &message)),
            None if bytes.len() == AUTHENTICATED_LEN && bytes.starts_with(&MAGIC) => Err(Refusal::NoKey),
            None => Word::from_bytes(bytes),
        };
        judged.inspect_err(|refusal| {
            self.refused.count(*refusal);
        })
    }

    fn judge(&mut self, path: Path, message: &Message) -> Result<Word, Refusal> {
        let is_own = message.role == self.role as u8 && message.boot == self.boot;
        if message.path != path as u8 || is_own {
            return Err(Refusal::Forged);
        }
        if message.role != self.role.partner() as u8 {
            return Err(Refusal::SameRole);
        }
        if message.echo != self.boot {
            self.stale = message.boot;
            return Err(Refusal::Unfresh);
        }
        if self.replaced.contains(&message.boot) {
            return Err(Refusal::Repeated);
        }
        let run = match &mut self.partner {
            Some(run) if run.boot == message.boot => run,
            other => {
                self.replaced.extend(other.map(|former| former.boot));
                other.insert(PartnerRun { boot: message.boot, highest: [0; 2] })
            }
        };
        let newest = run.highest.into_iter().max().unwrap_or(0);
        let highest = &mut run.highest[path as usize];
        if message.round < newest || message.round <= *highest {
            return Err(Refusal::Repeated);
        }
        *highest = message.round;
        Word::of(message.word)
    }
}

/// What is in a genuine message.
struct Message {
    role: u8,
    path: u8,
    word: u32,
    boot: u64,
    echo: u64,
    round: u64,
}

fn open(mac: &Hmac<Sha256>, bytes: &[u8]) -> Result<Message, Refusal> {
    if bytes.len() == PLAIN_LEN {
        return Err(Refusal::Plain);
    }
    if bytes.len() != AUTHENTICATED_LEN || bytes[..5] != [&MAGIC[..], &[VERSION]].concat() {
        return Err(Refusal::Malformed);
    }
    let (signed, code) = bytes.split_at(SIGNED_LEN);
    mac.clone().chain_update(signed).verify_slice(code).map_err(|_| Refusal::Forged)?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&signed[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let mut word = [0; 4];
    word.copy_from_slice(&signed[8..12]);
    Ok(Message {
        role: signed[5],
        path: signed[6],
        word: u32::from_le_bytes(word),
        boot: number(12),
        echo: number(20),
        round: number(28),
    })
}
