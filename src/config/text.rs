//! Reading a configuration file as text.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

/// Largest file that is read, in bytes.
pub const LARGEST: u64 = 16 << 20;

/// Why a file is not text that could be parsed.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not there.
    #[error("no such file; create it or name another one")]
    Missing,
    /// It is a directory.
    #[error("is a directory, not a file; name the file in it")]
    Directory,
    /// It is a FIFO, a socket or a device, which could be without end.
    #[error("is not a regular file; name a file")]
    NotRegular,
    /// The user may not read it.
    #[error("permission denied; run as root or change the file's mode")]
    Permission,
    /// It is larger than [`LARGEST`].
    #[error("is larger than {} MiB; this is not a configuration file", LARGEST >> 20)]
    TooLarge,
    /// It has NUL bytes.
    #[error("line {line}: has NUL bytes; this is not a text file")]
    Binary {
        /// 1-based line.
        line: usize,
    },
    /// A line that is not a comment is not UTF-8.
    #[error("line {line}: is not UTF-8 text; only comments may be in another encoding")]
    Encoding {
        /// 1-based line.
        line: usize,
    },
    /// Anything else the system says.
    #[error("cannot be read: {0}")]
    Io(io::Error),
}

impl ReadError {
    /// The 1-based line at fault, if it is one line.
    pub fn line(&self) -> Option<usize> {
        match self {
            ReadError::Binary { line } | ReadError::Encoding { line } => Some(*line),
            _ => None,
        }
    }

    /// What is wrong, without the line.
    pub fn reason(&self) -> String {
        let whole = self.to_string();
        let place = self.line().map(|line| format!("line {line}: ")).unwrap_or_default();
        whole.strip_prefix(&place).unwrap_or(&whole).to_owned()
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing,
            io::ErrorKind::IsADirectory => ReadError::Directory,
            io::ErrorKind::PermissionDenied => ReadError::Permission,
            _ => ReadError::Io(error),
        }
    }
}

/// Reads a configuration file. Its type is asked for before it is opened, because opening a FIFO waits for a writer.
pub fn read(path: &Path) -> Result<String, ReadError> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(ReadError::Directory);
    }
    if !kind.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(ReadError::TooLarge);
    }
    decode(bytes)
}

/// Bytes as text. Comments in an old single-byte encoding are common and harmless, so they are let through.
pub fn decode(bytes: Vec<u8>) -> Result<String, ReadError> {
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line_number = index + 1;
        if line.contains(&0) {
            return Err(ReadError::Binary { line: line_number });
        }
        if !line.trim_ascii_start().starts_with(b"#") && std::str::from_utf8(line).is_err() {
            return Err(ReadError::Encoding { line: line_number });
        }
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
