//! The table that is printed at the end.

use std::{
    fmt,
    io::{self, Write as _},
    time::Duration,
};

use crate::stats::Sample;

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table(Vec<[String; 5]>);

impl Table {
    /// `beside` is the peer or the limit; `to_reach` may be empty for rows that only explain.
    pub(crate) fn row(&mut self, what: &str, own: &str, beside: &str, ratio: &str, to_reach: &str) {
        let row = [what, own, beside, ratio, to_reach].map(str::to_owned);
        // Said at once as well: a run takes minutes.
        say(row.join("   ").trim_end());
        self.0.push(row);
    }

    /// Medians of seconds beside those of a peer, if there was one.
    pub(crate) fn beside(
        &mut self,
        what: &str,
        own: &Sample,
        peer: &str,
        times: Vec<Duration>,
        to_reach: &str,
    ) {
        if times.is_empty() {
            return;
        }
        let own = own.median().as_secs_f64();
        let times = Sample::new(times).median().as_secs_f64();
        let (beside, ratio) = (format!("{peer} {times:.2} s"), format!("{:.2}", own / times));
        self.row(what, &format!("{own:.2} s"), &beside, &ratio, to_reach);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["measurement", "colophon", "peer or limit", "ratio", "to reach"];
        let rows: Vec<[&str; 5]> = std::iter::once(head)
            .chain(self.0.iter().map(|row| row.each_ref().map(String::as_str)))
            .collect();
        writeln!(f)?;
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let column = rows.iter().filter_map(|row| row.get(column));
                let width = column.map(|cell| cell.chars().count()).max().unwrap_or(0);
                format!("{cell:<width$}   ")
            });
            writeln!(f, "{}", cells.collect::<String>().trim_end())?;
        }
        Ok(())
    }
}

/// Prints a line; nobody is left to tell when that fails.
pub(crate) fn say(text: &str) {
    let _closed = writeln!(io::stdout(), "{text}");
}

/// Says why there is no table.
pub(crate) fn complain(error: &anyhow::Error) {
    let _closed = writeln!(io::stderr(), "the bench failed: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row("a", "1", "skopeo 2", "0.5", "<= 1");
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines[0].find("peer"), lines[1].find("skopeo"), "{text}");
    }
}
