//! The words after `=`, read as what the key takes (reference piranha.md, section 1.1).

use std::net::Ipv4Addr;

use super::complaint::{Fault, Reason};
use super::lex::{self, Word};
use super::lvs::{Choice, DeviceAddress};
use super::names::Names;
use crate::net::addr::Protocol;

/// The words of one value.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Words after `=`.
    pub words: &'a [Word<'a>],
    /// How names are looked up.
    pub names: Names<'a>,
}

/// Result of reading a value.
pub type Read<T> = Result<T, Fault>;

impl<'a> Value<'a> {
    /// Exactly one word.
    pub fn word(self) -> Read<&'a str> {
        self.exactly::<1>("one value (quote it if it has blanks)").map(|[word]| word.text)
    }

    /// One word, which keeps its single quotes: the original's checker strips only double quotes.
    pub fn text(self) -> Read<Option<String>> {
        let [word] = self.exactly("one text in double quotes")?;
        Ok(Some(match word.quote {
            Some('\'') => format!("'{}'", word.text),
            _ => word.text.to_owned(),
        }))
    }

    /// One word to own.
    pub fn string(self) -> Read<String> {
        self.word().map(str::to_owned)
    }

    /// A whole number.
    pub fn integer(self) -> Read<i32> {
        whole(self.word()?, "a whole number from -2147483648 to 2147483647")
    }

    /// A whole number of any size that fits 64 bits.
    pub fn long(self) -> Read<i64> {
        whole(self.word()?, "a whole number")
    }

    /// A firewall mark.
    pub fn mark(self) -> Read<u32> {
        whole(self.word()?, "a whole number from 0 to 4294967295")
    }

    /// 0 or 1.
    pub fn boolean(self) -> Read<bool> {
        let word = self.word()?;
        match whole::<i64>(word, "0 or 1")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::word(Reason::BooleanExpected, word, "0 or 1")),
        }
    }

    /// A port number as written, or the name of a TCP service (of TCP also where the key is about UDP).
    pub fn port(self) -> Read<i32> {
        let word = self.word()?;
        match (self.names.service)(word, Protocol::TCP) {
            Some(port) if lex::integer(word).is_none() => Ok(i32::from(port)),
            _ => whole(word, "a port number or the name of a TCP service of /etc/services"),
        }
    }

    /// A port number as written.
    pub fn port_number(self) -> Read<i32> {
        whole(self.word()?, "a port number; a server's port cannot be a name")
    }

    /// An IPv4 address or a host name.
    pub fn host(self) -> Read<Ipv4Addr> {
        host(self.word()?, self.names)
    }

    /// As `host`, with 0.0.0.0 read as absent.
    pub fn optional_host(self) -> Read<Option<Ipv4Addr>> {
        self.host().map(specified)
    }

    /// As `host`, not 0.0.0.0.
    pub fn director(self) -> Read<Option<Ipv4Addr>> {
        match self.host()? {
            Ipv4Addr::UNSPECIFIED => Err(Fault::word(
                Reason::InvalidHost,
                self.word()?,
                "the director's address; leave the line out if there is none",
            )),
            address => Ok(Some(address)),
        }
    }

    /// A literal IPv4 address, with 0.0.0.0 read as absent.
    pub fn address(self) -> Read<Option<Ipv4Addr>> {
        let word = self.word()?;
        lex::ipv4(word)
            .map(specified)
            .ok_or_else(|| Fault::word(Reason::InvalidArgument, word, "an IPv4 address (no name here)"))
    }

    /// A netmask, with 0.0.0.0 read as absent.
    pub fn mask(self) -> Read<Option<Ipv4Addr>> {
        let word = self.word()?;
        lex::ipv4(word)
            .map(specified)
            .ok_or_else(|| Fault::word(Reason::BadMask, word, "a netmask such as 255.255.255.0"))
    }

    /// A client mask. The original drops one that it cannot read without a word, and treats /32 as none.
    pub fn client_mask(self) -> Read<Option<Ipv4Addr>> {
        let mask = lex::ipv4(self.word()?).and_then(specified);
        Ok(mask.filter(|mask| *mask != Ipv4Addr::BROADCAST))
    }

    /// `ADDRESS DEVICE`; the address 0.0.0.0 is kept, it is what the web tool writes for a new virtual server.
    pub fn device_address(self) -> Read<Option<DeviceAddress>> {
        let [address, device] = self.exactly("an address and a device, such as 192.0.2.100 eth0:1")?;
        Ok(Some(DeviceAddress { address: host(address.text, self.names)?, device: device.text.to_owned() }))
    }

    /// One of an enum's words.
    pub fn choice<T: Choice>(self) -> Read<T> {
        let word = self.word()?;
        T::from_word(word)
            .ok_or_else(|| Fault::word(Reason::InvalidArgument, word, format!("one of {}", T::words())))
    }

    /// `[ a b c ]`, of which nothing is kept.
    pub fn list(self) -> Read<()> {
        match self.words {
            [first, .., last] if first.text == "[" && last.text == "]" => Ok(()),
            [] => Err(Fault::absent(Reason::ListExpected, "[ word word ... ]")),
            [first, ..] => Err(Fault::word(Reason::ListExpected, first.text, "[ word word ... ]")),
        }
    }

    fn exactly<const N: usize>(self, expected: &str) -> Read<[Word<'a>; N]> {
        match <[Word; N]>::try_from(self.words) {
            Ok(words) => Ok(words),
            Err(_) if self.words.len() < N => Err(Fault::absent(Reason::MissingArguments, expected)),
            Err(_) => Err(unexpected(self.words[N].text, expected)),
        }
    }
}

/// The fault of a word too many.
pub fn unexpected(word: &str, expected: &str) -> Fault {
    match word.starts_with('#') {
        true => Fault::word(
            Reason::UnexpectedArguments,
            word,
            "the end of the line; a comment needs a line of its own",
        ),
        false => Fault::word(Reason::UnexpectedArguments, word, expected),
    }
}

fn whole<T: TryFrom<i64>>(word: &str, expected: &str) -> Read<T> {
    lex::integer(word)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Fault::word(Reason::IntegerExpected, word, expected))
}

fn host(word: &str, names: Names<'_>) -> Read<Ipv4Addr> {
    lex::ipv4(word).or_else(|| (names.host)(word)).ok_or_else(|| {
        Fault::word(Reason::InvalidArgument, word, "an IPv4 address or a host name that resolves to one")
    })
}

fn specified(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}
