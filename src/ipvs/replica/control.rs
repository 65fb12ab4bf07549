//! What the FTP helper knows of a control connection, as bytes.

use super::bytes::{Reader, put_text};
use super::record::Refused;
use crate::ipvs::helper::control::{FtpControl, Line};
use crate::ipvs::helper::ftp::PassiveMode;
use crate::ipvs::helper::sequence::Replacement;

const AWAITED: u8 = 1 << 0;
const LINE: u8 = 1 << 1;
const REPLACEMENT: u8 = 1 << 2;
const OPEN: u8 = 1 << 3;

fn put_mode(out: &mut Vec<u8>, mode: PassiveMode) {
    out.push((mode == PassiveMode::Extended).into());
}

fn read_mode(body: &mut Reader<'_>) -> Result<PassiveMode, Refused> {
    Ok(if body.flag()? { PassiveMode::Extended } else { PassiveMode::Plain })
}

pub(super) fn put_control(out: &mut Vec<u8>, control: &FtpControl) {
    let FtpControl { awaited, line, replacement } = control;
    let said = [
        (awaited.is_some(), AWAITED),
        (line.is_some(), LINE),
        (replacement.is_some(), REPLACEMENT),
        (replacement.as_ref().is_some_and(|replacement| replacement.open), OPEN),
    ];
    out.push(said.iter().filter(|(there, _)| *there).fold(0, |bits, (_, bit)| bits | bit));
    awaited.iter().for_each(|mode| put_mode(out, *mode));
    if let Some(line) = line {
        put_mode(out, line.mode);
        out.extend(line.start.to_be_bytes());
        put_text(out, &line.text);
    }
    if let Some(replacement) = replacement {
        let numbers = [replacement.from, replacement.len, replacement.before];
        numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
        put_text(out, &replacement.text);
    }
}

pub(super) fn read_control(body: &mut Reader<'_>) -> Result<FtpControl, Refused> {
    let said = body.u8()?;
    let has = |bit: u8| said & bit != 0;
    let awaited = has(AWAITED).then(|| read_mode(body)).transpose()?;
    let line = has(LINE).then(|| read_line(body)).transpose()?;
    let replacement = has(REPLACEMENT).then(|| read_replacement(body, has(OPEN))).transpose()?;
    Ok(FtpControl { awaited, line, replacement })
}

fn read_line(body: &mut Reader<'_>) -> Result<Line, Refused> {
    Ok(Line { mode: read_mode(body)?, start: body.u32()?, text: body.text()?.to_vec() })
}

fn read_replacement(body: &mut Reader<'_>, open: bool) -> Result<Replacement, Refused> {
    let (from, len, before) = (body.u32()?, body.u32()?, body.u32()?);
    Ok(Replacement { from, len, open, text: body.text()?.to_vec(), before })
}
