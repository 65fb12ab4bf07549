//! The beginning: attaching to interfaces that nobody serves, or taking over from a process that serves them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::ipvs::datapath::Engine;
use crate::ipvs::steering::Steering;
use crate::xdp::error::XdpError;
use crate::xdp::link::Link;
use crate::xdp::open::{Memory, allocate_all};
use crate::xdp::steer::Steerer;
use crate::xdp::survey::{Survey, survey};
use crate::xdp::worker::{Books, Clock};
use crate::xdp::{Buffers, PortStatus, ShortcutSetting, Xdp, XdpConfig, ZeroCopySetting};

/// What a process that serves the interfaces leaves to the one that follows it.
#[derive(Debug)]
pub struct Inheritance {
    /// The kernel's links, by which its program is attached.
    pub links: Vec<OwnedFd>,
    /// Whether its NICs used the packet memory directly.
    pub zero_copy: bool,
}

/// Everything that can be made ready while another process still serves the interfaces. Dropped, it leaves no trace.
pub struct Prepared {
    config: XdpConfig,
    survey: Survey,
    steerer: Steerer,
    refusal: Option<String>,
    memory: Vec<Memory>,
    inherits: bool,
}

/// Attaches to the interfaces and starts one worker per queue index; `engine` makes the engine of each, and with the
/// number behind the last one that for what this machine itself sends as a real server. Nothing comes up before
/// [`Xdp::apply_steering`]. `hand_over` takes IP packets that only the kernel can send.
pub fn start<E: Engine + 'static>(
    config: &XdpConfig,
    engine: impl FnMut(u32) -> E,
    clock: &Clock,
    hand_over: Sender<Vec<u8>>,
) -> Result<Xdp, XdpError> {
    prepare(config, None)?.start(engine, clock, hand_over)
}

/// Loads the program and attaches it to the interfaces, but for those that are inherited; of these the packet memory is allocated
/// as well.
pub fn prepare(config: &XdpConfig, inherited: Option<Inheritance>) -> Result<Prepared, XdpError> {
    let mut config = config.clone();
    let mut survey = survey(&config)?;
    let (mut steerer, refusal) = load(&config, survey.queues, survey.longest.buffers())?;
    let inherits = inherited.is_some();
    if config.lasting && !inherits {
        steerer.make_lasting()?;
    }
    let Inheritance { links, zero_copy } =
        inherited.unwrap_or(Inheritance { links: Vec::new(), zero_copy: true });
    let links: Result<Vec<Link>, _> = links.into_iter().map(Link::taken_over).collect();
    let mut links = links.map_err(|source| XdpError::Inherited { source })?;
    for (port, status) in config.ports.iter().zip(&mut survey.status) {
        let link = links.extract_if(.., |link| link.ifindex() == port.ifindex).next();
        let attachment = match link {
            Some(link) => steerer.take_over(&port.name, link, config.mode)?,
            None => steerer.attach(&port.name, port.ifindex, config.mode)?,
        };
        status.mode = attachment.mode;
        status.notes.extend(attachment.why);
    }
    if config.lasting && inherits {
        // Only now: what this process attaches goes with it if it is ended before it serves.
        steerer.make_lasting()?;
    }
    if !zero_copy && config.zero_copy == ZeroCopySetting::Auto {
        config.zero_copy = ZeroCopySetting::Off;
        let note = |status: &mut PortStatus| status.notes.push("copy, as before the upgrade".into());
        survey.status.iter_mut().for_each(note);
    }
    let memory = match inherits {
        true => allocate_all(&config, survey.queues, &survey.longest)?,
        false => Vec::new(),
    };
    Ok(Prepared { config, survey, steerer, refusal, memory, inherits })
}

impl Prepared {
    /// Starts the workers, as [`start`] does. An inherited queue is to be free by now or soon.
    pub fn start<E: Engine + 'static>(
        self,
        mut engine: impl FnMut(u32) -> E,
        clock: &Clock,
        hand_over: Sender<Vec<u8>>,
    ) -> Result<Xdp, XdpError> {
        let Prepared { config, survey, steerer, refusal, memory, inherits } = self;
        let Survey { queues, longest, status } = survey;
        let shortcut = config.shortcut;
        let mut xdp = Xdp {
            config,
            longest,
            queues,
            clock: Arc::clone(clock),
            hand_over,
            steerer,
            status,
            books: (0..queues).map(|_| Books::default()).collect(),
            crew: None,
            rested: (0..queues).map(|queue| Box::new(engine(queue)) as Box<dyn Engine>).collect(),
            local: Some(Box::new(engine(queues))),
            is_local: false,
            exits: Vec::new(),
            fast_path: None,
            shortcut_note: None,
        };
        xdp.call_crew(memory)?;
        if inherits {
            xdp.steerer.switch_on()?;
        }
        xdp.prepare_shortcut(shortcut, refusal, clock());
        Ok(xdp)
    }

    /// Changes what will come up.
    pub fn apply_steering(&mut self, steering: &Steering) -> Result<(), XdpError> {
        self.steerer.apply(steering)
    }

    /// How many workers there will be.
    pub fn workers(&self) -> usize {
        self.survey.queues as usize
    }
}

impl Xdp {
    /// What holds the program at the interfaces, for the [`Inheritance`] of another process.
    pub fn links(&self) -> Vec<BorrowedFd<'_>> {
        self.steerer.links().collect()
    }
}

/// A kernel that does not take the shortcut gets the program without it; the second value is why.
fn load(config: &XdpConfig, queues: u32, buffers: Buffers) -> Result<(Steerer, Option<String>), XdpError> {
    let ports = config.ports.len() as u32;
    if config.shortcut == ShortcutSetting::Off {
        return Ok((Steerer::load(ports, queues, 0, buffers)?, None));
    }
    match Steerer::load(ports, queues, config.shortcut_flows.max(1), buffers) {
        Ok(steerer) => Ok((steerer, None)),
        Err(error) => Ok((Steerer::load(ports, queues, 0, buffers)?, Some(error.to_string()))),
    }
}
