//! A world for end-to-end tests: PostgreSQL, registries, Vault and any number of Colophon's own
//! processes, all real, on loopback addresses and in temporary folders, gone with the test.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use colophon_testkit::image::ImageSpec;
//! use colophon_tests::{SiteOptions, World};
//!
//! let mut world = World::new().await?;
//! let staging = world.site(SiteOptions::default()).await?;
//! let target = world.site(SiteOptions::proxied()).await?;
//! let api = world.serve().await?;
//! let _worker = world.work().await?;
//! let client = world.client(&api)?;
//! staging.push(&ImageSpec::tiny("one"), "app", "v1").await?;
//! let release = client.publish(
//!     &staging.reference("app", "v1"),
//!     &[(&target.repository("app"), &["1.0.0"], &["1"])],
//! ).await?;
//! let ended = client.wait_end(&release).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod database;
mod node;
mod site;
mod vault;
mod world;

pub use client::{Answer, Client, Target, request};
pub use database::Database;
pub use node::Node;
pub use site::{Site, SiteOptions, Trust};
pub use vault::Vault;
pub use world::{CliOutput, World};

use std::time::Duration;

/// How long something may take that should come true soon. Machines are slow at times; what
/// comes true is seen at once.
pub const PATIENCE: Duration = Duration::from_mins(1);
