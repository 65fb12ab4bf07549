//! Tests that need no privilege.

mod lvscf;
mod lvscf_check;
mod marks;
mod settings;
