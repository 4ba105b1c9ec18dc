//! Lists that come in pages (distribution-spec, "Listing Tags" and "Listing Referrers"): where the next
//! page is.

use colophon_domain::Result;
use http::{HeaderMap, header};
use reqwest::Response;
use url::Url;

use crate::{answer::Asked, host::place, link, sent::Sent, session::Session};

/// What to do about a list that no correct registry sends.
pub(crate) const REMEDY: &str = "see whether a proxy answers in the registry's place";

impl Session {
    /// The next page by the answer's `Link`. One that cannot be read is a failure, because
    /// without it the list would look complete.
    pub(crate) fn next_page(&self, response: &Response, asked: &Asked<'_>) -> Result<Option<Url>> {
        let Some(target) = next_link(response.headers())
            .map_err(|()| asked.protocol("the answer's Link cannot be read").remedy(REMEDY))?
        else {
            return Ok(None);
        };
        let mut next = response
            .url()
            .join(target)
            .map_err(|_| asked.protocol("the answer's Link is no URL").remedy(REMEDY))?;
        next.set_fragment(None);
        let names_somebody = !next.username().is_empty() || next.password().is_some();
        if self.host.is_own(&next) && !names_somebody {
            return Ok(Some(next));
        }
        let sent = response.extensions().get::<Sent>().cloned().unwrap_or_default();
        let place = place(&next);
        let place = if sent.is_in(&place) { "another place" } else { &place };
        Err(asked
            .protocol(&format!("the next page is said to be at {}://{place}", next.scheme()))
            .remedy("behind a proxy, let the registry know the URL that it is reached by"))
    }
}

/// Where the `Link` with `rel="next"` leads (RFC 8288); an error if any cannot be read.
fn next_link(headers: &HeaderMap) -> Result<Option<&str>, ()> {
    let mut next = None;
    for value in headers.get_all(header::LINK) {
        let found = link::find(value.to_str().map_err(drop)?, "next")?;
        next = next.or(found);
    }
    Ok(next)
}
