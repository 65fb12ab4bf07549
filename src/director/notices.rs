//! Runs of the notify command that wait for their turn: so many at once, those about one server one after the other, and no more
//! waiting than there is room for.

use std::collections::VecDeque;

use super::event::Event;

/// So many run at once.
pub const AT_ONCE: usize = 8;
/// So many may wait.
pub const ROOM: usize = 256;

/// Of what server of what virtual server; those of one are told in order.
pub type Subject = (String, String);

/// One run of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom it is about.
    pub subject: Subject,
    /// What the command is given: event, virtual server, server, endpoint, reason.
    pub arguments: [String; 5],
}

impl Notice {
    /// What is to be told of an event, if anything.
    pub fn of(event: &Event) -> Option<Self> {
        let Event { virtual_server, server, endpoint, reason, .. } = event.clone();
        Some(Notice {
            subject: (virtual_server.clone(), server.clone()),
            arguments: [event.notice()?.to_owned(), virtual_server, server, endpoint, reason],
        })
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Notices {
    waiting: VecDeque<Notice>,
    running: Vec<Subject>,
    lost: u64,
}

impl Notices {
    /// Takes one more. False if there is no room for it: it is lost, and counted.
    pub fn push(&mut self, notice: Notice) -> bool {
        let has_room = self.waiting.len() < ROOM;
        if has_room {
            self.waiting.push_back(notice);
        } else {
            self.lost += 1;
        }
        has_room
    }

    /// The next one to run, if there is one that may.
    pub fn start(&mut self) -> Option<Notice> {
        if self.running.len() == AT_ONCE {
            return None;
        }
        let may = |notice: &Notice| !self.running.contains(&notice.subject);
        let notice = self.waiting.iter().position(may).and_then(|place| self.waiting.remove(place))?;
        self.running.push(notice.subject.clone());
        Some(notice)
    }

    /// The run about this one has ended.
    pub fn end(&mut self, subject: &Subject) {
        self.running.retain(|running| running != subject);
    }

    /// Whether nothing waits.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many were lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
