//! `ReleaseService.GetRelease`.

use std::time::Duration;

use colophon_api::v1;
use colophon_domain::{Failure, Principal, ReleaseView, Result};
use futures_util::StreamExt as _;

use super::Calls;
use crate::{answer, fields, health::Stopping};

/// A call waits at most so long for the end of a release.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

impl Calls {
    /// Shows one release to a caller who may see it: at once, or when it has ended or the time is
    /// over that the caller waits.
    pub(crate) async fn get_release(
        &self,
        caller: &Principal,
        request: v1::GetReleaseRequest,
        stopping: Stopping,
    ) -> Result<v1::Release> {
        let id = fields::id("id", &request.id)?;
        let wait = wait(request.wait)?;
        let view = self.visible(caller, id).await?;
        if wait.is_zero() || view.state.ended() {
            return Ok(answer::release(view));
        }
        let _place = self.place_to_wait(caller)?;
        let wait = wait.min(self.longest_wait);
        Ok(answer::release(self.await_end(view, wait, stopping).await?))
    }

    async fn await_end(
        &self,
        mut seen: ReleaseView,
        wait: Duration,
        stopping: Stopping,
    ) -> Result<ReleaseView> {
        let mut later = self.service.watch(seen.id);
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        while !seen.state.ended() {
            let next = tokio::select! {
                next = later.next() => next.transpose()?,
                () = &mut over => None,
                () = stopping.0.cancelled() => None,
            };
            match next {
                None => break,
                Some(view) if view.revision > seen.revision => seen = ReleaseView::clone(&view),
                Some(_) => {}
            }
        }
        Ok(seen)
    }
}

/// Reads how long to wait; not at all where nothing is said.
fn wait(given: Option<colophon_api::Duration>) -> Result<Duration> {
    let wrong = |message: String| {
        Failure::invalid("wait", message).remedy("give 60s at most, and ask again after that")
    };
    let Some(given) = given else { return Ok(Duration::ZERO) };
    let wait = Duration::try_from(given).map_err(|error| wrong(error.to_string()))?;
    if wait > LONGEST_WAIT {
        return Err(wrong(format!("a call waits for {} s at most", LONGEST_WAIT.as_secs())));
    }
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_its_bound() {
        let of = |seconds, nanos| wait(Some(colophon_api::Duration { seconds, nanos }));
        assert_eq!(wait(None).unwrap(), Duration::ZERO);
        assert_eq!(of(25, 0).unwrap(), Duration::from_secs(25));
        assert_eq!(of(60, 0).unwrap(), LONGEST_WAIT);
        for (seconds, nanos) in [(60, 1), (-1, 0), (i64::MAX, 0), (0, -1)] {
            assert_eq!(of(seconds, nanos).unwrap_err().field_name(), Some("wait"));
        }
    }
}
