//! One request to a registry and all that may have to happen until it has an answer: the
//! host's budget, the authorization and its renewal, a few retries, redirects followed by hand.

use std::{borrow::Cow, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use colophon_domain::{Failure, Reason, Result, Retry};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    answer::{Asked, Refusal},
    auth::Turn,
    budget::Pass,
    request::Line,
    scope::Scopes,
    session::Session,
    transport,
};

/// Redirects that are followed for one request.
const MOST_REDIRECTS: usize = 5;
/// Pauses that one request sits through.
pub(crate) const MOST_THROTTLES: u8 = 6;

/// Short pauses between a few attempts, so that a broken connection or a restarting registry
/// is not the end of a job; anything longer is the queue's business.
pub(crate) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_factor(3.0)
        .with_max_times(3)
        .with_jitter()
        .build()
}

/// A request that can be sent again as it is.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub scopes: Scopes,
    pub asked: Asked<'a>,
    /// Sent again after a failure that may have come after the registry heard it.
    pub repeatable: bool,
    /// A refusal may ask for a newer credential.
    pub renew: bool,
    /// Nothing is sent after this, and no answer is waited for.
    pub deadline: Option<Instant>,
    /// The right to be sent, where that was waited for already.
    pub pass: Option<Pass>,
}

impl<'a> Call<'a> {
    /// A request that reads.
    pub(crate) fn reading(
        session: &'a Session,
        method: Method,
        url: Url,
        what: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: session.scopes(),
            asked: session.asked(what, false),
            repeatable: true,
            renew: true,
            deadline: None,
            pass: None,
        }
    }

    /// A request that writes, and is sent again only if it was certainly not heard.
    pub(crate) fn writing(
        session: &'a Session,
        method: Method,
        url: Url,
        what: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            repeatable: false,
            asked: session.asked(what, true),
            ..Self::reading(session, method, url, "")
        }
    }
}

/// A request without a usable answer.
#[derive(Debug)]
pub(crate) struct CallError {
    pub failure: Failure,
    /// Whether the registry may have done what was asked.
    pub heard: bool,
    /// Whether what failed was repeated already, as a token's request is.
    repeated: bool,
}

impl CallError {
    pub(crate) fn unheard(failure: Failure) -> Self {
        Self { failure, heard: false, repeated: false }
    }

    fn maybe_heard(failure: Failure) -> Self {
        Self { failure, heard: true, repeated: false }
    }

    fn repeated(failure: Failure) -> Self {
        Self { failure, heard: false, repeated: true }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        error.failure
    }
}

impl Session {
    /// Sends a request until it has an answer other than 401, 403, 429 or 5xx.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Response, CallError> {
        let asked = &call.asked;
        let mut turn = Turn::new(self, call.scopes.clone(), call.renew);
        let (mut delays, mut throttles) = (delays(), 0);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.attempt(call, &mut turn, attempt).await;
            let error = match sent {
                Ok(response) if was_a_stranger(call, &mut turn, &response).await => continue,
                Ok(response) => match response.status() {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        self.answer_refusal(call, &mut turn, response).await?;
                        continue;
                    }
                    StatusCode::TOO_MANY_REQUESTS => {
                        throttles += 1;
                        if throttles < MOST_THROTTLES {
                            continue;
                        }
                        let refusal = self.refusal(response, asked).await;
                        return Err(CallError::unheard(refusal.into_failure(asked)));
                    }
                    status if status.is_server_error() => {
                        let refusal = self.refusal(response, asked).await;
                        CallError::maybe_heard(refusal.into_failure(asked))
                    }
                    _ => return Ok(response),
                },
                Err(error) => error,
            };
            let again = error.failure.retry_class() == Retry::Backoff
                && (call.repeatable || !error.heard)
                && !error.repeated;
            match delays.next().filter(|_| again) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
    }

    /// Prepares another attempt after a 401 or 403, or says why there is none. Reading a newer
    /// credential may have to wait; nobody waits for it longer than for the request itself.
    async fn answer_refusal(
        &self,
        call: &Call<'_>,
        turn: &mut Turn<'_>,
        response: Response,
    ) -> Result<(), CallError> {
        let status = response.status();
        let prepared = turn.refused(response, &call.asked);
        let Some(deadline) = call.deadline else {
            return prepared.await.map_err(CallError::unheard);
        };
        let late = |_| {
            let reason = match status {
                StatusCode::FORBIDDEN => Reason::RegistryDenied,
                _ => Reason::RegistryUnauthorized,
            };
            let words = format!(
                "HTTP {}, and it was not known in time whether there is a newer credential",
                status.as_u16()
            );
            Err(call.asked.failure(reason, &words).retry(Retry::Backoff))
        };
        timeout_at(deadline, prepared).await.unwrap_or_else(late).map_err(CallError::unheard)
    }

    /// Waits for the host's budget and the authorization, then sends once.
    async fn attempt(
        &self,
        call: &Call<'_>,
        turn: &mut Turn<'_>,
        attempt: u32,
    ) -> Result<Response, CallError> {
        let budget = &self.host.limits.budget;
        let prepare = async {
            budget.unpaused(call.deadline).await?;
            // A token is asked for before, so that the slot is used when it comes.
            let authorization = turn.header(&call.asked).await?;
            let pass = match call.pass.filter(|_| attempt == 1) {
                Some(pass) => budget.unpaused(call.deadline).await.map(|()| pass)?,
                None => budget.ready(self.urgency, call.deadline).await?,
            };
            Ok((authorization, pass))
        };
        let late = || CallError::unheard(call.asked.late());
        let (authorization, pass) = match call.deadline {
            Some(deadline) if deadline <= Instant::now() => return Err(late()),
            Some(deadline) => timeout_at(deadline, prepare).await.map_err(|_| late())?,
            None => prepare.await,
        }
        .map_err(CallError::repeated)?;
        let client = self.host.client_for(&call.url, &call.asked).map_err(CallError::unheard)?;
        let mut request =
            client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if call.method != Method::GET && call.method != Method::HEAD {
            // Some registries answer 411 to a POST without a length.
            request = request.header(header::CONTENT_LENGTH, call.body.len());
            request = request.body(call.body.clone());
        }
        if let Some(authorization) = authorization.filter(|_| self.host.is_own(&call.url)) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let patience = Instant::now() + self.host.config.request_timeout;
        let limit = call.deadline.map_or(patience, |deadline| deadline.min(patience));
        match self.line(call, attempt).send(timeout_at(limit, request.send())).await {
            Ok(Ok(mut response)) => {
                if self.host.is_own(&call.url) {
                    self.answered(pass, &response);
                    self.host.learn_address(&response);
                    response.extensions_mut().insert(turn.sent());
                }
                Ok(response)
            }
            Ok(Err(error)) => {
                // A connection that could not be opened has carried nothing.
                let heard = !(error.is_connect() || error.is_builder());
                Err(CallError {
                    heard,
                    ..CallError::unheard(transport::explain(error, &call.asked))
                })
            }
            Err(_) => Err(CallError::maybe_heard(call.asked.unavailable("no answer in time"))),
        }
    }

    /// What an answer says of the registry's limits counts for everybody who asks it.
    pub(crate) fn answered(&self, pass: Pass, response: &Response) {
        let clock = self.host.clock.as_ref();
        self.host.limits.budget.answered(pass, response.status(), response.headers(), clock);
    }

    /// Reads a refusal that needs no further authorization.
    pub(crate) async fn refusal(&self, response: Response, asked: &Asked<'_>) -> Refusal {
        Refusal::read(response, self.host.config.request_timeout, asked).await
    }

    /// Sends a GET or HEAD and follows redirects. Another host gets no credentials; if it
    /// refuses, the URL that it was reached by has probably expired, and the registry is asked
    /// again once.
    pub(crate) async fn follow(&self, mut call: Call<'_>) -> Result<Response> {
        let origin = call.url.clone();
        let mut delays = delays();
        let mut refusals = 0;
        loop {
            let failure = match self.walk(&mut call).await {
                Ok(Walked::Own(response)) => return Ok(response),
                Ok(Walked::Foreign(response)) if response.status().is_success() => {
                    return Ok(response);
                }
                Ok(Walked::Foreign(response)) => {
                    if response.status().is_client_error() {
                        refusals += 1;
                    }
                    self.storage_failure(&response, &call)
                }
                Err(failure) => failure,
            };
            let again = failure.retry_class() == Retry::Backoff
                && refusals < 2
                && !self.host.is_own(&call.url);
            match delays.next().filter(|_| again) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure),
            }
            call.url = origin.clone();
        }
    }

    async fn walk(&self, call: &mut Call<'_>) -> Result<Walked> {
        for _ in 0..=MOST_REDIRECTS {
            let own = self.host.is_own(&call.url);
            let response =
                if own { self.call(call).await? } else { self.call_anonymously(call).await? };
            call.pass = None;
            if !is_redirect(response.status()) {
                return Ok(if own { Walked::Own(response) } else { Walked::Foreign(response) });
            }
            call.url = self.host.location(&call.url, &response, &call.asked)?;
        }
        Err(call.asked.protocol("too many redirects"))
    }

    /// Sends once without authorization, as to a host that the registry named; what such a host says
    /// pauses nobody.
    pub(crate) async fn call_anonymously(&self, call: &Call<'_>) -> Result<Response> {
        let client = self.host.client_for(&call.url, &call.asked)?;
        let request =
            client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        let own = self.host.is_own(&call.url);
        let pass = if own { Some(self.ready().await?) } else { None };
        let sent = tokio::time::timeout(self.host.config.request_timeout, request.send());
        match self.line(call, 1).send(sent).await {
            Ok(Ok(response)) => {
                if let Some(pass) = pass {
                    self.answered(pass, &response);
                }
                Ok(response)
            }
            Ok(Err(error)) => Err(transport::explain(error, &call.asked)),
            Err(_) => Err(call.asked.unavailable("no answer in time")),
        }
    }

    fn line<'a>(&'a self, call: &'a Call<'_>, attempt: u32) -> Line<'a> {
        let repository = self.repository.name();
        Line { host: &self.host, method: &call.method, url: &call.url, repository, attempt }
    }

    fn storage_failure(&self, response: &Response, call: &Call<'_>) -> Failure {
        call.asked.unavailable(&format!(
            "HTTP {} from {}, where {} leads to",
            response.status().as_u16(),
            crate::host::place(&call.url),
            self.host.name
        ))
    }
}

/// Whether the answer is not to be believed. Where that is not known before the deadline, the
/// request is prepared again, and then says that it is too late.
async fn was_a_stranger(call: &Call<'_>, turn: &mut Turn<'_>, response: &Response) -> bool {
    let known = turn.was_a_stranger(response);
    match call.deadline {
        Some(deadline) => timeout_at(deadline, known).await.unwrap_or(true),
        None => known.await,
    }
}

enum Walked {
    Own(Response),
    Foreign(Response),
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
