//! What the administrator wrote: `lvs.cf`, the saved iptables marks, `xlvs.toml`. Text in, typed values or a list of
//! complaints out; only [`text::read`] touches a file.

pub mod beyond;
mod bystander;
pub mod check;
mod check_answers;
mod check_health;
mod check_virtual;
mod check_words;
pub mod complaint;
pub mod escape;
pub mod health;
pub mod health_keys;
pub mod keys;
pub mod lex;
pub mod lvs;
pub mod mark_command;
pub mod marks;
pub mod migration;
pub mod names;
pub mod pair;
pub mod parse;
pub mod posix;
pub mod recover;
pub mod report;
pub mod rule;
pub mod service_name;
pub mod settings;
pub mod settings_change;
pub mod text;
pub mod value;
