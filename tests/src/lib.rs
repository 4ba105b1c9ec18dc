//! The suites that need the whole service: its binaries against real parts. Each is a file in
//! `tests/`; what they share and nobody else needs is in here.
