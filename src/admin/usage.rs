//! What is wrong with a command line, in the words of ipvsadm 1.31 (reference 9.2, samples `08-errors.txt`).

use thiserror::Error;

/// A command line that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// The first option is no command.
    #[error("Try `ipvsadm -h' or 'ipvsadm --help' for more information.")]
    NotACommand,
    /// No such option; holds the word.
    #[error("{0}: unknown option")]
    UnknownOption(String),
    /// An option without its value; holds the word.
    #[error("{0}: missing argument")]
    MissingArgument(String),
    /// A value where none belongs; holds the word.
    #[error("{0}: option does not take an argument")]
    UnwantedArgument(String),
    /// A second command; holds the word.
    #[error("invalid option `{0}'")]
    SecondCommand(String),
    /// A word that belongs to nothing.
    #[error("unexpected argument {0}")]
    Unexpected(String),
    /// A required option is missing: option, command.
    #[error("You need to supply the '{0}' option for the '{1}' command")]
    Missing(&'static str, &'static str),
    /// The command does not take the option: option, command.
    #[error("Illegal '{0}' option with the '{1}' command")]
    Illegal(&'static str, &'static str),
    /// An option was given twice.
    #[error("multiple '{0}' options specified")]
    Multiple(&'static str),
    /// Two options exclude each other: the later one, the earlier one, command.
    #[error("The option '{0}' conflicts with the '{1}' option in the '{2}' command")]
    Exclusive(&'static str, &'static str, &'static str),
    /// A list of something with columns of something else.
    #[error("options conflicts in the list command")]
    ListConflict,
    /// The value of an option that is known by its name, such as `weight`.
    #[error("illegal {0} specified")]
    IllegalValue(&'static str),
    /// `-p` or `--set`.
    #[error("invalid timeout value `{0}' specified")]
    Timeout(String),
    /// `-f`.
    #[error("invalid fwmark value `{0}' specified")]
    FwMark(String),
    /// `-6` without `-f`; the empty line is the original's.
    #[error("-6 used before -f\n")]
    Ipv6WithoutMark,
    /// `-b` with an unknown flag.
    #[error("invalid scheduler flag `{0}'")]
    SchedulerFlag(String),
    /// `-b` with a flag of another scheduler.
    #[error("incompatible scheduler flag `{0}'")]
    ForeignSchedulerFlag(String),
    /// `--mcast-group`: family, value.
    #[error("invalid {0} mcast-group `{1}'")]
    McastGroup(&'static str, String),
    /// `--set` with fewer than three values.
    #[error("--set option requires 3 timeout values")]
    SetNeedsThree,
    /// Port 0 takes only persistent services.
    #[error("Zero port specified for non-persistent service")]
    ZeroPort,
    /// `-o` on something else than UDP or a mark.
    #[error("One-Packet Scheduling is only for UDP virtual services")]
    OnePacketNotUdp,
    /// Service and server differ in family.
    #[error("Different address family is allowed only for tunneling servers")]
    ForeignFamily,
    /// Tunnel options without `-i`.
    #[error("Tunnel options conflict with forward method")]
    TunnelOptions,
    /// The tunnel type needs an option: option, type.
    #[error("You need to supply the '{0}' option for the '{1}' tunnel type")]
    TunnelMissing(&'static str, &'static str),
    /// The tunnel type does not take the option: option, type.
    #[error("Illegal '{0}' option with the '{1}' tunnel type")]
    TunnelIllegal(&'static str, &'static str),
    /// Two tunnel options exclude each other: the later one, the earlier one, type.
    #[error("The option '{0}' conflicts with the '{1}' option in the '{2}' tunnel type")]
    TunnelExclusive(&'static str, &'static str, &'static str),
}

impl UsageError {
    /// Exit code: 255 for what the option parser finds, 2 for the rest.
    pub fn code(&self) -> u8 {
        if matches!(self, UsageError::NotACommand) || self.comes_from_parser() { 255 } else { 2 }
    }

    /// Whether `-R` goes on with the next line after this one: the parser's complaints do not end it, all others do.
    pub fn comes_from_parser(&self) -> bool {
        matches!(
            self,
            UsageError::UnknownOption(_) | UsageError::MissingArgument(_) | UsageError::UnwantedArgument(_)
        )
    }
}
