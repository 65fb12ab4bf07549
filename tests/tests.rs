//! Unprivileged tests.

mod runner;
mod support;
