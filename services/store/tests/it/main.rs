//! The store against a real PostgreSQL, each test in a database of its own.

mod base;
mod releases;
mod walk;
mod world;
