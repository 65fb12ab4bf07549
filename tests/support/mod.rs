//! What the tests share: the scenario runner, and models of the machines around the device under test.

pub mod audit;
pub mod compare;
pub mod conversation;
pub mod decode;
pub mod device;
pub mod dump;
pub mod engine;
pub mod ethernet;
pub mod host;
pub mod known;
pub mod names;
pub mod packet;
pub mod player;
pub mod reassembly;
pub mod replay;
pub mod samples;
pub mod scenario;
pub mod shortcut;
pub mod story;
pub mod suite;
pub mod text;
