//! How much memory there is, how much is free, which the automatic modes of the defence against floods go by, and its huge pages.

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

fn free_pages_of(meminfo: &str) -> Option<u64> {
    Some((number(meminfo, "MemFree")? + number(meminfo, "Buffers")?) / KILOBYTES_PER_PAGE)
}

/// Pages set aside for programs that ask for huge ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes of a page.
    pub size: u64,
    /// Pages that nobody has asked for.
    pub free: u64,
    /// All of them.
    pub all: u64,
}

/// The huge pages of the default size; `None` if the kernel has none to give.
pub fn huge_pages() -> Option<HugePages> {
    huge_pages_of(&fs::read_to_string(MEMINFO).ok()?)
}

fn huge_pages_of(meminfo: &str) -> Option<HugePages> {
    let reserved = number(meminfo, "HugePages_Rsvd")?;
    Some(HugePages {
        size: number(meminfo, "Hugepagesize")? * 1024,
        free: number(meminfo, "HugePages_Free")?.saturating_sub(reserved),
        all: number(meminfo, "HugePages_Total")?,
    })
}

fn number(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn total_bytes_of(meminfo: &str) -> Option<u64> {
    Some(number(meminfo, "MemTotal")? * 1024)
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

    #[test]
    fn huge_pages_that_are_promised_are_not_free() {
        let meminfo = "HugePages_Total:      20\nHugePages_Free:       12\nHugePages_Rsvd:        4\nHugepagesize:       2048 kB\n";
        assert_eq!(huge_pages_of(meminfo), Some(HugePages { size: 2 << 20, free: 8, all: 20 }));
        assert_eq!(huge_pages_of("MemTotal: 1 kB\n"), None);
    }
}
