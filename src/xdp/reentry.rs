//! The way back to this machine's stack for frames that do not fit a page, which a test run does not take: each interface has
//! a TAP device, and what is written to it is redirected to the interface's own way in.

use std::error::Error;
use std::io;

use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::tc::{self, NlOptions, SchedClassifier, TcAttachOptions, TcAttachType};

use crate::xdp::tap::Tap;

const PROGRAM: &str = "xlvs_reenter";

/// One TAP device for each interface. They end with their process.
pub(super) struct Reentry(Vec<Tap>);

impl Reentry {
    /// Makes the devices for these interfaces (indexes, by [`crate::net::addr::PortIndex`]). `ebpf` has the program.
    pub(super) fn open(ebpf: &mut Ebpf, ifindexes: &[u32]) -> Result<Self, Box<dyn Error>> {
        let program: &mut SchedClassifier = ebpf.program_mut(PROGRAM).ok_or("no program")?.try_into()?;
        program.load()?;
        let mut taps = Vec::new();
        for ifindex in ifindexes {
            let name = format!("xlvs-in-{ifindex}");
            taps.push(Tap::create(&name)?);
            tc::qdisc_add_clsact(&name)?;
            let options = TcAttachOptions::Netlink(NlOptions::default());
            program.attach_with_options(&name, TcAttachType::Ingress, options)?;
        }
        let mut entrances: HashMap<_, u32, u32> =
            HashMap::try_from(ebpf.map_mut("entrances").ok_or("no table")?)?;
        for (tap, ifindex) in taps.iter().zip(ifindexes) {
            entrances.insert(tap.ifindex(), ifindex, 0)?;
        }
        Ok(Reentry(taps))
    }

    /// Has a frame come in by the interface of this number.
    pub(super) fn send(&self, port: usize, frame: &[u8]) -> io::Result<()> {
        self.0.get(port).ok_or(io::ErrorKind::NotFound)?.send(frame)
    }
}
