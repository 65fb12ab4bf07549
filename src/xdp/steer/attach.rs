//! Attaching the program to interfaces, anew or in the place of another process's.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{AttachSetting, AttachedMode, Attachment, PROGRAMS, Steerer, end_detour, program};
use crate::xdp::error::{XdpError, errno, reason};
use crate::xdp::inspect::features;
use crate::xdp::link::Link;
use crate::xdp::{Buffers, interface, occupant, pin};

impl Steerer {
    /// Attaches to an interface, which becomes the next [`crate::net::addr::PortIndex`]. What an ended process of ours left
    /// attached is replaced.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        setting: AttachSetting,
    ) -> Result<Attachment, XdpError> {
        let released = pin::release(ifindex);
        occupant::make_room(interface, ifindex, &PROGRAMS, released)?;
        end_detour(interface);
        let attachment = match setting {
            AttachSetting::Skb => self.attach_in(AttachedMode::Skb, interface, ifindex, None)?,
            AttachSetting::Native => self.attach_native(interface, ifindex)?,
            AttachSetting::Auto => match self.attach_native(interface, ifindex) {
                Ok(attachment) => attachment,
                Err(error) => {
                    self.attach_in(AttachedMode::Skb, interface, ifindex, Some(error.to_string()))?
                }
            },
        };
        self.add_port(interface, ifindex)?;
        Ok(attachment)
    }

    /// The same where another process's program is attached by `link`. That one stays until [`Steerer::switch_on`], and the mode
    /// for good.
    pub(in crate::xdp) fn take_over(
        &mut self,
        interface: &str,
        link: Link,
        setting: AttachSetting,
    ) -> Result<Attachment, XdpError> {
        let ifindex = link.ifindex();
        let mode = occupant::mode(ifindex).map_err(|source| XdpError::Interface {
            interface: interface.into(),
            what: "XDP program",
            source,
        })?;
        let wanted = match setting {
            AttachSetting::Auto => mode,
            AttachSetting::Native => AttachedMode::Native,
            AttachSetting::Skb => AttachedMode::Skb,
        };
        if mode != wanted {
            let (mode, wanted) = (mode.as_str(), wanted.as_str());
            return Err(XdpError::OtherMode { interface: interface.into(), mode, wanted });
        }
        if mode == AttachedMode::Native {
            self.check_native(interface, ifindex)?;
        }
        self.links.push(link);
        self.add_port(interface, ifindex)?;
        let why = (setting == AttachSetting::Auto && mode == AttachedMode::Skb)
            .then(|| "in skb mode as before the upgrade".to_owned());
        Ok(Attachment { mode, why })
    }

    /// Puts this program in the place of whichever is attached by the links, without a gap.
    pub(in crate::xdp) fn switch_on(&mut self) -> Result<(), XdpError> {
        let refused = |ifindex: u32, error: &(dyn Error + 'static)| XdpError::Attach {
            interface: format!("interface {ifindex}"),
            mode: "the present",
            reason: reason(error),
            errno: errno(error),
        };
        let program = program(&mut self.ebpf, self.buffers)?;
        for link in &mut self.links {
            let descriptor = program.fd().map_err(|error| refused(link.ifindex(), &error))?.as_fd();
            link.replace(descriptor).map_err(|error| refused(link.ifindex(), &error))?;
            if self.lasting
                && let Err(error) = link.make_lasting()
            {
                tracing::warn!("interface {}: {}", link.ifindex(), not_lasting(&error));
            }
        }
        Ok(())
    }

    /// Leaves the links to the process that has taken over.
    pub(in crate::xdp) fn leave_links(&mut self) {
        self.links.iter_mut().for_each(Link::leave);
    }

    /// What holds the program at its interfaces, for a process that is to take over.
    pub(in crate::xdp) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(AsFd::as_fd)
    }

    fn add_port(&mut self, interface: &str, ifindex: u32) -> Result<(), XdpError> {
        let slots = [self.ifindexes.len() as u32 * self.queues, self.queues];
        self.ports.insert(ifindex, slots, 0).map_err(|error| super::table_error("ports", &error))?;
        self.front.add_port(ifindex, slots[0], slots[1]);
        self.set_front(self.front)?;
        let exit = self.ifindexes.len() as u32;
        self.exits.set(exit, ifindex)?;
        self.ifindexes.push(ifindex);
        self.names.push(interface.into());
        Ok(())
    }

    fn attach_native(&mut self, interface: &str, ifindex: u32) -> Result<Attachment, XdpError> {
        self.check_native(interface, ifindex)?;
        self.attach_in(AttachedMode::Native, interface, ifindex, None)
    }

    /// A bond's driver would run the program on its members, whose packets the sockets of the bond do not get. Some
    /// drivers would take the program and drop the packets that do not fit a page.
    fn check_native(&self, interface: &str, ifindex: u32) -> Result<(), XdpError> {
        if interface::is_bond(interface) {
            return Err(XdpError::Bond { interface: interface.into() });
        }
        let (mtu, room) = (interface::mtu(interface)?, interface::page_room());
        let takes_several = || features(ifindex).is_some_and(|features| features.many_buffers);
        let unable = match self.buffers {
            Buffers::One => Some("longer ones come in several buffers, which takes frame_size = 2048"),
            Buffers::Several if !takes_several() => {
                Some("the driver says of no others that it receives them")
            }
            Buffers::Several => None,
        };
        match unable {
            Some(why) if mtu > room => {
                Err(XdpError::MtuNotNative { interface: interface.into(), mtu, room, why })
            }
            _ => Ok(()),
        }
    }

    fn attach_in(
        &mut self,
        mode: AttachedMode,
        interface: &str,
        ifindex: u32,
        why: Option<String>,
    ) -> Result<Attachment, XdpError> {
        let refused = |error: &(dyn Error + 'static)| XdpError::Attach {
            interface: interface.into(),
            mode: mode.as_str(),
            reason: reason(error),
            errno: errno(error),
        };
        let program = program(&mut self.ebpf, self.buffers)?;
        let descriptor = program.fd().map_err(|error| refused(&error))?.as_fd();
        let link = Link::create(descriptor, ifindex, mode);
        let mut link = link.map_err(|error: io::Error| refused(&error))?;
        let note =
            if self.lasting { link.make_lasting().err().map(|error| not_lasting(&error)) } else { None };
        self.links.push(link);
        let why = [why, note].into_iter().flatten().reduce(|why, note| format!("{why}; {note}"));
        Ok(Attachment { mode, why })
    }
}

fn not_lasting(error: &io::Error) -> String {
    format!("if xlvs is killed, this machine's stack answers in its place: {error}")
}
