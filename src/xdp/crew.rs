//! The packet threads: one worker per queue index, the injector, and the thread for what this machine sends as a real server. They
//! can be sent away, so that another process gets the queues, and called back.

use std::io::{PipeReader, PipeWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::ipvs::datapath::Engine;
use crate::net::addr::PortIndex;
use crate::xdp::detour::{Detour, Way};
use crate::xdp::error::XdpError;
use crate::xdp::inject::{Entrance, Injector, PassedFrame};
use crate::xdp::open::{Memory, open_queues};
use crate::xdp::steer::AttachedMode;
use crate::xdp::worker::{Books, FrameBalance, Outlets, StopOrder, Worker};
use crate::xdp::{INJECTABLE_MTU, PortStatus, Xdp};

/// Frames that may wait for the injector.
const INJECTOR_QUEUE: usize = 1024;

/// The threads of one run.
pub(super) struct Crew {
    stopping: Arc<AtomicBool>,
    pipe: PipeReader,
    wake: PipeWriter,
    workers: Vec<JoinHandle<(FrameBalance, Box<dyn Engine>)>>,
    injector: JoinHandle<()>,
    detour: Option<JoinHandle<Box<dyn Engine>>>,
}

impl Crew {
    fn stop_order(&self) -> Result<StopOrder, XdpError> {
        let pipe = self.pipe.try_clone().map_err(XdpError::Thread)?;
        Ok(StopOrder { flag: Arc::clone(&self.stopping), pipe })
    }
}

impl Xdp {
    /// Opens the queues and starts the threads. Nothing comes up before the program is attached, and before
    /// [`Xdp::apply_steering`]. `memory` is what has been allocated for the queues already.
    pub(super) fn call_crew(&mut self, memory: Vec<Memory>) -> Result<(), XdpError> {
        let mut injector = Injector::load(self.entrances(), self.steerer.secret())?;
        if self.longest.mtu > INJECTABLE_MTU {
            note_lost(&mut self.status, injector.take_long_frames());
        }
        let sets = open_queues(&self.config, self.queues, &self.longest, &mut self.status, memory)?;
        for (queue, set) in (0..).zip(&sets) {
            for (index, port) in (0..).map(PortIndex).zip(&set.ports) {
                self.steerer.register(index, queue, &port.socket())?;
            }
        }
        let (passed, to_inject) = channel::bounded::<PassedFrame>(INJECTOR_QUEUE);
        let (pipe, wake) = std::io::pipe().map_err(XdpError::Thread)?;
        let crew = self.crew.insert(Crew {
            stopping: Arc::default(),
            pipe,
            wake,
            workers: Vec::new(),
            injector: spawn("xlvs-inject".into(), move || injector.run(&to_inject))?,
            detour: None,
        });
        let outlets = Outlets { passed, handed_over: self.hand_over.clone() };
        for (queue, (set, engine)) in (0..).zip(sets.into_iter().zip(self.rested.drain(..))) {
            let books: Books = self.books[queue as usize].clone();
            let stop = crew.stop_order()?;
            let worker = Worker::new(set, engine, Arc::clone(&self.clock), books, outlets.clone(), stop);
            crew.workers.push(spawn(format!("xlvs-q{queue}"), move || {
                pin_to_cpu(queue);
                worker.run()
            })?);
        }
        self.start_detour()
    }

    /// Lets nothing come up any more, finishes what has been received, ends the threads and gives the queues back. The program stays
    /// attached. Returns where each worker's frames were; nothing if there are no workers.
    pub fn rest(&mut self) -> Vec<FrameBalance> {
        self.steerer.unregister_all();
        self.steerer.end_detours();
        let Some(Crew { stopping, wake, pipe, workers, injector, detour }) = self.crew.take() else {
            return Vec::new();
        };
        stopping.store(true, Ordering::Relaxed);
        drop((wake, pipe));
        let mut balances = Vec::new();
        for (balance, engine) in workers.into_iter().filter_map(|worker| worker.join().ok()) {
            balances.push(balance);
            self.rested.push(engine);
        }
        // The workers' ends of the channel are gone now, so the injector ends when it has delivered the rest.
        let _ = injector.join();
        self.local = detour.and_then(|detour| detour.join().ok()).or(self.local.take());
        balances
    }

    /// Takes the queues again after [`Xdp::rest`], with the same engines, and puts the program in the place of whatever another
    /// process has attached.
    pub fn resume(&mut self) -> Result<(), XdpError> {
        self.call_crew(Vec::new())?;
        self.steerer.switch_on()?;
        self.drop_unserved(false)
    }

    /// Leaves the interfaces to the process that has taken over.
    pub fn leave(&mut self) {
        self.steerer.leave_links();
    }

    /// How often each worker has looked at the clock: one that does not hang does so many times a second.
    pub fn ticks(&self) -> Vec<u64> {
        let workers = self.books.iter().take(self.queues as usize);
        workers.map(|books| books.ticks.load(Ordering::Relaxed)).collect()
    }

    /// Whether packets for queues that nobody serves are dropped, and not left to the kernel: its own TCP would reset what it does
    /// not know. For the time in which the queues change hands.
    pub fn drop_unserved(&mut self, dropping: bool) -> Result<(), XdpError> {
        self.steerer.drop_unserved(dropping)
    }

    /// Whether a worker has ended by itself.
    pub fn has_lost_worker(&self) -> bool {
        self.crew.iter().any(|crew| crew.workers.iter().any(JoinHandle::is_finished))
    }

    /// From now on until the end: without the tables' help nothing is redirected.
    pub(super) fn start_detour(&mut self) -> Result<(), XdpError> {
        let Some(crew) = self.crew.as_mut().filter(|_| self.is_local) else { return Ok(()) };
        let Some(engine) = self.local.take() else { return Ok(()) };
        let ways = self.config.ports.iter().map(Way::open).collect::<Result<Vec<_>, _>>()?;
        for (port, way) in self.config.ports.iter().zip(&ways) {
            self.steerer.detour(&port.name, port.ifindex, way.entrance())?;
        }
        let books = Books::default();
        let counters = Arc::clone(&books.packets);
        self.books.push(books);
        let (clock, handed_over) = (Arc::clone(&self.clock), self.hand_over.clone());
        let detour = Detour { ways, engine, clock, counters, handed_over, stop: crew.stop_order()? };
        crew.detour = Some(spawn("xlvs-detour".into(), move || detour.run())?);
        Ok(())
    }

    fn entrances(&self) -> Vec<Entrance> {
        let needs_envelope = |status: &PortStatus| status.mode == AttachedMode::Skb;
        let ports = self.config.ports.iter().zip(&self.status);
        ports
            .map(|(port, status)| Entrance { ifindex: port.ifindex, needs_envelope: needs_envelope(status) })
            .collect()
    }
}

/// Notes why long packets that are not balanced are lost, if they are.
fn note_lost(status: &mut [PortStatus], why: Option<String>) {
    let Some(why) = why else { return };
    let note = format!("packets over {INJECTABLE_MTU} bytes may be lost unless they are balanced: {why}");
    status.iter_mut().for_each(|status| status.notes.push(note.clone()));
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, XdpError> {
    thread::Builder::new().name(name).spawn(body).map_err(XdpError::Thread)
}

/// Keeps the calling thread on one of the CPUs that the process may use. Without the permission it stays where the
/// scheduler puts it.
fn pin_to_cpu(queue: u32) {
    let this_thread = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this_thread) else { return };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
    let mut one = CpuSet::new();
    if let Some(cpu) = cpus.get(queue as usize % cpus.len().max(1))
        && one.set(*cpu).is_ok()
    {
        let _ = sched_setaffinity(this_thread, &one);
    }
}
