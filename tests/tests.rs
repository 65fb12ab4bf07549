//! Unprivileged tests.

mod layers;
mod lvscf;
mod lvscf_check;
mod marks;
mod nanny;
mod runner;
mod scenarios;
mod settings;
mod support;
