//! Gives frames back to this machine's stack, as if they had just come in by their own interface.
//!
//! The kernel runs a program that passes everything, on a live frame with the interface in its context
//! (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES), or receives one that is too long for that by a [`Reentry`]. So `iptables -i`, rp_filter, connection tracking and sockets
//! see the packet as they would without us.

use std::sync::Arc;

use aya::programs::ProgramError;
use aya::programs::xdp::Xdp;
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions, include_bytes_aligned};
use crossbeam::channel::Receiver;

use crate::ipvs::verdict::{DropReason, PacketCounters};
use crate::net::addr::PortIndex;
use crate::xdp::error::{XdpError, reason};
use crate::xdp::reentry::Reentry;
use crate::xdp::steer::context;
use crate::xdp::{ETHERNET, INJECTABLE_MTU};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inject.bpf.o"));

const PROGRAM: &str = "xlvs_inject";

/// `struct envelope` of `bpf/xlvs.bpf.c`: two MAC addresses, a type, two bytes unused, the secret.
const ENVELOPE_LEN: usize = 32;
const MACS_LEN: usize = 12;
/// Longest frame that surely fits a page, in bytes.
const FITS_PAGE: usize = (INJECTABLE_MTU + ETHERNET) as usize;
const ETHERTYPE_LOCAL: [u8; 2] = 0x88b5u16.to_be_bytes();

/// A frame for this machine's stack.
pub(super) struct PassedFrame {
    /// Where it came in.
    pub(super) port: PortIndex,
    /// The frame.
    pub(super) bytes: Box<[u8]>,
    /// The counters of the worker that received it.
    pub(super) counters: Arc<PacketCounters>,
}

/// An interface that frames are given back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entrance {
    pub(super) ifindex: u32,
    /// In generic mode the frame comes by the steering program again, which has to recognise it.
    pub(super) needs_envelope: bool,
}

/// The way back into the kernel.
pub(super) struct Injector {
    ebpf: Ebpf,
    entrances: Vec<Entrance>,
    secret: [u64; 2],
    buffer: Vec<u8>,
    reentry: Option<Reentry>,
}

impl Injector {
    /// Loads the program, and fails if the kernel cannot run it on live frames. `entrances[i]` belongs to
    /// [`PortIndex`] `i`; `secret` is the steering program's.
    pub(super) fn load(entrances: Vec<Entrance>, secret: [u64; 2]) -> Result<Self, XdpError> {
        let refused =
            |error: &(dyn std::error::Error + 'static)| XdpError::NoInjection { reason: reason(error) };
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| refused(&error))?;
        program(&mut ebpf)?.load().map_err(|error| refused(&error))?;
        // The program drops this one, so that the trial leaves no trace.
        let trial = [0; 60];
        let port = entrances.first().map_or(0, |entrance| entrance.ifindex);
        run(program(&mut ebpf)?, &trial, port).map_err(|error| refused(&error))?;
        Ok(Injector { ebpf, entrances, secret, buffer: Vec::new(), reentry: None })
    }

    /// From now on frames that do not fit a page can be delivered as well. Returns why not, if not.
    pub(super) fn take_long_frames(&mut self) -> Option<String> {
        let ifindexes: Vec<u32> = self.entrances.iter().map(|entrance| entrance.ifindex).collect();
        match Reentry::open(&mut self.ebpf, &ifindexes) {
            Ok(reentry) => {
                self.reentry = Some(reentry);
                None
            }
            Err(error) => Some(reason(&*error)),
        }
    }

    /// Delivers frames until all senders are gone and the channel is empty.
    pub(super) fn run(mut self, frames: &Receiver<PassedFrame>) {
        for frame in frames {
            match self.inject(&frame) {
                Ok(()) => frame.counters.add_passed(),
                Err(error) => {
                    tracing::debug!("the kernel refused a frame of {} bytes: {error}", frame.bytes.len());
                    frame.counters.add_dropped(DropReason::KernelRefused);
                }
            }
        }
    }

    fn inject(&mut self, frame: &PassedFrame) -> Result<(), XdpError> {
        let unknown = || XdpError::NoInjection { reason: format!("there is no port {}", frame.port.0) };
        let entrance = *self.entrances.get(usize::from(frame.port.0)).ok_or_else(unknown)?;
        let program = program(&mut self.ebpf)?;
        let bytes = if entrance.needs_envelope {
            wrap(&frame.bytes, self.secret, &mut self.buffer);
            &self.buffer
        } else {
            &*frame.bytes
        };
        if let Some(reentry) = &self.reentry
            && bytes.len() > FITS_PAGE
        {
            let refused = |error: std::io::Error| XdpError::NoInjection { reason: error.to_string() };
            return reentry.send(frame.port.0.into(), bytes).map_err(refused);
        }
        run(program, bytes, entrance.ifindex)
            .map_err(|error| XdpError::NoInjection { reason: reason(&error) })
    }
}

/// Puts the envelope and the frame into `buffer`.
fn wrap(frame: &[u8], secret: [u64; 2], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(frame.get(..MACS_LEN).unwrap_or_default());
    buffer.extend_from_slice(&ETHERTYPE_LOCAL);
    buffer.extend_from_slice(&[0, 0]);
    buffer.extend(secret.iter().flat_map(|part| part.to_ne_bytes()));
    debug_assert!(buffer.len() == ENVELOPE_LEN || frame.len() < MACS_LEN);
    buffer.extend_from_slice(frame);
}

fn run(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<(), ProgramError> {
    let context = context(ifindex, frame.len());
    program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        })
        .map(|_| ())
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, XdpError> {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| XdpError::NoInjection { reason: format!("the object has no `{PROGRAM}`") })
}
