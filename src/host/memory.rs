//! How much memory there is, and how much is free: what the automatic modes of the defence against floods go by.

use std::fs;

const MEMINFO: &str = "/proc/meminfo";

/// The kernel's `amemthresh` counts pages of this size.
const KILOBYTES_PER_PAGE: u64 = 4;

/// Free memory and buffers in pages of 4 KiB, as the kernel's IPVS counts them; `None` if the kernel does not say.
pub fn free_pages() -> Option<u64> {
    free_pages_of(&fs::read_to_string(MEMINFO).ok()?)
}

/// The machine's memory in bytes; `None` if the kernel does not say.
pub fn total_bytes() -> Option<u64> {
    total_bytes_of(&fs::read_to_string(MEMINFO).ok()?)
}

fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn free_pages_of(meminfo: &str) -> Option<u64> {
    Some((kilobytes(meminfo, "MemFree")? + kilobytes(meminfo, "Buffers")?) / KILOBYTES_PER_PAGE)
}

fn total_bytes_of(meminfo: &str) -> Option<u64> {
    Some(kilobytes(meminfo, "MemTotal")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_and_buffered_memory_count() {
        let meminfo = "MemTotal:       32657388 kB\nMemFree:          102400 kB\nMemAvailable:   9 kB\nBuffers:  400 kB\n";
        assert_eq!(free_pages_of(meminfo), Some(25_700));
        assert_eq!(free_pages_of("MemTotal: 1 kB\n"), None);
        assert_eq!(total_bytes_of(meminfo), Some(33_441_165_312));
        assert!(
            total_bytes() >= free_pages().map(|pages| pages * 4096),
            "there is no more free than there is"
        );
        assert!(free_pages().is_some_and(|pages| pages > 0));
    }
}
