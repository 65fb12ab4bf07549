//! What a director says of itself besides its heartbeats, for whoever asks the other one. It goes the heartbeats' way, and only
//! where a key is set: Piranha takes nothing but its four bytes, and nobody else is to put words into the partner's mouth.
//!
//! # The message
//!
//! Numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | `xlvA` |
//! | 4 | version, 1 |
//! | 5 | the sender's role: 0 primary, 1 backup |
//! | 6 | path: 0 public, 1 private |
//! | 7 | 0 |
//! | 8–15 | the sender's boot |
//! | 16–23 | echo: the receiver's boot as the sender knows it |
//! | 24–31 | number, from 1 up |
//! | 32– | JSON of [`Account`] |
//! | last 32 | HMAC-SHA256 of the bytes before |
//!
//! What makes a heartbeat count makes a message count, too; besides, the sender's boot has to be one that a heartbeat has made known.

use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use crate::pulse::report::State;
use crate::pulse::wire::{Path, Refusal, Wire};

/// Longest message in bytes: with its headers it fits every link.
pub const ACCOUNT_LEN_MAX: usize = 1200;

const MAGIC: [u8; 5] = *b"xlvA\x01";
const HEADER_LEN: usize = 32;
const CODE_LEN: usize = 32;
/// Longest reason in characters.
const WHY_MAX: usize = 200;

/// How connections are told of, and how far that has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// By which protocol: `ipvs` or `xlvs`.
    pub by: String,
    /// Whether this director tells of connections or is told.
    pub sends: bool,
    /// Connections in its table.
    pub connections: u64,
    /// Messages sent or received.
    pub messages: u64,
    /// Messages that were lost or refused.
    pub failed: u64,
    /// Whether both tables are known to be the same; IPVS's own protocol does not tell.
    pub in_sync: Option<bool>,
    /// Milliseconds by which the one that is told is behind, if that is known.
    pub lag_ms: Option<u64>,
}

/// A director in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Version of xlvs.
    pub version: String,
    /// What it does.
    pub state: State,
    /// Milliseconds for which it has done that.
    pub since_ms: u64,
    /// Why it does that.
    pub why: String,
    /// Its synchronisation; absent if there is none.
    pub sync: Option<SyncReport>,
}

impl Wire {
    /// A message for each of `paths`; none without a key, or before the partner has been heard.
    pub fn accounts(&mut self, account: &Account, paths: &[Path]) -> Vec<(Path, Vec<u8>)> {
        let (Some(mac), Some(echo)) = (self.mac.clone(), self.partner_boot()) else { return Vec::new() };
        let mut account = account.clone();
        account.why = account.why.chars().take(WHY_MAX).collect();
        let Ok(text) = serde_json::to_vec(&account) else { return Vec::new() };
        self.accounts_sent += 1;
        let message = |path: &Path| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([self.role as u8, *path as u8, 0]);
            for number in [self.boot, echo, self.accounts_sent] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(&text);
            let code = mac.clone().chain_update(&bytes).finalize();
            bytes.extend(code.into_bytes());
            (*path, bytes)
        };
        paths.iter().map(message).filter(|(_, bytes)| bytes.len() <= ACCOUNT_LEN_MAX).collect()
    }

    /// Whether a datagram looks like such a message and not like a heartbeat.
    pub fn is_account(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC[..4])
    }

    /// Judges a message that came by `path` from the partner's address. What is refused is counted.
    pub fn receive_account(&mut self, path: Path, bytes: &[u8]) -> Result<Account, Refusal> {
        let judged = self.judge_account(path, bytes);
        judged.inspect_err(|refusal| {
            self.refuse(*refusal);
        })
    }

    fn judge_account(&mut self, path: Path, bytes: &[u8]) -> Result<Account, Refusal> {
        let mac = self.mac.as_ref().ok_or(Refusal::NoKey)?;
        if bytes.len() < HEADER_LEN + CODE_LEN || bytes.len() > ACCOUNT_LEN_MAX || !bytes.starts_with(&MAGIC)
        {
            return Err(Refusal::Malformed);
        }
        let (signed, code) = bytes.split_at(bytes.len() - CODE_LEN);
        mac.clone().chain_update(signed).verify_slice(code).map_err(|_| Refusal::Forged)?;
        let (header, text) = signed.split_at(HEADER_LEN);
        let (numbers, _) = header[8..].as_chunks::<8>();
        let [boot, echo, number] = [0, 1, 2].map(|at| u64::from_le_bytes(numbers[at]));
        if header[5] != self.role.partner() as u8 || header[6] != path as u8 {
            return Err(Refusal::Forged);
        }
        if echo != self.boot || self.partner_boot() != Some(boot) {
            return Err(Refusal::Repeated);
        }
        let (run, highest) = self.accounts_heard[path as usize];
        if run == boot && number <= highest {
            return Err(Refusal::Repeated);
        }
        self.accounts_heard[path as usize] = (boot, number);
        serde_json::from_slice(text).map_err(|_| Refusal::Malformed)
    }
}
