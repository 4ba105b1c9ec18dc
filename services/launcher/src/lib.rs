//! Starts the parts that Colophon works with as real processes: PostgreSQL, docker-registry and
//! OpenBao. `colophond dev` and the tests use it; a production deployment does not.
//!
//! Each part has a temporary folder of its own, is reached on the loopback interface or a Unix
//! socket only, is stopped when its handle is dropped, and dies with its parent even when that is
//! killed with SIGKILL (only the temporary folder stays behind then).

mod bao;
mod error;
pub mod port;
mod postgres;
pub mod process;
mod registry;
pub mod tool;

pub use bao::{AppRole, Bao, BaoOptions, Role};
pub use error::{Error, Result};
pub use postgres::{Postgres, PostgresOptions};
pub use registry::{Login, Registry, RegistryAuth, RegistryOptions, Tls};
