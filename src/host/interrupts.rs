//! Which CPUs serve the interrupts of a network card.

use std::fs;
use std::path::Path;

/// An interrupt of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// What the kernel calls it, such as `eth0-TxRx-0`; may be empty.
    pub name: String,
    /// The CPUs that may serve it.
    pub cpus: Vec<usize>,
}

/// The interrupts of `interface`, by number; none for one without hardware.
pub fn interrupts(interface: &str) -> Vec<Interrupt> {
    read_below(Path::new("/"), interface)
}

/// Whether the interrupts of `interface` stay away while it is polled; `None` if the kernel does not say.
pub fn are_deferred(interface: &str) -> Option<bool> {
    let number = |name: &str| {
        let text = fs::read_to_string(Path::new("/sys/class/net").join(interface).join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(number("napi_defer_hard_irqs")? > 0 && number("gro_flush_timeout")? > 0)
}

fn read_below(root: &Path, interface: &str) -> Vec<Interrupt> {
    let device = root.join("sys/class/net").join(interface).join("device");
    // Of a virtio card the interrupts belong to the device above it.
    let directory =
        [device.join("msi_irqs"), device.join("../msi_irqs")].into_iter().find(|path| path.is_dir());
    let entries = directory.and_then(|directory| fs::read_dir(directory).ok());
    let names = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    let mut found: Vec<Interrupt> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|number| interrupt(root, number, &names))
        .collect();
    found.sort_by_key(|interrupt| interrupt.number);
    found
}

/// The interrupt of this number, if a driver has asked for it.
fn interrupt(root: &Path, number: u32, names: &str) -> Option<Interrupt> {
    let name = name_of(number, names)?;
    let list = root.join("proc/irq").join(number.to_string()).join("smp_affinity_list");
    Some(Interrupt { number, name, cpus: cpus(fs::read_to_string(list).ok()?.trim()) })
}

fn name_of(number: u32, names: &str) -> Option<String> {
    let line = names.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{number}:")))?;
    Some(line.split_whitespace().next_back().unwrap_or_default().to_owned())
}

/// A list of CPUs such as `0-2,5`.
fn cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        for (list, expected) in [("0", &[0][..]), ("0-2,5", &[0, 1, 2, 5]), ("", &[]), ("3,1-", &[3])] {
            assert_eq!(cpus(list), expected, "{list:?}");
        }
    }

    #[test]
    fn interrupts_of_a_card_with_their_names_and_cpus() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root"))?;
            fs::write(path, text)
        };
        for number in [24, 25, 26] {
            write(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix")?;
        }
        write("proc/irq/24/smp_affinity_list", "0\n")?;
        write("proc/irq/25/smp_affinity_list", "0-1\n")?;
        let table = "           CPU0       CPU1\n 24:  7  0  PCI-MSIX  0-edge  eth0-TxRx-0\n 25:  0  9  PCI-MSIX  1-edge  eth0-TxRx-1\n";
        write("proc/interrupts", table)?;
        let found = read_below(root.path(), "eth0");
        let told: Vec<_> = found.iter().map(|it| (it.number, it.name.as_str(), &it.cpus[..])).collect();
        assert_eq!(told, [(24, "eth0-TxRx-0", &[0][..]), (25, "eth0-TxRx-1", &[0, 1][..])]);
        assert_eq!(read_below(root.path(), "eth1"), []);
        Ok(())
    }
}
