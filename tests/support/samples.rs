//! The sample files: `$ command`, its output, `[exit code]`.

use std::path::Path;

/// One command with what the real one answered.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The line as typed.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: u8,
}

impl Sample {
    /// The words for ipvsadm; ipvsadm-save is `ipvsadm -S`.
    pub fn arguments(&self) -> String {
        let command = self.command.replace("ipvsadm-save", "ipvsadm -S");
        command.trim_start_matches("ipvsadm").trim().to_owned()
    }
}

/// All samples of all files, with the file's name.
pub fn all() -> Vec<(String, Sample)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ipvsadm");
    let mut files: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut samples = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        samples.extend(parse(&text).into_iter().map(|sample| (name.clone(), sample)));
    }
    samples
}

/// The samples of one file, without the saved servers behind GUE and GRE tunnels, which xlvs does not know.
pub fn parse(text: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut current = Sample::default();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            current = Sample { command: command.to_owned(), ..Sample::default() };
        } else if let Some(code) = line.strip_prefix("[exit ") {
            current.code = code.trim_end_matches(']').parse().unwrap();
            samples.push(std::mem::take(&mut current));
        } else if let Some(error) = line.strip_prefix("stderr: ") {
            current.stderr += &format!("{error}\n");
        } else if !line.contains("--tun-type g") {
            current.stdout += &format!("{line}\n");
        }
    }
    samples
}
