//! What a floating tag was before, and so what it can be rolled back to.
//!
//! A tag's past is no list of moves but a stack: a publish puts a digest on top, a rollback takes
//! off what it went back over. So a rollback after a rollback goes further back, and not to the
//! release that was just rolled back.

use std::collections::{BTreeMap, HashMap};

use crate::Digest;

/// How a tag came to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Forward: by a publish, or by somebody else (drift, baseline, deleted).
    Moved,
    /// Back: by a rollback, or because a release that failed was undone.
    Back,
}

/// One change of a tag that was seen in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Step {
    /// Where the tag is after it; `None` if there is no such tag.
    pub digest: Option<Digest>,
    /// How it came there.
    pub kind: StepKind,
}

/// The positions of a tag, newest first, from its steps, oldest first. The first is where the tag
/// is now, the one at `n` is `n` steps back; no digest is there twice.
///
/// - `Moved` puts the digest on top. If the tag was there before, that older position is gone:
///   going back from it over others must not end where one began.
/// - `Back` goes to the position of that digest, and what was above is gone. Back to a digest that
///   is no position any more undoes a rollback: it is on top again, above where the tag was.
///   Back to no tag at all takes off the one move that made the tag.
/// - A time without the tag is kept in order like a digest, but nobody can go back to it, so it is
///   left out of the result. If the tag does not exist now, the first position is therefore not
///   where it is but the newest digest that it can have again.
pub fn positions(steps: &[Step]) -> Vec<Digest> {
    // By the number of the step that put it there, and the other way around.
    let mut stack: BTreeMap<usize, Option<&Digest>> = BTreeMap::new();
    let mut places: HashMap<Option<&Digest>, usize> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        let digest = step.digest.as_ref();
        match (step.kind, places.get(&digest).copied()) {
            (StepKind::Back, Some(place)) => {
                while let Some(top) = stack.last_entry().filter(|top| *top.key() > place) {
                    places.remove(&top.remove());
                }
                continue;
            }
            (StepKind::Moved, Some(place)) => {
                stack.remove(&place);
            }
            (StepKind::Back, None) if digest.is_none() => {
                if let Some((_, top)) = stack.pop_last() {
                    places.remove(&top);
                }
            }
            (_, None) => {}
        }
        stack.insert(number, digest);
        places.insert(digest, number);
    }
    stack.into_values().rev().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(name: char) -> Digest {
        Digest::sha256(name.to_string().as_bytes())
    }

    fn step(kind: StepKind, name: char) -> Step {
        Step { digest: (name != '-').then(|| digest(name)), kind }
    }

    /// Steps as words: `A` moved to A, `<A` went back to A, `-` was deleted.
    fn after(steps: &str) -> String {
        let steps: Vec<Step> = steps
            .split_whitespace()
            .map(|word| match word.strip_prefix('<') {
                Some(name) => step(StepKind::Back, name.chars().next().unwrap()),
                None => step(StepKind::Moved, word.chars().next().unwrap()),
            })
            .collect();
        let name = |at: &Digest| ('A'..='Z').find(|name| digest(*name) == *at).unwrap();
        positions(&steps).iter().map(name).collect()
    }

    #[test]
    fn rollback_after_rollback_goes_further_back() {
        for (steps, expected) in [
            ("", ""),
            ("A", "A"),
            ("A B C", "CBA"),
            ("A B C <B", "BA"),
            ("A B C <B <A", "A"),
            ("A B C <A", "A"),
            // A publish after it, also of what was rolled back, begins anew from there.
            ("A B C <B D", "DBA"),
            ("A B C <B C", "CBA"),
            ("A B B", "BA"),
            ("A B <B", "BA"),
            // A rollback that is undone, or that failed: what it came from is below again.
            ("A B <A <B", "BA"),
            ("A B C <B <C", "CBA"),
            ("A B C <A <B", "BA"),
            ("A B <A <B <A", "A"),
            ("<A", "A"),
            // A digest that came again is only where it came last.
            ("A B A", "AB"),
            ("A B A <B", "B"),
        ] {
            assert_eq!(after(steps), expected, "{steps}");
        }
    }

    #[test]
    fn nobody_goes_back_to_a_time_without_the_tag() {
        for (steps, expected) in [
            ("-", ""),
            ("A -", "A"),
            ("A - B", "BA"),
            ("A - A", "A"),
            ("A - B <A", "A"),
            // Undone to "no such tag": what was undone is gone, what was before is not.
            ("A <-", ""),
            ("A - B <-", "A"),
            ("A - B C <-", "A"),
            ("A - B <- C", "CA"),
        ] {
            assert_eq!(after(steps), expected, "{steps}");
        }
    }

    #[test]
    fn a_long_past_is_no_burden() {
        let names: Vec<Digest> = (0..1000_u32).map(|n| Digest::sha256(&n.to_be_bytes())).collect();
        let steps = (0..200_000_usize)
            .map(|n| Step { digest: names.get(n * 7 % 1000).cloned(), kind: StepKind::Moved });
        assert_eq!(positions(&steps.collect::<Vec<_>>()).len(), 1000);
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let kind = prop_oneof![2 => Just(StepKind::Moved), 1 => Just(StepKind::Back)];
        let name = prop::sample::select(vec!['A', 'B', 'C', 'D', 'E', 'F', '-']);
        prop::collection::vec((kind, name).prop_map(|(kind, name)| step(kind, name)), 0..30)
    }

    proptest! {
        #[test]
        fn the_first_position_is_where_the_tag_is(steps in steps()) {
            let now = steps.last().and_then(|step| step.digest.as_ref());
            prop_assert!(now.is_none() || positions(&steps).first() == now);
        }

        #[test]
        fn no_position_is_there_twice_and_each_was_seen(steps in steps()) {
            let positions = positions(&steps);
            for (at, digest) in positions.iter().enumerate() {
                prop_assert!(!positions[..at].contains(digest));
                prop_assert!(steps.iter().any(|step| step.digest.as_ref() == Some(digest)));
            }
        }

        /// Going back n steps leaves exactly the positions from there on, so that steps add up:
        /// one and then two is the same as three.
        #[test]
        fn going_back_goes_further_back(mut steps in steps(), choice: prop::sample::Index) {
            let before = positions(&steps);
            if !before.is_empty() {
                let back = choice.index(before.len());
                steps.push(Step { digest: Some(before[back].clone()), kind: StepKind::Back });
                prop_assert_eq!(&positions(&steps)[..], &before[back..]);
            }
        }

        /// Whatever position one goes back to, what was there is no position any more.
        #[test]
        fn what_was_rolled_back_does_not_come_again(
            mut steps in steps(),
            choice: prop::sample::Index,
        ) {
            let before = positions(&steps);
            let now = steps.last().and_then(|step| step.digest.clone());
            if let (Some(now), 2..) = (now, before.len()) {
                let to = before[1 + choice.index(before.len() - 1)].clone();
                steps.push(Step { digest: Some(to), kind: StepKind::Back });
                let after = positions(&steps);
                prop_assert!(!after.contains(&now));
                prop_assert!(after.iter().all(|at| before.contains(at)));
            }
        }
    }
}
