//! What FTP's control connection says about data connections (RFC 959 sections 4.1.2 and 4.2.2, RFC 2428): bytes in, places out.
//!
//! What is understood and what is not follows the kernel's helper (goldens `ftp-notation`, `ftp-malformed`, `ftp-eprt`,
//! `ftp-epsv`): letter case does not matter, and numbers are taken modulo 256 or 65536.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use crate::net::addr::Family;

/// FTP's control port, which services for data connections are looked up by.
pub const CONTROL_PORT: u16 = 21;
/// The port that a server opens data connections from.
pub const DATA_PORT: u16 = 20;

const PLAIN_CODE: &[u8] = b"227 ";

/// A way to have the server name a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassiveMode {
    /// PASV, answered by 227.
    Plain,
    /// EPSV, answered by 229.
    Extended,
}

/// A client's command that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// PASV or EPSV.
    Passive(PassiveMode),
    /// PORT or EPRT: the client listens here.
    Active(SocketAddr),
}

/// The place in a server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bytes that name it.
    pub bytes: Range<usize>,
    /// Address, unless the answer leaves it out.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

/// What a server's line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing about a place.
    Other,
    /// It is cut off before the place ends.
    Unfinished,
    /// A place.
    At(Place),
}

/// The command of a client's segment. A passive one is found anywhere in it, an active one at its beginning.
pub fn command(payload: &[u8], family: Family) -> Option<Command> {
    passive(payload, family).map(Command::Passive).or_else(|| active(payload, family).map(Command::Active))
}

fn passive(payload: &[u8], family: Family) -> Option<PassiveMode> {
    let own_family: &[u8] = if family == Family::V4 { b" 1\r" } else { b" 2\r" };
    let mut starts = (0..payload.len().saturating_sub(5)).map(|start| &payload[start..]);
    starts.find_map(|bytes| {
        let (name, rest) = bytes.split_at(4);
        if family == Family::V4 && name.eq_ignore_ascii_case(b"PASV") && rest.starts_with(b"\r\n") {
            return Some(PassiveMode::Plain);
        }
        let extended =
            name.eq_ignore_ascii_case(b"EPSV") && (rest.starts_with(b"\r") || rest.starts_with(own_family));
        extended.then_some(PassiveMode::Extended)
    })
}

fn active(payload: &[u8], family: Family) -> Option<SocketAddr> {
    let (name, _) = payload.split_at_checked(4)?;
    let place = if name.eq_ignore_ascii_case(b"PORT") && family == Family::V4 {
        let start = blank(payload, 4, b' ', true)?;
        numbers(payload, start)
    } else if name.eq_ignore_ascii_case(b"EPRT") {
        let start = blank(payload, 4, b' ', false)?;
        fields(payload, start, family).filter(|place| place.address.is_some())
    } else {
        None
    }?;
    Some(SocketAddr::new(place.address?, place.port))
}

/// What a server's line that answers a passive command says.
pub fn answer(line: &[u8], mode: PassiveMode, family: Family) -> Answer {
    let code: &[u8] = match mode {
        PassiveMode::Plain => PLAIN_CODE,
        PassiveMode::Extended => b"229 ",
    };
    let line = &line[..line.iter().position(|byte| *byte == b'\n').map_or(line.len(), |end| end + 1)];
    let whole = line.last() == Some(&b'\n');
    if !line.starts_with(&code[..code.len().min(line.len())]) {
        return Answer::Other;
    }
    let place = blank(line, code.len(), b'(', mode == PassiveMode::Plain).and_then(|start| match mode {
        PassiveMode::Plain => numbers(line, start),
        PassiveMode::Extended => fields(line, start, family),
    });
    match place {
        Some(place) => Answer::At(place),
        None if whole => Answer::Other,
        None => Answer::Unfinished,
    }
}

/// The address in a 227 line that may be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartAddress {
    /// Its bytes, as far as they have come.
    pub bytes: Range<usize>,
    /// Whether that is all of it.
    pub whole: bool,
}

/// Where the address of a 227 line is: four numbers.
pub fn unfinished_address(line: &[u8]) -> Option<PartAddress> {
    let start = blank(line, 4, b'(', true).filter(|start| line[*start].is_ascii_digit())?;
    line.starts_with(PLAIN_CODE).then_some(())?;
    let (mut commas, mut end) = (0, start);
    for byte in &line[start..] {
        match byte {
            b'0'..=b'9' => {}
            b',' if commas < 3 => commas += 1,
            _ => return Some(PartAddress { bytes: start..end, whole: true }),
        }
        end += 1;
    }
    Some(PartAddress { bytes: start..end, whole: false })
}

/// The first byte behind a run of `opening`; with `digit` a digit will do without one.
fn blank(bytes: &[u8], from: usize, opening: u8, digit: bool) -> Option<usize> {
    let mut opened = false;
    for (place, byte) in bytes.iter().enumerate().skip(from) {
        match *byte {
            byte if byte == opening => opened = true,
            byte if opened || (digit && byte.is_ascii_digit()) => return Some(place),
            _ => {}
        }
    }
    None
}

/// `h1,h2,h3,h4,p1,p2` and any byte behind it.
fn numbers(bytes: &[u8], start: usize) -> Option<Place> {
    let mut numbers = [0_u8; 6];
    let mut index = 0;
    for (place, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'0'..=b'9' => numbers[index] = numbers[index].wrapping_mul(10).wrapping_add(byte - b'0'),
            b',' if index < 5 => index += 1,
            _ if index < 5 => return None,
            _ => {
                let [a, b, c, d, high, low] = numbers;
                let address = Some(IpAddr::from([a, b, c, d]));
                let port = u16::from_be_bytes([high, low]);
                return Some(Place { bytes: start..place, address, port });
            }
        }
    }
    None
}

/// `|protocol|address|port|` with any delimiter; protocol and address may both be left out.
fn fields(bytes: &[u8], start: usize, family: Family) -> Option<Place> {
    let delimiter = *bytes.get(start).filter(|byte| byte.is_ascii_graphic())?;
    let mut ends = (start..bytes.len()).filter(|place| bytes[*place] == delimiter);
    let [_, protocol, address, end] = [ends.next()?, ends.next()?, ends.next()?, ends.next()?];
    let port = port(&bytes[address + 1..end])?;
    let address = match (&bytes[start + 1..protocol], &bytes[protocol + 1..address]) {
        (b"", b"") => None,
        (b"1", text) if family == Family::V4 => Some(IpAddr::V4(parse(text)?)),
        (b"2", text) if family == Family::V6 => Some(IpAddr::V6(parse(text)?)),
        _ => return None,
    };
    Some(Place { bytes: start..end + 1, address, port })
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn port(digits: &[u8]) -> Option<u16> {
    let mut port = 0_u16;
    for digit in digits {
        let value = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        port = port.wrapping_mul(10).wrapping_add(value);
    }
    (port != 0).then_some(port)
}

/// A place as a 227 or 229 answer names it.
pub fn place_text(place: SocketAddr, mode: PassiveMode) -> Vec<u8> {
    match (mode, place) {
        (PassiveMode::Plain, SocketAddr::V4(place)) => {
            let [high, low] = place.port().to_be_bytes();
            [address_text(*place.ip()), format!(",{high},{low}").into_bytes()].concat()
        }
        _ => format!("|||{}|", place.port()).into_bytes(),
    }
}

/// An address as a 227 answer names it, without the port.
pub fn address_text(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    format!("{a},{b},{c},{d}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_unfinished_until_a_byte_behind_the_place() {
        let line = b"227 Entering Passive Mode (10,8,8,34,156,64).\r\n";
        let end = line.len() - b").\r\n".len();
        for cut in 0..=end {
            let answer = answer(&line[..cut], PassiveMode::Plain, Family::V4);
            assert_eq!(answer, Answer::Unfinished, "cut off at {cut}");
        }
        for cut in end + 1..=line.len() {
            let answer = answer(&line[..cut], PassiveMode::Plain, Family::V4);
            assert!(matches!(answer, Answer::At(Place { port: 40000, .. })), "cut off at {cut}: {answer:?}");
        }
    }

    #[test]
    fn another_line_is_not_waited_for() {
        assert_eq!(answer(b"22", PassiveMode::Plain, Family::V4), Answer::Unfinished);
        assert_eq!(answer(b"23", PassiveMode::Plain, Family::V4), Answer::Other);
        assert_eq!(answer(b"227 no\r\n227 (1,2,3,4,5,6)", PassiveMode::Plain, Family::V4), Answer::Other);
    }

    #[test]
    fn addresses_of_the_other_family_are_not_understood() {
        assert_eq!(command(b"EPRT |2|2001:db8::1|20001|\r\n", Family::V4), None);
        assert_eq!(command(b"PORT 192,0,2,10,78,32\r\n", Family::V6), None);
        let place = SocketAddr::new("2001:db8::1".parse().expect("an address"), 20001);
        let command = command(b"EPRT |2|2001:db8::1|20001|\r\n", Family::V6);
        assert_eq!(command, Some(Command::Active(place)));
    }
}
