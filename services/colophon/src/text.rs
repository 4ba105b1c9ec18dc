//! Text for terminals: texts of others without their control characters, short digests, sizes
//! and columns.

use std::fmt::{self, Write as _};

/// Whether a character can move a cursor, recolour a terminal or reorder what is read: control
/// characters (C0, DEL, C1), the line and paragraph separators and the bidirectional controls.
fn hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of text that is safe to print: every character that a terminal would obey is
/// replaced, line ends and tabs become spaces.
pub fn clean(text: &str) -> String {
    let safe = |character| match character {
        '\n' | '\r' | '\t' => ' ',
        character if hostile(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    text.chars().map(safe).collect()
}

/// JSON with the same characters escaped. They can only stand inside its strings, where `\u`
/// means the same, except for the line ends between its members.
pub fn clean_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if hostile(character) && character != '\n' {
            // All of them lie below U+10000, so one escape each is enough.
            append(&mut safe, format_args!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// A digest as people compare it: twelve hexadecimal digits, `-` where there is none.
pub fn short_digest(digest: &str) -> String {
    if digest.is_empty() {
        return "-".to_owned();
    }
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    clean(&hex.chars().take(12).collect::<String>())
}

/// At most so many characters of a text; an ellipsis stands where some were left out. Of a
/// repository or reference the end says more than the beginning.
pub fn last_part(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let skipped = count.saturating_sub(limit.saturating_sub(1));
    std::iter::once('…').chain(text.chars().skip(skipped)).collect()
}

/// The same with the beginning of a text.
pub fn first_part(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// A number of bytes with a unit of powers of 1024; negative ones, which no server sends, are 0.
pub fn bytes(count: i64) -> String {
    indicatif::BinaryBytes(u64::try_from(count).unwrap_or(0)).to_string()
}

/// `text`, or `-` where it is empty, so that no column looks forgotten.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text) }
}

/// Adds formatted text to a string, which cannot fail.
pub fn append(text: &mut String, arguments: fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

/// The word before an error.
pub fn paint_error(color: bool) -> &'static str {
    if color { "\u{1b}[31merror:\u{1b}[0m " } else { "error: " }
}

fn widths<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> [usize; N] {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Columns whose last one is cut so that a line has about `limit` characters. Of a long text at
/// least a few words are left.
pub fn narrow_columns<const N: usize>(
    head: [&str; N],
    mut rows: Vec<[String; N]>,
    limit: usize,
) -> String {
    const LEAST: usize = 20;
    let before: usize = widths(head, &rows).iter().take(N - 1).map(|width| width + 2).sum();
    let left = limit.saturating_sub(before).max(LEAST);
    for cell in rows.iter_mut().filter_map(|row| row.last_mut()) {
        *cell = first_part(cell, left);
    }
    columns(head, &rows, "")
}

/// Lines up columns by the widest cell; the last column is left as it is.
pub fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]], indent: &str) -> String {
    let widths = widths(head, rows);
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let mut padded = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            append(&mut padded, format_args!("{cell:width$}  "));
        }
        text.push_str(indent);
        text.push_str(padded.trim_end());
        text.push('\n');
    };
    line(&head);
    for row in rows {
        line(&row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b\nc\u{9b}2J"), "a\u{fffd}]0;x\u{fffd}b c\u{fffd}2J");
        assert_eq!(clean("\u{202e}evil"), "\u{fffd}evil");
        assert_eq!(clean("größe 大"), "größe 大");
    }

    #[test]
    fn json_keeps_its_meaning_when_it_is_cleaned() {
        let value = serde_json::json!({"message": "a\u{9b}b\u{7f}\u{202e}\u{1b}\nc"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let safe = clean_json(&json);
        assert!(safe.chars().all(|character| character == '\n' || !hostile(character)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn digests_are_short_and_sizes_have_units() {
        assert_eq!(short_digest("sha256:e3b0c44298fc1c149afb"), "e3b0c44298fc");
        assert_eq!(short_digest(""), "-");
        assert_eq!(bytes(1_572_864), "1.50 MiB");
        assert_eq!(bytes(-1), "0 B");
    }

    #[test]
    fn long_texts_are_cut_where_they_say_least() {
        assert_eq!(last_part("docker.io/acme/app:1.4", 10), "…e/app:1.4");
        assert_eq!(first_part("because of the weekly", 8), "because…");
        for text in ["größe", ""] {
            assert_eq!((last_part(text, 5), first_part(text, 5)), (text.into(), text.into()));
        }
        let row = ["a".repeat(10), "why ".repeat(99)];
        let text = narrow_columns(["X", "Y"], vec![row.clone()], 60);
        assert_eq!(text.lines().map(|line| line.chars().count()).max(), Some(60));
        let text = narrow_columns(["X", "Y"], vec![row], 10);
        assert!(text.contains("why why why why why…"), "{text}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "long".to_owned()], ["bbb".to_owned(), String::new()]];
        assert_eq!(columns(["X", "Y"], &rows, "  "), "  X    Y\n  a    long\n  bbb\n");
    }
}
