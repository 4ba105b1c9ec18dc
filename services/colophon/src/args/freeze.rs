//! The options of `freeze`, `freezes` and `lift`.

use clap::Args;
use colophon_api::{Timestamp, v1::CreateFreezeRequest};

use super::values;
use crate::exit::Problem;

/// What to stop, why, and until when.
#[derive(Debug, Args)]
pub struct Freeze {
    /// '*' for everything, 'host/*' for a registry, 'host/name/*' for what is below, or one
    /// repository
    #[arg(value_parser = values::pattern)]
    pub pattern: String,
    /// The end as a time
    #[arg(long, value_name = "TIME", value_parser = values::timestamp, conflicts_with = "for")]
    pub until: Option<Timestamp>,
    /// The end as a duration from now
    #[arg(long = "for", id = "for", value_name = "DURATION", value_parser = values::time_ahead)]
    pub lasting: Option<Timestamp>,
    /// Why; everybody whose release waits sees it
    #[arg(long, value_parser = values::reason)]
    pub reason: String,
}

impl Freeze {
    /// The request; without an end it is a usage error that says why there must be one.
    pub fn request(self) -> Result<CreateFreezeRequest, Problem> {
        let Some(end) = self.until.or(self.lasting) else {
            return Err(Problem::usage(
                "a freeze has an end: one that is forgotten would stop every release for ever",
            )
            .remedy("give --until TIME or --for DURATION; `colophon lift ID` ends it earlier"));
        };
        let (pattern, reason) = (self.pattern, self.reason);
        Ok(CreateFreezeRequest { pattern, reason, end_time: Some(end) })
    }
}

/// Which freezes to list.
#[derive(Debug, Args)]
pub struct Freezes {
    /// Also freezes that have ended
    #[arg(long)]
    pub all: bool,
}

/// Names a freeze to end.
#[derive(Debug, Args)]
pub struct Lift {
    /// The freeze
    pub id: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}
