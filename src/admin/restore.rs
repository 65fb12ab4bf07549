//! `-R` and `ipvsadm-restore`: many command lines at once. All of them are read and understood before the first one is carried
//! out, and then all changes are made or none; the original's way, line by line, is there on request.

use std::io::BufRead;

use super::options::Command;
use super::request::Action;
use super::{After, Failure, Session};
use crate::director::protocol::{Reply, Request};
use crate::ipvs::edit::{Edit, Refusal};

/// How `-R` restores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restoring {
    /// Line by line as the original, so that a bad line leaves the others done.
    pub compatible: bool,
    /// On an empty table, with comments: `ipvsadm-restore`.
    pub afresh: bool,
}

/// Command lines that have been read and understood.
#[derive(Default)]
struct Plan {
    /// Changes.
    edits: Vec<Edit>,
    /// For each change the line that it is on and the command there.
    lines: Vec<(usize, Command)>,
    /// Everything else, which comes last.
    others: Vec<(Command, Action)>,
}

impl Session<'_> {
    pub(super) fn restore(&mut self, input: &mut dyn BufRead, how: Restoring) -> Result<After, Failure> {
        if how.compatible {
            return self.restore_line_by_line(input, how);
        }
        let Some(plan) = self.plan(input, how)? else { return Ok(After::Stop) };
        if !plan.edits.is_empty() {
            match self.transport.call(Request::EditAll(plan.edits))? {
                Reply::Done => {}
                Reply::RefusedOne(Refusal { index, errno }) => {
                    let (number, command) = plan.lines.get(index).copied().unwrap_or((0, Command::Restore));
                    return Err(Failure::of_reply(command, Reply::Refused(errno)).at(number));
                }
                reply => return Err(Failure::of_reply(Command::Restore, reply)),
            }
        }
        for (command, action) in plan.others {
            self.carry_out(command, action)?;
        }
        Ok(After::GoOn)
    }

    /// Reads all lines before anything is done. `None` if one of them asks for help, which ends the original too.
    fn plan(&mut self, input: &mut dyn BufRead, how: Restoring) -> Result<Option<Plan>, Failure> {
        let mut plan = Plan::default();
        if how.afresh {
            plan.edits.push(Edit::Flush);
            plan.lines.push((0, Command::Flush));
        }
        for (number, words) in lines(input, how.afresh) {
            match self.inner_line(&words).map_err(|failure| failure.at(number))? {
                (command, Action::Edit(edit)) => {
                    plan.edits.push(edit);
                    plan.lines.push((number, command));
                }
                (command, action @ (Action::Help | Action::Version)) => {
                    self.carry_out(command, action)?;
                    return Ok(None);
                }
                other => plan.others.push(other),
            }
        }
        Ok(Some(plan))
    }

    /// Carries out lines until one is wrong. The last line's code is the code of all.
    fn restore_line_by_line(&mut self, input: &mut dyn BufRead, how: Restoring) -> Result<After, Failure> {
        if how.afresh {
            self.carry_out(Command::Flush, Action::Edit(Edit::Flush))?;
        }
        for (_, words) in lines(input, how.afresh) {
            let result = self.inner_line(&words);
            let result = result.and_then(|(command, action)| self.carry_out(command, action));
            if self.finish(result) == After::Stop {
                return Ok(After::Stop);
            }
        }
        Ok(After::GoOn)
    }
}

/// The lines that say something, with their numbers; `ipvsadm` at the beginning of one is allowed, and with `comments` also `#`.
/// As in the original a carriage return is a blank, and a word ends at a NUL.
fn lines(input: &mut dyn BufRead, comments: bool) -> impl Iterator<Item = (usize, Vec<String>)> {
    let lines = (1..).zip(input.split(b'\n').map_while(Result::ok));
    lines.filter_map(move |(number, line)| {
        let line = String::from_utf8_lossy(&line);
        if comments && line.starts_with('#') {
            return None;
        }
        let words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty() && *word != "ipvsadm");
        let words: Vec<String> = words.map(before_nul).collect();
        (!words.is_empty()).then_some((number, words))
    })
}

fn before_nul(word: &str) -> String {
    word.split('\0').next().unwrap_or_default().to_owned()
}
