//! Freezes.

use colophon_api::v1::{Freeze, ListFreezesResponse};

use super::{pairs, short_time};
use crate::text::{clean, columns, or_dash};

/// One freeze.
pub fn freeze(freeze: &Freeze) -> String {
    pairs(&[
        ("freeze", format!("{}  {}", clean(&freeze.id), state(freeze))),
        ("pattern", clean(&freeze.pattern)),
        ("since", short_time(freeze.create_time.as_ref())),
        ("until", until(freeze)),
        ("by", clean(&freeze.actor)),
        ("reason", clean(&freeze.reason)),
        ("lifted because", clean(&freeze.lift_reason)),
        (
            "lift",
            if freeze.active {
                format!("colophon lift {}", clean(&freeze.id))
            } else {
                String::new()
            },
        ),
    ])
}

/// A line for each freeze.
pub fn freezes(list: &ListFreezesResponse) -> String {
    if list.freezes.is_empty() {
        return "nothing is frozen\n".to_owned();
    }
    let rows: Vec<[String; 6]> = list
        .freezes
        .iter()
        .map(|freeze| {
            [
                clean(&freeze.id),
                state(freeze),
                until(freeze),
                or_dash(&freeze.actor),
                clean(&freeze.pattern),
                clean(&freeze.reason),
            ]
        })
        .collect();
    columns(["FREEZE", "STATE", "UNTIL", "BY", "PATTERN", "REASON"], &rows, "")
}

fn state(freeze: &Freeze) -> String {
    match (freeze.active, freeze.lifted_by.as_str(), freeze.lift_time) {
        (true, ..) => "holds".to_owned(),
        (false, "", None) => "ended".to_owned(),
        (false, "", Some(_)) => "lifted".to_owned(),
        (false, actor, _) => format!("lifted by {}", clean(actor)),
    }
}

/// When it ends, or when it ended.
fn until(freeze: &Freeze) -> String {
    short_time(freeze.lift_time.as_ref().or(freeze.end_time.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen(active: bool, lifted_by: &str) -> Freeze {
        Freeze {
            id: "7".into(),
            pattern: "docker.io/acme/*".into(),
            reason: "audit\u{1b}[2J".into(),
            actor: "ann".into(),
            end_time: Some("2026-11-03T14:02:00Z".parse().unwrap()),
            lifted_by: lifted_by.into(),
            active,
            ..Freeze::default()
        }
    }

    #[test]
    fn a_freeze_says_until_when_it_holds_and_how_to_end_it() {
        assert_eq!(
            freeze(&frozen(true, "")),
            "freeze   7  holds\n\
             pattern  docker.io/acme/*\n\
             since    -\n\
             until    2026-11-03T14:02:00Z\n\
             by       ann\n\
             reason   audit\u{fffd}[2J\n\
             lift     colophon lift 7\n"
        );
        let lifted = freeze(&frozen(false, "bob"));
        assert!(lifted.contains("lifted by bob") && !lifted.contains("colophon lift"), "{lifted}");
    }

    #[test]
    fn a_list_tells_what_holds_from_what_has_ended() {
        let listed = |all: Vec<Freeze>| freezes(&ListFreezesResponse { freezes: all });
        assert_eq!(listed(vec![]), "nothing is frozen\n");
        let text = listed(vec![frozen(true, ""), frozen(false, "")]);
        assert!(text.starts_with("FREEZE  STATE  UNTIL"), "{text}");
        assert!(text.contains("7       holds  ") && text.contains("7       ended  "), "{text}");
    }
}
