//! Unprivileged tests.

mod layers;
mod nanny;
mod runner;
mod support;
