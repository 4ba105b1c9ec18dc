//! A collector that takes traces and metrics by OTLP over gRPC and shows what it was sent.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{span::SpanKind, status::StatusCode},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::Server, transport::server::TcpIncoming};

use crate::error::{Result, While as _};

type Answer<T> = std::result::Result<T, Status>;

/// A span that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of the span around it, in hexadecimal; empty for the first of a trace.
    pub parent: String,
    /// `Server`, `Client`, `Consumer` or `Internal`.
    pub kind: String,
    /// Whether its status is an error.
    pub failed: bool,
    /// What is said about it, as text.
    pub attributes: BTreeMap<String, String>,
    /// The same of the process that sent it.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// One attribute; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Heard {
    spans: Vec<Span>,
    /// Names of metrics.
    metrics: Vec<String>,
    /// Everything, in one text that can be searched.
    all: String,
}

/// The collector. Dropping it closes its port.
pub struct Collector {
    endpoint: String,
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Starts one on a free loopback port. A request without `header` (its name and its value) is
    /// refused.
    pub async fn start(header: Option<(&'static str, &'static str)>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.doing("listening")?;
        let endpoint = format!("http://{}", listener.local_addr().doing("listening")?);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ear = Ear { header, heard: Arc::clone(&heard) };
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(ear.clone()))
            .add_service(MetricsServiceServer::new(ear))
            .serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async move {
            let _until_dropped = serving.await;
        });
        Ok(Self { endpoint, heard, task })
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The spans of one trace, in the order in which they came.
    pub fn spans(&self, trace: &str) -> Vec<Span> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// The names of all metrics that came.
    pub fn metrics(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).metrics.clone()
    }

    /// Everything that came, to be searched.
    pub fn everything(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }
}

#[derive(Clone)]
struct Ear {
    header: Option<(&'static str, &'static str)>,
    heard: Arc<Mutex<Heard>>,
}

impl Ear {
    fn listen<T: std::fmt::Debug>(&self, request: Request<T>) -> Answer<T> {
        if let Some((name, value)) = self.header {
            let given = request.metadata().get(name).and_then(|given| given.to_str().ok());
            if given != Some(value) {
                return Err(Status::unauthenticated("the header is missing"));
            }
        }
        let message = request.into_inner();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a text does not fail.
        let _infallible = writeln!(heard.all, "{message:?}");
        drop(heard);
        Ok(message)
    }
}

#[tonic::async_trait]
impl TraceService for Ear {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Answer<Response<ExportTraceServiceResponse>> {
        let message = self.listen(request)?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for group in message.resource_spans {
            let resource = group.resource.unwrap_or_default();
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                heard.spans.push(read(span, &resource));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Ear {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Answer<Response<ExportMetricsServiceResponse>> {
        let message = self.listen(request)?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let scopes = message.resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
        heard.metrics.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn read(span: opentelemetry_proto::tonic::trace::v1::Span, resource: &Resource) -> Span {
    let failed = span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    let kind = match span.kind() {
        SpanKind::Server => "Server",
        SpanKind::Client => "Client",
        SpanKind::Consumer => "Consumer",
        SpanKind::Producer => "Producer",
        SpanKind::Internal | SpanKind::Unspecified => "Internal",
    };
    Span {
        trace: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        kind: kind.to_owned(),
        failed,
        attributes: texts(&span.attributes),
        resource: texts(&resource.attributes),
        name: span.name,
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: Option<&AnyValue>| match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}
