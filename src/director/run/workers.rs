//! The packet threads as the daemon sees them, and the thread that gives packets to the kernel's routing.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{self, Receiver};

use crate::config::settings::{Auto, HugePagesSetting, Settings, Shortcut, XdpMode, ZeroCopy};
use crate::director::Port;
use crate::director::protocol::{PortStatus, Status};
use crate::director::run::RunError;
use crate::host::clock::Clock;
use crate::host::raw::RawSender;
use crate::ipvs::datapath::Datapath;
use crate::ipvs::shortcut::Shortcuts;
use crate::ipvs::snapshot::Tables;
use crate::ipvs::steering::Steering;
use crate::ipvs::verdict::{DropReason, PacketCounters, PacketTotals};
use crate::xdp::{
    self, AttachSetting, AttachedMode, FrameBalance, HugePageSetting, Inheritance, Prepared, ShortcutSetting,
    Xdp, XdpConfig, XdpError, XdpPort, ZeroCopySetting,
};

/// Packets that may wait for the kernel's routing.
const HAND_OVER_QUEUE: usize = 1024;

/// Engines besides those of the workers: one for what this machine itself sends as a real server.
pub const FOR_LOCAL_SERVERS: usize = 1;
/// A share of all counters that no engine writes, but what the shortcut does.
pub const FOR_SHORTCUT: usize = 1;

/// How many shares all counters have, with so many queues.
pub const fn shares(queues: usize) -> usize {
    queues + FOR_LOCAL_SERVERS + FOR_SHORTCUT
}

/// The running packet threads.
pub struct Workers {
    xdp: Option<Xdp>,
    sender: Option<JoinHandle<()>>,
    refused: Arc<PacketCounters>,
    /// What became of the packets of a process that this one follows.
    former: PacketTotals,
    shortcuts: Option<Arc<Shortcuts>>,
    /// Packets that had taken the shortcut when its exits were looked at last.
    looked_after: u64,
}

/// Everything that the packet threads need but the queues, which another process may still serve.
pub struct Workplace {
    prepared: Prepared,
    raw: RawSender,
}

/// The settings in the words of the packet threads.
pub fn xdp_config(settings: &Settings, ports: &[Port]) -> XdpConfig {
    XdpConfig {
        ports: ports.iter().map(|port| XdpPort { name: port.name.clone(), ifindex: port.index }).collect(),
        queues: settings.queues,
        frame_size: settings.frame_size,
        frames: settings.frames,
        mode: match settings.xdp_mode {
            XdpMode::Auto => AttachSetting::Auto,
            XdpMode::Native => AttachSetting::Native,
            XdpMode::Skb => AttachSetting::Skb,
        },
        shortcut: match settings.shortcut {
            Shortcut::Word(Auto::Auto) => ShortcutSetting::Auto,
            Shortcut::Switch(true) => ShortcutSetting::On,
            Shortcut::Switch(false) => ShortcutSetting::Off,
        },
        shortcut_flows: settings.shortcut_flows,
        zero_copy: match settings.zero_copy {
            ZeroCopy::Auto => ZeroCopySetting::Auto,
            ZeroCopy::On => ZeroCopySetting::On,
            ZeroCopy::Off => ZeroCopySetting::Off,
        },
        huge_pages: match settings.huge_pages {
            HugePagesSetting::Auto => HugePageSetting::Auto,
            HugePagesSetting::On => HugePageSetting::On,
            HugePagesSetting::Off => HugePageSetting::Off,
        },
        busy_poll: settings.busy_poll,
        lasting: false,
    }
}

/// How many workers these ports get.
pub fn queues(settings: &Settings, ports: &[Port]) -> Result<usize, XdpError> {
    Ok(xdp::queues(&xdp_config(settings, ports))? as usize)
}

impl Workplace {
    /// Attaches to the ports, but for those that are inherited. `lasting` is [`XdpConfig::lasting`].
    pub fn new(
        settings: &Settings,
        ports: &[Port],
        inherited: Option<Inheritance>,
        lasting: bool,
    ) -> Result<Self, RunError> {
        let raw = RawSender::open().map_err(|error| RunError::System("open a raw socket", error))?;
        let config = XdpConfig { lasting, ..xdp_config(settings, ports) };
        Ok(Workplace { prepared: xdp::prepare(&config, inherited)?, raw })
    }

    /// Changes what will come up.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.prepared.apply_steering(steering)
    }

    /// Starts a worker per queue with the engine of its number, and with the last one what sends for local servers.
    pub fn start(
        self,
        settings: &Settings,
        tables: &Tables,
        clock: Clock,
        engine: impl FnMut(u32) -> Datapath,
    ) -> Result<Workers, RunError> {
        let Workplace { prepared, raw } = self;
        let (hand_over, packets) = channel::bounded(HAND_OVER_QUEUE);
        let mut xdp = prepared.start(engine, &(Arc::new(move || clock.now()) as _), hand_over)?;
        for status in xdp.port_status() {
            let described = describe(status);
            let PortStatus { name, mode, copy, queues, notes } = &described;
            tracing::info!("{name}: XDP in {mode} mode, AF_XDP with {copy}, queues: {queues}");
            notes.iter().for_each(|note| tracing::info!("{name}: {note}"));
        }
        let cell = shares(xdp.workers()) - FOR_SHORTCUT;
        let shortcuts =
            xdp.take_fast_path().map(|path| Arc::new(Shortcuts::new(path, settings.shortcut_after, cell)));
        if let Some(shortcuts) = &shortcuts {
            tables.connections.lend_to(Arc::clone(shortcuts));
        }
        tracing::info!("{}", describe_shortcut(shortcuts.is_some(), &xdp));
        let refused = Arc::<PacketCounters>::default();
        let counters = Arc::clone(&refused);
        let sender = std::thread::Builder::new().name("xlvs-route".into());
        let sender = sender
            .spawn(move || send_all(&raw, &packets, &counters))
            .map_err(|error| RunError::System("start a thread", error))?;
        let (xdp, sender) = (Some(xdp), Some(sender));
        Ok(Workers { xdp, sender, refused, former: PacketTotals::default(), shortcuts, looked_after: 0 })
    }
}

impl Workers {
    /// Attaches to the ports and starts a worker per queue. `lasting` is [`XdpConfig::lasting`].
    pub fn start(
        settings: &Settings,
        ports: &[Port],
        tables: &Arc<Tables>,
        clock: Clock,
        lasting: bool,
    ) -> Result<Workers, RunError> {
        let engine = |queue| Datapath::new(Arc::clone(tables), queue as usize, clock.now());
        Workplace::new(settings, ports, None, lasting)?.start(settings, tables, clock, engine)
    }

    /// What another process needs to take the ports over.
    pub fn bequeath(&self) -> std::io::Result<Inheritance> {
        let Some(xdp) = &self.xdp else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let links: Result<Vec<_>, _> =
            xdp.links().into_iter().map(|link| link.try_clone_to_owned()).collect();
        Ok(Inheritance { links: links?, zero_copy: xdp.port_status().iter().all(|status| status.zero_copy) })
    }

    /// Whether packets that no worker is there for are dropped rather than left to the kernel.
    pub fn drop_unserved(&mut self, dropping: bool) {
        let outcome = self.xdp.as_mut().map(|xdp| xdp.drop_unserved(dropping));
        if let Some(Err(error)) = outcome {
            tracing::error!("{error}");
        }
    }

    /// Ends the threads and gives the queues back; the program stays attached.
    pub fn rest(&mut self) {
        let balances = self.xdp.as_mut().map(Xdp::rest);
        tell_lost(balances.unwrap_or_default());
    }

    /// Takes the queues again.
    pub fn resume(&mut self) -> Result<(), XdpError> {
        self.xdp.as_mut().map_or(Ok(()), Xdp::resume)
    }

    /// What became of all packets so far.
    pub fn totals(&self) -> PacketTotals {
        let mut status = Status::default();
        self.describe(&mut status);
        status.packets
    }

    /// Counts what a process did that this one follows as done here. Fragments that it held have gone with it.
    pub fn continue_from(&mut self, mut former: PacketTotals) {
        let held = u64::try_from(std::mem::take(&mut former.held)).unwrap_or(0);
        if held != 0 {
            let dropped = vec![(DropReason::FragmentTimeout, held)];
            former.merge(&PacketTotals { dropped, ..PacketTotals::default() });
        }
        self.former = former;
    }

    /// See [`Xdp::ticks`].
    pub fn ticks(&self) -> Vec<u64> {
        self.xdp.iter().flat_map(Xdp::ticks).collect()
    }

    /// Leaves the interfaces to the process that has taken over.
    pub fn leave(&mut self) {
        self.xdp.iter_mut().for_each(Xdp::leave);
    }

    /// Changes what comes up.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.xdp.as_mut().map_or(Ok(()), |xdp| xdp.apply_steering(steering))
    }

    /// Whether a packet thread has ended by itself.
    pub fn have_lost_one(&self) -> bool {
        self.xdp.as_ref().is_some_and(Xdp::has_lost_worker)
    }

    /// What each port got.
    pub fn ports(&self) -> Vec<PortStatus> {
        self.xdp.iter().flat_map(Xdp::port_status).map(describe).collect()
    }

    /// After a change of the network: finds out anew what the shortcut reaches.
    pub fn look_at_exits(&mut self) {
        if self.xdp.as_ref().is_some_and(|xdp| xdp.shortcut_note().is_some()) {
            self.try_exits();
        }
    }

    /// The same while the shortcut is in use: nothing tells of an interface that begins to refuse, such as a veth whose other end
    /// no longer merges segments, and all that the shortcut sends there would be lost. Returns whether anything is different; then
    /// all that is lent has to end.
    pub fn watch_exits(&mut self) -> bool {
        let forwarded = self.shortcuts.as_ref().map_or(0, |shortcuts| shortcuts.books().totals().transmitted);
        let used = std::mem::replace(&mut self.looked_after, forwarded) != forwarded;
        used && self.try_exits()
    }

    fn try_exits(&mut self) -> bool {
        let on = self.shortcuts.is_some();
        let Some(xdp) = self.xdp.as_mut().filter(|_| on) else { return false };
        let different = xdp.try_exits();
        if different {
            tracing::info!("{}", describe_shortcut(on, xdp));
        }
        different
    }

    /// Adds ports and packet counts to a status.
    pub fn describe(&self, status: &mut Status) {
        let Some(xdp) = &self.xdp else { return };
        status.ports = self.ports();
        status.workers = xdp.workers();
        let losses = xdp.ring_losses();
        (status.ring_full, status.no_frame) = (losses.ring_full, losses.no_frame);
        status.packets = self.former.clone();
        for counters in xdp.counters() {
            status.packets.merge(&counters.totals());
        }
        status.shortcut.state = describe_shortcut(self.shortcuts.is_some(), xdp);
        if let Some(shortcuts) = &self.shortcuts {
            let forwarded = shortcuts.books().totals();
            status.shortcut.packets = forwarded.transmitted;
            status.shortcut.flows = shortcuts.flows();
            status.shortcut.refused = shortcuts.refused();
            status.packets.merge(&forwarded);
        }
        // What the kernel's routing refused was handed over, but went nowhere.
        let refused = self.refused.totals();
        let lost: u64 = refused.dropped.iter().map(|(_, packets)| packets).sum();
        status.packets.handed_over = status.packets.handed_over.saturating_sub(lost);
        status.packets.merge(&refused);
    }

    /// Detaches and ends the threads; says so if a frame is missing.
    pub fn stop(&mut self) {
        let Some(xdp) = self.xdp.take() else { return };
        self.shortcuts.iter().for_each(|shortcuts| shortcuts.end());
        tell_lost(xdp.stop());
        if let Some(sender) = self.sender.take()
            && sender.join().is_err()
        {
            tracing::error!("the routing thread has panicked");
        }
    }
}

fn tell_lost(balances: Vec<FrameBalance>) {
    for (worker, balance) in balances.into_iter().enumerate().filter(|(_, balance)| balance.lost() != 0) {
        tracing::error!("worker {worker}: {} frames are missing", balance.lost());
    }
}

fn describe_shortcut(on: bool, xdp: &Xdp) -> String {
    let state = if on { "shortcut: on" } else { "shortcut: off" };
    xdp.shortcut_note().map_or_else(|| state.to_owned(), |note| format!("{state}; {note}"))
}

fn describe(status: &xdp::PortStatus) -> PortStatus {
    PortStatus {
        name: status.name.clone(),
        mode: match status.mode {
            AttachedMode::Native => "native",
            AttachedMode::Skb => "skb",
        }
        .to_owned(),
        copy: if status.zero_copy { "zero-copy" } else { "copy" }.to_owned(),
        queues: status.queues,
        notes: status.notes.clone(),
    }
}

/// Gives packets to the kernel's routing until no worker is left.
fn send_all(raw: &RawSender, packets: &Receiver<Vec<u8>>, counters: &PacketCounters) {
    for packet in packets {
        if let Err(error) = raw.send(&packet) {
            tracing::debug!("the kernel refuses a packet: {error}");
            counters.add_dropped(DropReason::KernelRefused);
        }
    }
}
