//! The options of `publish` and `plan` about what of an image goes along.

use clap::Args;
use colophon_api::v1::Selection;

/// What of the image goes along.
#[derive(Debug, Args)]
pub struct Along {
    /// Publish only this platform of an index, os/architecture[/variant]; may be repeated. What is
    /// left is another index, with a digest of its own
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Which manifests that refer to the image go along, for example signatures and SBOMs: all,
    /// none, or artifact types [default: all]
    #[arg(long, value_name = "all|none|TYPE[,TYPE]", value_delimiter = ',')]
    pub referrers: Vec<String>,
    /// Leave out the tags that cosign derives from digests (sha256-<hex>.sig, .att, .sbom)
    #[arg(long)]
    pub no_cosign: bool,
    /// Copy foreign layers too, from the source's registry
    #[arg(long)]
    pub include_foreign: bool,
}

impl Along {
    /// The message; nothing where nothing was said, so that an older server takes it, too.
    pub fn selection(self) -> Option<Selection> {
        let selection = Selection {
            platforms: self.platform,
            referrers: self.referrers,
            without_cosign: self.no_cosign,
            include_foreign: self.include_foreign,
        };
        (selection != Selection::default()).then_some(selection)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn parsed(options: &str) -> Option<Selection> {
        let line = format!("colophon publish a/x:1 --to b/x --tag 1 {options}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Publish(publish) = cli.command else { panic!("another command") };
        publish.content.request().unwrap().selection
    }

    #[test]
    fn what_goes_along_is_said_only_if_something_is() {
        assert_eq!(parsed(""), None);
        let selection = parsed(
            "--platform linux/amd64 --platform linux/arm64 --no-cosign --include-foreign \
             --referrers application/spdx+json,application/vnd.x",
        )
        .unwrap();
        assert_eq!(selection.platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(selection.referrers, ["application/spdx+json", "application/vnd.x"]);
        assert!(selection.without_cosign && selection.include_foreign);
        assert_eq!(parsed("--referrers none").unwrap().referrers, ["none"]);
    }
}
