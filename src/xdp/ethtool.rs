//! Questions to a driver in the words of <linux/ethtool.h>: queues, offloads, and how it spreads packets over queues.

use std::io;

use crate::xdp::interface::ask_driver;

/// Commands of <linux/ethtool.h>.
const GET_DRIVER: u32 = 0x03;
const GET_TRANSMIT_CHECKSUM: u32 = 0x16;
const GET_FLAGS: u32 = 0x25;
const GET_RECEIVE_OFFLOAD: u32 = 0x2b;
const GET_CHANNELS: u32 = 0x3c;
const GET_SPREADING: u32 = 0x46;

/// Bits of [`GET_FLAGS`].
const FLAG_TAGS_STRIPPED: u32 = 1 << 8;
const FLAG_LARGE_RECEIVE: u32 = 1 << 15;

/// Words of `struct ethtool_drvinfo`, and where in it the name lies.
const DRIVER_WORDS: usize = 49;
const DRIVER_NAME: std::ops::Range<usize> = 1..9;
/// Words of `struct ethtool_channels`.
const CHANNEL_WORDS: usize = 9;
/// Words of `struct ethtool_rxfh` before the table and the key.
const SPREADING_WORDS: usize = 6;

/// Receive and transmit queues in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub receive: u32,
    /// Transmit queues.
    pub transmit: u32,
    /// How many of both there could be; 0 if the driver does not say.
    pub most: u32,
}

/// What a driver does to packets on its own. `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Leaves the checksums of what is sent to the hardware.
    pub transmit_checksum: Option<bool>,
    /// Joins received segments in hardware or driver.
    pub large_receive: Option<bool>,
    /// Joins received segments in the kernel.
    pub generic_receive: Option<bool>,
    /// Takes VLAN tags off received frames.
    pub tags_stripped: Option<bool>,
}

/// How a NIC spreads packets over its receive queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spreading {
    /// Whether the hash is Toeplitz's, which its key alone can make symmetric.
    pub toeplitz: bool,
    /// Whether the NIC makes both directions' addresses the same before it hashes.
    pub symmetric_input: bool,
    /// The key of the hash; may be empty.
    pub key: Vec<u8>,
    /// The receive queue of each part of the hash's range.
    pub table: Vec<u32>,
}

impl Spreading {
    /// Whether a packet and its answer with the addresses and ports swapped go to the same queue.
    pub fn is_symmetric(&self) -> bool {
        let repeats = self.key.chunks_exact(2).all(|pair| pair == &self.key[..2]);
        self.symmetric_input || (self.toeplitz && self.key.len() >= 2 && repeats)
    }
}

/// The driver's queues.
pub(super) fn channels(interface: &str) -> io::Result<Queues> {
    let mut words = [0; CHANNEL_WORDS];
    words[0] = GET_CHANNELS;
    ask_driver(interface, &mut words)?;
    let [_, most_receive, most_transmit, _, most_combined, receive, transmit, _, combined] = words;
    Ok(Queues {
        receive: receive + combined,
        transmit: transmit + combined,
        most: most_combined.max(most_receive.min(most_transmit)),
    })
}

/// The driver's name; `None` if it has none.
pub(super) fn driver(interface: &str) -> Option<String> {
    let mut words = [0; DRIVER_WORDS];
    words[0] = GET_DRIVER;
    ask_driver(interface, &mut words).ok()?;
    let bytes: Vec<u8> = words[DRIVER_NAME].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// The driver's offloads.
pub(super) fn offloads(interface: &str) -> Offloads {
    let flags = value(interface, GET_FLAGS);
    let is_set = |flag: u32| flags.map(|flags| flags & flag != 0);
    Offloads {
        transmit_checksum: value(interface, GET_TRANSMIT_CHECKSUM).map(|value| value != 0),
        large_receive: is_set(FLAG_LARGE_RECEIVE),
        generic_receive: value(interface, GET_RECEIVE_OFFLOAD).map(|value| value != 0),
        tags_stripped: is_set(FLAG_TAGS_STRIPPED),
    }
}

fn value(interface: &str, command: u32) -> Option<u32> {
    let mut words = [command, 0];
    ask_driver(interface, &mut words).ok()?;
    Some(words[1])
}

/// How the NIC spreads packets; `None` if it does not say, as one without hardware.
pub(super) fn spreading(interface: &str) -> Option<Spreading> {
    let mut head = [0; SPREADING_WORDS];
    head[0] = GET_SPREADING;
    // At first without room: the driver then says how much it needs.
    ask_driver(interface, &mut head).ok()?;
    let (table, key) = (head[2] as usize, head[3] as usize);
    let mut words = vec![0; SPREADING_WORDS + table + key.div_ceil(4)];
    words[..4].copy_from_slice(&[GET_SPREADING, 0, head[2], head[3]]);
    ask_driver(interface, &mut words).ok()?;
    let [function, input, ..] = words[4].to_ne_bytes();
    let (table, rest) = words[SPREADING_WORDS..].split_at(table);
    let key_bytes = rest.iter().flat_map(|word| word.to_ne_bytes()).take(key);
    Some(Spreading {
        toeplitz: function & 1 != 0,
        symmetric_input: input != 0,
        key: key_bytes.collect(),
        table: table.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_repeated_pair_makes_the_hash_symmetric() {
        let with = |key: &[u8]| Spreading { toeplitz: true, key: key.to_vec(), ..Spreading::default() };
        assert!(with(&[0x6d, 0x5a].repeat(20)).is_symmetric());
        assert!(!with(&[0x6d, 0x5a, 0x6d, 0x5b]).is_symmetric());
        assert!(!with(&[]).is_symmetric());
        assert!(!Spreading { toeplitz: false, ..with(&[0x6d, 0x5a].repeat(20)) }.is_symmetric());
        assert!(Spreading { symmetric_input: true, ..with(&[1, 2, 3, 4]) }.is_symmetric());
    }

    #[test]
    fn the_loopback_has_no_hash_to_tell_of() {
        assert_eq!(spreading("lo"), None);
    }
}
