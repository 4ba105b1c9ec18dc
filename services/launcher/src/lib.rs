//! Starts the parts that Colophon works with as real processes: PostgreSQL, docker-registry and
//! OpenBao. `colophond dev` and the tests use it; a production deployment does not,
//! except for [`write_private`].
//!
//! Each part has a folder of its own (a temporary one, unless it is to be kept), is reached on the loopback interface or a Unix
//! socket only, is stopped when its handle is dropped, and dies with its parent even when that is
//! killed with SIGKILL (only the temporary folder stays behind then).

mod bao;
mod error;
mod home;
pub mod port;
mod postgres;
pub mod process;
mod registry;
pub mod tool;

pub use bao::{AppRole, Bao, BaoOptions, Role};
pub use error::{Error, Result};
pub use home::{Kept, write_private};
pub use postgres::{Postgres, PostgresOptions};
pub use registry::{Login, Registry, RegistryAuth, RegistryOptions, Tls};
