//! Time and randomness as parameters, so that tests can hold them.

use time::OffsetDateTime;
use uuid::Uuid;

/// Wall-clock time. The database has its own clock for leases and the ledger; this one is for
/// what never leaves the process.
pub trait Clock: Send + Sync + 'static {
    /// Now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

/// Randomness: ids, lease tokens, salts.
pub trait Entropy: Send + Sync + 'static {
    /// A new UUID of version 7 (RFC 9562), which sorts by time.
    fn uuid(&self) -> Uuid;
    /// 32 random bytes from the operating system's generator.
    fn salt(&self) -> [u8; 32];
    /// A number from 0 up to 1, for jitter.
    fn fraction(&self) -> f64 {
        let [a, b, c, d, ..] = self.salt();
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
        OffsetDateTime::now_utc()
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn uuid(&self) -> Uuid {
        #[expect(clippy::disallowed_methods, reason = "the one place that draws ids")]
        Uuid::now_v7()
    }

    fn salt(&self) -> [u8; 32] {
        // Two version 4 UUIDs carry 122 random bits each; hashing them would add nothing, so the
        // bytes come straight from the generator that `uuid` itself uses.
        let mut salt = [0_u8; 32];
        getrandom::fill(&mut salt).unwrap_or_else(|error| {
            // Without randomness no salt, lease or id is safe; going on would be worse.
            #[expect(clippy::panic, reason = "the operating system's generator is gone")]
            {
                panic!("no randomness from the operating system: {error}")
            }
        });
        salt
    }
}
