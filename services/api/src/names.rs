//! The short names of the enums, `SUCCEEDED` for `RELEASE_STATE_SUCCEEDED`: what people read in
//! tables and write on a command line. The domain uses the same words.

use crate::v1;

macro_rules! short_names {
    ($($type:ident, $prefix:literal;)+) => {$(
        impl v1::$type {
            /// The name without the enum's prefix, for example `SUCCEEDED`.
            pub fn short_name(self) -> &'static str {
                let name = self.as_str_name();
                name.strip_prefix($prefix).unwrap_or(name)
            }

            /// Reads the short name back, in any case; `None` for a word that is none.
            pub fn from_short_name(name: &str) -> Option<Self> {
                Self::from_str_name(&format!("{}{}", $prefix, name.to_ascii_uppercase()))
            }
        }
    )+};
}

short_names! {
    ReleaseState, "RELEASE_STATE_";
    PublicationState, "PUBLICATION_STATE_";
    TagMoveState, "TAG_MOVE_STATE_";
    TagKind, "TAG_KIND_";
    Certainty, "CERTAINTY_";
    OnFailure, "ON_FAILURE_";
    OlderPolicy, "OLDER_POLICY_";
    SettledAs, "SETTLED_AS_";
    BlobState, "BLOB_STATE_";
}

impl v1::ReleaseState {
    /// Whether a release in this state changes no more.
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Errored | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_drop_the_prefix_and_read_back() {
        assert_eq!(v1::ReleaseState::Succeeded.short_name(), "SUCCEEDED");
        assert_eq!(v1::TagMoveState::NotAttempted.short_name(), "NOT_ATTEMPTED");
        assert_eq!(v1::TagKind::Floating.short_name(), "FLOATING");
        assert_eq!(v1::Certainty::LastObserved.short_name(), "LAST_OBSERVED");
        assert_eq!(v1::PublicationState::Copying.short_name(), "COPYING");
        assert_eq!(v1::ReleaseState::from_short_name("errored"), Some(v1::ReleaseState::Errored));
        assert_eq!(v1::ReleaseState::from_short_name("DONE"), None);
    }
}
