//! Which interfaces take frames that come in by another one. A driver may lack it, or a veth's other end may not be set up
//! for it, and then such frames are lost without a word. So each interface is tried: the kernel sends a frame there that no
//! switch forwards, and a tracepoint tells whether the driver has taken it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{Array, DevMap, MapData};
use aya::programs::{self, RawTracePoint};
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions};

use crate::ipvs::shortcut::FastPath;
use crate::net::time::Instant;
use crate::xdp::error::{XdpError, reason};
use crate::xdp::inspect::features;
use crate::xdp::interface;
use crate::xdp::shortcut::{Exit, XdpFastPath};
use crate::xdp::steer::{AttachedMode, context};
use crate::xdp::{Buffers, PortStatus, ShortcutSetting, Xdp};

/// For packets in one buffer, and in several: a table of exits belongs to programs of one kind.
const TRIES: [&str; 2] = ["xlvs_try_exit", "xlvs_try_long"];
const DELIVERED: &str = "xlvs_delivered";
const TRACEPOINT: &str = "xdp_devmap_xmit";
/// An exit that does not take the frame may look as if it did when somebody else's frame comes in between.
const TRIALS: usize = 3;
const FRAME_LEN: usize = 60;
const ETHERTYPE_LOCAL: [u8; 2] = 0x88b5u16.to_be_bytes();

/// The ways out that packets can be redirected to.
pub(super) struct Exits {
    devices: DevMap<MapData>,
    /// `struct trial`.
    trial: Array<MapData, [u32; 2]>,
}

impl Exits {
    /// Takes their tables.
    pub(super) fn take(ebpf: &mut Ebpf) -> Option<Self> {
        let devices = DevMap::try_from(ebpf.take_map("exits")?).ok()?;
        let trial = Array::try_from(ebpf.take_map("trial")?).ok()?;
        Some(Exits { devices, trial })
    }

    /// The exit of this number is this interface.
    pub(super) fn set(&mut self, exit: u32, ifindex: u32) -> Result<(), XdpError> {
        let refused = self.devices.set(exit, ifindex, None, 0);
        refused.map_err(|error| XdpError::Table { table: "exits", reason: reason(&error) })
    }

    /// Whether each of these interfaces (name and index, by exit) takes redirected frames; an error if that cannot be found
    /// out.
    pub(super) fn try_all(
        &mut self,
        ebpf: &mut Ebpf,
        interfaces: &[(&str, u32)],
        buffers: Buffers,
    ) -> Result<Vec<bool>, Box<dyn Error>> {
        let listener: &mut RawTracePoint = ebpf.program_mut(DELIVERED).ok_or("no listener")?.try_into()?;
        if listener.fd().is_err() {
            listener.load()?;
        }
        let link = listener.attach(TRACEPOINT)?;
        let usable = interfaces.iter().zip(0..).map(|((name, ifindex), exit)| {
            for _ in 0..TRIALS {
                if !self.try_one(ebpf, TRIES[buffers as usize], (name, *ifindex), exit)? {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        let usable = usable.collect();
        let listener: &mut RawTracePoint = ebpf.program_mut(DELIVERED).ok_or("no listener")?.try_into()?;
        listener.detach(link)?;
        usable
    }

    fn try_one(
        &mut self,
        ebpf: &mut Ebpf,
        program: &str,
        interface: (&str, u32),
        exit: u8,
    ) -> Result<bool, Box<dyn Error>> {
        self.trial.set(0, [0; 2], 0)?;
        send(ebpf, program, interface, exit)?;
        let [_, taken] = self.trial.get(&0, 0)?;
        Ok(taken != 0)
    }
}

fn send(
    ebpf: &mut Ebpf,
    program: &str,
    (name, ifindex): (&str, u32),
    exit: u8,
) -> Result<(), Box<dyn Error>> {
    let program: &mut programs::Xdp = ebpf.program_mut(program).ok_or("no program")?.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    let own = interface::hardware_address(name).unwrap_or_default();
    let mut frame = [&own[..], &own, &ETHERTYPE_LOCAL, &[exit]].concat();
    frame.resize(FRAME_LEN, 0);
    let context = context(ifindex, frame.len());
    program.test_run(TestRunOptions {
        data_in: Some(&frame),
        ctx_in: Some(&context),
        repeat: 1,
        attrs: TestRunAttrs::new().xdp_live_frames(1),
        ..TestRunOptions::default()
    })?;
    Ok(())
}

impl Xdp {
    /// Makes the fast path ready, unless the setting or a `refusal` of the kernel's says otherwise.
    pub(super) fn prepare_shortcut(
        &mut self,
        setting: ShortcutSetting,
        refusal: Option<String>,
        now: Instant,
    ) {
        let direct = self.status.iter().all(|status| status.zero_copy);
        let why = match setting {
            ShortcutSetting::Off => Some("shortcut = false in xlvs.toml".into()),
            ShortcutSetting::Auto if direct => Some("all interfaces have zero-copy".into()),
            ShortcutSetting::Auto | ShortcutSetting::On => refusal,
        };
        if why.is_some() {
            self.shortcut_note = why;
            return;
        }
        let exit = |(status, ifindex): (&PortStatus, &u32)| Exit {
            ifindex: *ifindex,
            generic: status.mode == AttachedMode::Skb,
            usable: Arc::new(AtomicBool::new(false)),
            takes_parts: Arc::new(AtomicBool::new(false)),
        };
        self.exits = self.status.iter().zip(self.steerer.ifindexes()).map(exit).collect();
        self.try_exits();
        let maps = self.steerer.take_shortcut_maps();
        self.fast_path = maps.map(|maps| XdpFastPath::new(maps, self.exits.clone(), now));
    }

    /// What forwards lent flows, the first time; `None` if nothing does, and [`Xdp::shortcut_note`] says why.
    pub fn take_fast_path(&mut self) -> Option<Box<dyn FastPath>> {
        self.fast_path.take().map(|path| Box::new(path) as _)
    }

    /// Why there is no shortcut, or what it does not reach; `None` if all is well.
    pub fn shortcut_note(&self) -> Option<&str> {
        self.shortcut_note.as_deref()
    }

    /// Finds out anew which interfaces packets can be redirected to. Returns whether anything is different.
    pub fn try_exits(&mut self) -> bool {
        if self.exits.iter().all(|exit| exit.generic) {
            return false;
        }
        let former = self.shortcut_note.take();
        self.shortcut_note = match self.steerer.try_exits() {
            Ok(usable) => {
                for (exit, usable) in self.exits.iter().zip(&usable) {
                    exit.usable.store(*usable, Ordering::Relaxed);
                    let takes_parts = features(exit.ifindex).is_some_and(|features| features.many_redirected);
                    exit.takes_parts.store(*usable && takes_parts, Ordering::Relaxed);
                }
                self.closed_exits(&usable)
            }
            Err(reason) => {
                Some(format!("cannot find out which interfaces take redirected packets: {reason}"))
            }
        };
        former != self.shortcut_note
    }

    fn closed_exits(&self, usable: &[bool]) -> Option<String> {
        let closed = self.status.iter().zip(usable).filter(|(_, usable)| !**usable);
        let names: Vec<&str> = closed.map(|(status, _)| status.name.as_str()).collect();
        (!names.is_empty())
            .then(|| format!("{} cannot send what another interface receives", names.join(", ")))
    }
}
