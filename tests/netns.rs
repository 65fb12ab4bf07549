//! Privileged tests.

#[path = "netns/host.rs"]
mod host;
#[path = "netns/namespace.rs"]
mod namespace;
#[path = "netns/sending.rs"]
mod sending;
