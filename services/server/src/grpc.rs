//! The gRPC face: each method takes the caller from the request, calls the function that REST
//! calls too, and writes failures as `google.rpc` details.

mod uploads;

use std::{future::Future, sync::Arc, time::Duration};

use colophon_api::v1::{
    self, freeze_service_server::FreezeService, release_service_server::ReleaseService,
    tag_service_server::TagService,
};
use colophon_domain::{Principal, Result};
use futures_util::{StreamExt as _, stream::BoxStream};
use http::Extensions;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{calls::Calls, guard, health::Stopping, observe::RequestId, status};

/// The services of the contract.
#[derive(Clone)]
pub(crate) struct Grpc {
    calls: Arc<Calls>,
    call_timeout: Duration,
}

impl Grpc {
    pub(crate) fn new(calls: Arc<Calls>, call_timeout: Duration) -> Self {
        Self { calls, call_timeout }
    }

    /// Runs one unary method: identity in, deadline around it, failure out.
    async fn answer<Q, A, F>(
        &self,
        request: Request<Q>,
        call: impl FnOnce(Arc<Calls>, Arc<Principal>, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A>>,
    {
        let (metadata, extensions, message) = request.into_parts();
        let (caller, id) = known(&extensions)?;
        let limit = self.call_timeout.min(asked_timeout(&metadata).unwrap_or(Duration::MAX));
        let answered = tokio::time::timeout(limit, call(self.calls.clone(), caller, message)).await;
        match answered.unwrap_or_else(|_| Err(guard::too_slow(limit))) {
            Ok(answer) => Ok(Response::new(answer)),
            Err(failure) => Err(status::refused(&failure, &id)),
        }
    }
}

/// Who calls, and what the call is called.
fn known(extensions: &Extensions) -> Result<(Arc<Principal>, RequestId), Status> {
    let id = extensions.get::<RequestId>().cloned().unwrap_or_default();
    match extensions.get::<Arc<Principal>>().cloned() {
        Some(caller) => Ok((caller, id)),
        None => Err(status::refused(&guard::nobody(), &id)),
    }
}

/// What the caller allows (`grpc-timeout`: up to eight digits and a unit); `None` where nothing,
/// or nothing readable, is said.
fn asked_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(number)),
        "M" => Some(Duration::from_mins(number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[tonic::async_trait]
impl ReleaseService for Grpc {
    async fn create_release(
        &self,
        request: Request<v1::CreateReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.create_release(&caller, message).await
        })
        .await
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        let stopping = Stopping::of(request.extensions());
        self.answer(request, |calls, caller, message| async move {
            calls.get_release(&caller, message, stopping).await
        })
        .await
    }

    type WatchReleaseStream = BoxStream<'static, Result<v1::Release, Status>>;

    async fn watch_release(
        &self,
        request: Request<v1::WatchReleaseRequest>,
    ) -> Result<Response<Self::WatchReleaseStream>, Status> {
        let stopping = Stopping::of(request.extensions());
        let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
        let watched = self.answer(request, |calls, caller, message| async move {
            calls.watch_release(&caller, message, stopping).await
        });
        Ok(watched.await?.map(|watched| {
            let refused = move |failure| status::refused(&failure, &id);
            watched.states.map(move |state| state.map_err(&refused)).boxed()
        }))
    }

    async fn list_releases(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<v1::ListReleasesResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.list_releases(&caller, message).await
        })
        .await
    }

    async fn cancel_release(
        &self,
        request: Request<v1::CancelReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.cancel_release(&caller, message).await
        })
        .await
    }

    async fn retry_release(
        &self,
        request: Request<v1::RetryReleaseRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.retry_release(&caller, message).await
        })
        .await
    }

    async fn plan_release(
        &self,
        request: Request<v1::CreateReleaseRequest>,
    ) -> Result<Response<v1::Plan>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.plan_release(&caller, message).await
        })
        .await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::Release>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.rollback(&caller, message).await
        })
        .await
    }
}

#[tonic::async_trait]
impl TagService for Grpc {
    async fn get_tag(
        &self,
        request: Request<v1::GetTagRequest>,
    ) -> Result<Response<v1::Tag>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.get_tag(&caller, message).await
        })
        .await
    }

    async fn list_tag_moves(
        &self,
        request: Request<v1::ListTagMovesRequest>,
    ) -> Result<Response<v1::ListTagMovesResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.list_tag_moves(&caller, message).await
        })
        .await
    }

    async fn settle_tag(
        &self,
        request: Request<v1::SettleTagRequest>,
    ) -> Result<Response<v1::Tag>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.settle_tag(&caller, message).await
        })
        .await
    }
}

#[tonic::async_trait]
impl FreezeService for Grpc {
    async fn create_freeze(
        &self,
        request: Request<v1::CreateFreezeRequest>,
    ) -> Result<Response<v1::Freeze>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.create_freeze(&caller, message).await
        })
        .await
    }

    async fn list_freezes(
        &self,
        request: Request<v1::ListFreezesRequest>,
    ) -> Result<Response<v1::ListFreezesResponse>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.list_freezes(&caller, message).await
        })
        .await
    }

    async fn lift_freeze(
        &self,
        request: Request<v1::LiftFreezeRequest>,
    ) -> Result<Response<v1::Freeze>, Status> {
        self.answer(request, |calls, caller, message| async move {
            calls.lift_freeze(&caller, message).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let asked = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            asked_timeout(&metadata)
        };
        assert_eq!(asked("2S"), Some(Duration::from_secs(2)));
        assert_eq!(asked("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(asked("5m"), Some(Duration::from_millis(5)));
        for text in ["S", "", "2", "+2S", "123456789S", "2d"] {
            assert_eq!(asked(text), None, "{text}");
        }
        assert_eq!(asked_timeout(&MetadataMap::new()), None);
    }
}
