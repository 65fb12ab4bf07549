//! An FTP control connection: which answer is awaited, and what has been rewritten in it.

use std::net::{IpAddr, SocketAddr};

use super::ftp::{self, Answer, Command, PassiveMode, Place};
use super::sequence::Replacement;
use crate::net::addr::Family;

/// An answer's line is given up as another one if the place has not come by then.
const LINE_MAX: usize = 256;

/// What a control connection is about. Sequence numbers are the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FtpControl {
    pub(in crate::ipvs) awaited: Option<PassiveMode>,
    /// An answer whose end has not come yet.
    pub(in crate::ipvs) line: Option<Line>,
    pub(in crate::ipvs) replacement: Option<Replacement>,
}

/// The beginning of an answer, as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ipvs) struct Line {
    pub(in crate::ipvs) mode: PassiveMode,
    pub(in crate::ipvs) start: u32,
    pub(in crate::ipvs) text: Vec<u8>,
}

impl Line {
    fn end(&self) -> u32 {
        self.start.wrapping_add(self.text.len() as u32)
    }
}

/// A place that the server has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where it listens.
    pub place: SocketAddr,
    /// Mode, sequence number and length of the bytes to be replaced; `None` if they have been.
    stretch: Option<(PassiveMode, u32, usize)>,
}

impl FtpControl {
    /// Reads a client's payload. Returns where the client wants to be called.
    pub fn read_client(&mut self, payload: &[u8], family: Family) -> Option<SocketAddr> {
        match ftp::command(payload, family)? {
            Command::Passive(mode) => {
                self.awaited = Some(mode);
                None
            }
            Command::Active(place) => {
                self.awaited = None;
                Some(place)
            }
        }
    }

    /// Reads a payload of the server at `server`, to be followed by [`FtpControl::rewrite`]. An answer that is cut off goes on
    /// its way at once, with `own` in place of the server's address.
    pub fn read_server(
        &mut self,
        sequence: u32,
        payload: &[u8],
        server: IpAddr,
        own: IpAddr,
    ) -> Option<Announcement> {
        match self.line.take() {
            Some(line) => self.read_on(line, sequence, payload, server, own),
            None => self.read_lines(self.awaited?, sequence, payload, server, own),
        }
    }

    fn read_lines(
        &mut self,
        mode: PassiveMode,
        sequence: u32,
        payload: &[u8],
        server: IpAddr,
        own: IpAddr,
    ) -> Option<Announcement> {
        for (offset, text) in lines(payload) {
            let start = sequence.wrapping_add(offset as u32);
            match ftp::answer(text, mode, Family::from(server)) {
                Answer::Unfinished if text.len() < LINE_MAX => {
                    self.keep(Line { mode, start, text: text.to_vec() }, own)
                }
                Answer::At(place) => {
                    let from = start.wrapping_add(place.bytes.start as u32);
                    let stretch = Some((mode, from, place.bytes.len()));
                    return Some(self.announce(&place, (server, own), stretch));
                }
                Answer::Other | Answer::Unfinished => {}
            }
        }
        None
    }

    /// The next piece of a line that was cut off.
    fn read_on(
        &mut self,
        mut line: Line,
        sequence: u32,
        payload: &[u8],
        server: IpAddr,
        own: IpAddr,
    ) -> Option<Announcement> {
        let known = usize::try_from(line.end().wrapping_sub(sequence) as i32).ok();
        let Some(news) = known.and_then(|known| payload.get(known..)) else {
            self.line = Some(line);
            return None;
        };
        let next = news.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &news[end + 1..]);
        let next_sequence = sequence.wrapping_add((payload.len() - next.len()) as u32);
        line.text.extend_from_slice(news);
        let answer = ftp::answer(&line.text, line.mode, Family::from(server));
        if answer == Answer::Unfinished && line.text.len() < LINE_MAX {
            self.keep(line, own);
            return None;
        }
        self.replace_address(&line, own, true);
        match answer {
            Answer::At(place) => Some(self.announce(&place, (server, own), None)),
            Answer::Other | Answer::Unfinished => {
                self.read_lines(line.mode, next_sequence, next, server, own)
            }
        }
    }

    /// A server that names the virtual address means itself: it has been told how clients reach it.
    fn announce(
        &mut self,
        place: &Place,
        (server, own): (IpAddr, IpAddr),
        stretch: Option<(PassiveMode, u32, usize)>,
    ) -> Announcement {
        self.awaited = None;
        let address = place.address.filter(|address| *address != own).unwrap_or(server);
        Announcement { place: SocketAddr::new(address, place.port), stretch }
    }

    fn keep(&mut self, line: Line, own: IpAddr) {
        self.replace_address(&line, own, false);
        self.line = Some(line);
    }

    /// Replaces the address alone in a line that was cut off, as far as it has come; nothing more of it will if `over`.
    fn replace_address(&mut self, line: &Line, own: IpAddr, over: bool) {
        let (PassiveMode::Plain, IpAddr::V4(own)) = (line.mode, own) else { return };
        let Some(address) = ftp::unfinished_address(&line.text) else { return };
        let from = line.start.wrapping_add(address.bytes.start as u32);
        let open = !address.whole && !over;
        match &mut self.replacement {
            Some(present) if present.begins_at(from) => present.extend(address.bytes.len(), open),
            former => {
                let text = ftp::address_text(own);
                let replacement = Replacement::new(from, address.bytes.len(), text, former.as_ref());
                *former = Some(if open { replacement.open() } else { replacement });
            }
        }
    }

    /// From now on `place` goes to the client in place of what was announced.
    pub fn replace(&mut self, announcement: &Announcement, place: SocketAddr) {
        let Some((mode, from, len)) = announcement.stretch else { return };
        let text = ftp::place_text(place, mode);
        self.replacement = Some(Replacement::new(from, len, text, self.replacement.as_ref()));
    }

    /// Whether a payload must wait until what is missing before it has come: its numbers depend on that.
    pub fn holds_back(&self, sequence: u32) -> bool {
        self.line.as_ref().is_some_and(|line| (line.end().wrapping_sub(sequence) as i32) < 0)
    }

    /// What leaves in place of a server's payload, if it does not stay as it is.
    pub fn rewrite(&self, sequence: u32, payload: &[u8]) -> Option<Vec<u8>> {
        self.replacement.as_ref().and_then(|replacement| replacement.apply(sequence, payload))
    }

    /// A server's sequence number as the client counts.
    pub fn shift(&self, sequence: u32) -> u32 {
        self.replacement.as_ref().map_or(sequence, |replacement| replacement.shift(sequence))
    }

    /// A client's acknowledgement as the server counts.
    pub fn unshift(&self, acknowledgement: u32) -> u32 {
        self.replacement.as_ref().map_or(acknowledgement, |replacement| replacement.unshift(acknowledgement))
    }
}

/// Every line's offset, and what follows from there.
fn lines(payload: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let behind = |(place, byte): (usize, &u8)| (*byte == b'\n').then_some(place + 1);
    let starts = std::iter::once(0).chain(payload.iter().enumerate().filter_map(behind));
    starts.filter(|start| *start < payload.len()).map(|start| (start, &payload[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 8, 34));
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 1, 30));
    const PLACE: &str = "10.8.8.34:40000";

    /// Lets a server send `stream` in segments that end at `cuts`; what the client has then, and the place announced.
    fn told(stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<SocketAddr>) {
        let mut control = FtpControl::default();
        control.read_client(b"PASV\r\n", Family::V4);
        let (mut arrived, mut place) = (Vec::new(), None);
        let mut start = 0;
        for end in cuts.iter().copied().chain([stream.len()]) {
            let sequence = (u32::MAX - 20).wrapping_add(start as u32);
            let payload = &stream[start..end];
            assert!(!control.holds_back(sequence));
            if let Some(announcement) = control.read_server(sequence, payload, SERVER, OWN) {
                control.replace(&announcement, SocketAddr::new(OWN, announcement.place.port()));
                place = Some(announcement.place);
            }
            let number = control.shift(sequence).wrapping_sub(u32::MAX - 20) as usize;
            arrived.truncate(number);
            assert_eq!(arrived.len(), number, "a hole, cut at {cuts:?}");
            arrived.extend(control.rewrite(sequence, payload).unwrap_or_else(|| payload.to_vec()));
            let all = control.unshift((u32::MAX - 20).wrapping_add(arrived.len() as u32));
            assert_eq!(all, sequence.wrapping_add(payload.len() as u32), "acknowledged, cut at {cuts:?}");
            start = end;
        }
        (arrived, place)
    }

    #[test]
    fn however_an_answer_is_cut_the_client_is_told_the_same() {
        let stream = b"200 ok\r\n227 Entering Passive Mode (10,8,8,34,156,64).\r\n150 ok\r\n";
        let expected = b"200 ok\r\n227 Entering Passive Mode (10,10,1,30,156,64).\r\n150 ok\r\n";
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let (arrived, place) = told(stream, &[first, second]);
                let arrived = String::from_utf8_lossy(&arrived).into_owned();
                assert_eq!(arrived, String::from_utf8_lossy(expected), "cut at {first} and {second}");
                assert_eq!(place, PLACE.parse().ok(), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_after_all_ends() {
        let (arrived, place) = told(b"227 (10,8,8\r\n200 10,8,8,34,1,2 ok\r\n", &[8]);
        assert_eq!(place, None);
        assert!(arrived.ends_with(b"200 10,8,8,34,1,2 ok\r\n"), "{}", String::from_utf8_lossy(&arrived));
    }
}
