//! The memory of processes over time, and whether it stays where it was.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Below this time the first minutes' growth (pools, caches, the allocator) is all there is.
const WORTH_JUDGING: Duration = Duration::from_mins(5);

/// What was seen of each process, in the order of time.
#[derive(Default)]
pub(crate) struct Memory(BTreeMap<&'static str, Vec<(Duration, f64)>>);

impl Memory {
    /// Looks at a process.
    pub(crate) fn look(&mut self, name: &'static str, at: Duration, id: u32) {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        self.0.entry(name).or_default().push((at, kib / 1024.0));
    }

    /// No process of a long run may need more in the last quarter than in the second, but for
    /// what one page of the allocator more or less makes.
    pub(crate) fn is_flat(&self, time: Duration) {
        if time < WORTH_JUDGING {
            return;
        }
        for (name, seen) in &self.0 {
            let (early, late) = (quarter(seen, 1), quarter(seen, 3));
            assert!(late <= early * 1.1 + 2.0, "{name}: {early:.1} MiB became {late:.1} MiB");
        }
    }
}

/// The median of one quarter of the looks.
fn quarter(seen: &[(Duration, f64)], number: usize) -> f64 {
    let size = seen.len() / 4;
    let mut part: Vec<f64> =
        seen.iter().skip(number * size).take(size.max(1)).map(|(_, mib)| *mib).collect();
    part.sort_by(f64::total_cmp);
    part[part.len() / 2]
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, seen) in &self.0 {
            let most = seen.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
            let quarters = [0, 1, 2, 3].map(|number| format!("{:.1}", quarter(seen, number)));
            writeln!(
                f,
                "memory of a {name}, medians of quarters: {} MiB; at most {most:.1} MiB",
                quarters.join(", ")
            )?;
        }
        Ok(())
    }
}
