//! A DNS query.

use std::io;

use domain::base::iana::Rcode;
use domain::base::name::{Name, UncertainName};
use domain::base::{Message, MessageBuilder, Rtype};
use domain::rdata::AllRecordData;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::nanny::check::DnsQuery;
use crate::nanny::connect::Target;
use crate::nanny::failure::ProbeFailure;
use crate::nanny::run::random;

/// Largest answer over UDP that is read, in bytes; a server keeps to 512 unless told otherwise.
const UDP_LIMIT: usize = 4096;

/// Asks, and judges the answer. Over TCP to connect and to ask may take the limit each.
pub(super) async fn ask(target: &Target, wanted: &DnsQuery) -> Result<(), ProbeFailure> {
    let server = target.server;
    let protocol = |text: String| ProbeFailure::Protocol("DNS", server, text);
    let question = Question::new(wanted).map_err(protocol)?;
    let answer = match wanted.tcp {
        true => question.over_tcp(target).await?,
        false => question.over_udp(target).await?,
    };
    question.judge(&answer).map_err(protocol)
}

struct Question<'a> {
    wanted: &'a DnsQuery,
    message: Vec<u8>,
}

impl<'a> Question<'a> {
    fn new(wanted: &'a DnsQuery) -> Result<Self, String> {
        let name = absolute(&wanted.name).ok_or_else(|| format!("{} is no domain name", wanted.name))?;
        let record_type = wanted.record_type.parse::<Rtype>();
        let record_type =
            record_type.map_err(|_| format!("there is no type of record {}", wanted.record_type))?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(random() as u16);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((name, record_type)).map_err(|error| error.to_string())?;
        Ok(Question { wanted, message: builder.finish() })
    }

    async fn over_udp(&self, target: &Target) -> Result<Vec<u8>, ProbeFailure> {
        let server = target.server;
        let socket = target.udp().await?;
        socket.send(&self.message).await.map_err(|error| ProbeFailure::Write(server, error))?;
        let mut answer = vec![0; UDP_LIMIT];
        let receiving = async {
            loop {
                let len = socket.recv(&mut answer).await?;
                if self.is_answered_by(&answer[..len]) {
                    return io::Result::Ok(len);
                }
            }
        };
        let len = target.in_time(receiving).await;
        let len = len
            .ok_or_else(|| ProbeFailure::ReadTimeout(server, Vec::new()))?
            .map_err(|error| ProbeFailure::Read(server, error))?;
        answer.truncate(len);
        Ok(answer)
    }

    async fn over_tcp(&self, target: &Target) -> Result<Vec<u8>, ProbeFailure> {
        let server = target.server;
        let mut stream = target.tcp().await?;
        let exchange = async {
            // A question is far shorter than 64 KB.
            let length = self.message.len() as u16;
            stream.write_all(&[&length.to_be_bytes()[..], &self.message].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = target.in_time(exchange).await;
        answer
            .ok_or_else(|| ProbeFailure::ReadTimeout(server, Vec::new()))?
            .map_err(|error| ProbeFailure::Read(server, error))
    }

    fn is_answered_by(&self, answer: &[u8]) -> bool {
        let Ok(question) = Message::from_octets(&self.message) else { return false };
        Message::from_octets(answer).is_ok_and(|answer| answer.is_answer(&question))
    }

    fn judge(&self, answer: &[u8]) -> Result<(), String> {
        if !self.is_answered_by(answer) {
            return Err("the answer is to another question".to_owned());
        }
        let answer = Message::from_octets(answer).map_err(|error| error.to_string())?;
        if answer.header().rcode() != Rcode::NOERROR {
            return Err(format!("the answer is {}", answer.header().rcode()));
        }
        let Some(wanted) = &self.wanted.answer else { return Ok(()) };
        let records = answer.answer().map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for record in records.limit_to::<AllRecordData<_, _>>() {
            let record = record.map_err(|error| error.to_string())?;
            if record.rtype().to_string() == self.wanted.record_type {
                found.push(record.data().to_string());
            }
        }
        if found.iter().any(|data| is_same(data, wanted)) {
            return Ok(());
        }
        let cut = if answer.header().tc() { ", and it was cut short" } else { "" };
        match found.as_slice() {
            [] => Err(format!("the answer has no record of type {}{cut}", self.wanted.record_type)),
            [first, ..] => Err(format!("{wanted} is not in the answer, but {first}{cut}")),
        }
    }
}

/// Names may end in a dot or not, addresses may be written in several ways; capitals and the number of blanks do not matter.
fn is_same(data: &str, wanted: &str) -> bool {
    if let (Ok(data), Ok(wanted)) = (data.parse::<std::net::IpAddr>(), wanted.parse::<std::net::IpAddr>()) {
        return data == wanted;
    }
    let plain = |text: &str| {
        let words = text.split_ascii_whitespace().map(|word| word.trim_matches('"').trim_end_matches('.'));
        words.collect::<Vec<_>>().join(" ").to_ascii_lowercase()
    };
    plain(data) == plain(wanted)
}

fn absolute(name: &str) -> Option<Name<Vec<u8>>> {
    match UncertainName::<Vec<u8>>::from_chars(name.chars()).ok()? {
        UncertainName::Absolute(name) => Some(name),
        UncertainName::Relative(name) => name.into_absolute().ok(),
    }
}
