//! `[telemetry]`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use colophon_domain::{Failure, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::transport::Uri;

/// What is exported, and to whom; nothing unless something is named.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetrySection {
    /// The collector: `http://host:4317` or `https://..`. Traces and metrics go there by
    /// OTLP/gRPC.
    pub(crate) otlp_endpoint: Option<String>,
    /// A file with headers for the collector, one `name: value` a line; they may be secret.
    pub(crate) otlp_headers_file: Option<PathBuf>,
    /// The headers may go to a collector on another machine without TLS.
    pub(crate) otlp_plain_http: bool,
    /// A PEM file with the authorities that the collector's certificate is trusted by, in place
    /// of the system's.
    pub(crate) otlp_ca_file: Option<PathBuf>,
    /// How long the collector may take for one answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) otlp_timeout: Duration,
    /// How often metrics are sent to the collector.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) metrics_interval: Duration,
    /// Where `/metrics` is served for Prometheus; not where the API is.
    #[schemars(with = "Option<String>")]
    pub(crate) prometheus_listen: Option<SocketAddr>,
    /// The share of traces that are exported. A caller may say that its own is not sampled, and
    /// nothing else.
    pub(crate) sample_ratio: f64,
    /// The resource attribute `service.name`.
    pub(crate) service_name: String,
    /// Further resource attributes.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers_file: None,
            otlp_plain_http: false,
            otlp_ca_file: None,
            otlp_timeout: Duration::from_secs(5),
            metrics_interval: Duration::from_secs(30),
            prometheus_listen: None,
            sample_ratio: 1.0,
            service_name: "colophon".to_owned(),
            attributes: BTreeMap::new(),
        }
    }
}

impl TelemetrySection {
    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        let must = |holds: bool, key: &str, text: String| {
            let key = format!("telemetry.{key}");
            if holds { Ok(()) } else { Err(Failure::invalid(key.clone(), format!("{key} {text}"))) }
        };
        let ratio = self.sample_ratio;
        let text = format!("is {ratio}; it must be from 0 to 1");
        must((0.0..=1.0).contains(&ratio), "sample_ratio", text)?;
        let timeout = Duration::from_millis(1)..=Duration::from_mins(1);
        let text = "must be from 1ms to 1m".to_owned();
        must(timeout.contains(&self.otlp_timeout), "otlp_timeout", text)?;
        let interval = Duration::from_secs(1)..=Duration::from_hours(1);
        let text = "must be from 1s to 1h".to_owned();
        must(interval.contains(&self.metrics_interval), "metrics_interval", text)?;
        let endpoint = self.otlp_endpoint.as_deref();
        let text = "must be of the form http://host:4317 or https://host:4317".to_owned();
        must(endpoint.is_none_or(|it| super::otlp::endpoint(it).is_some()), "otlp_endpoint", text)?;
        let files =
            [("otlp_headers_file", &self.otlp_headers_file), ("otlp_ca_file", &self.otlp_ca_file)];
        for (key, file) in files {
            let text = "is for a collector; name it in telemetry.otlp_endpoint".to_owned();
            must(endpoint.is_some() || file.is_none(), key, text)?;
        }
        let private = self.otlp_plain_http || endpoint.is_none_or(is_private);
        let text = "may hold secrets, and telemetry.otlp_endpoint would get them over the network \
                    without TLS; use https://, or set telemetry.otlp_plain_http = true";
        must(self.otlp_headers_file.is_none() || private, "otlp_headers_file", text.to_owned())
    }
}

/// What is sent there, nobody on the way reads: it goes by TLS, or does not leave the machine.
fn is_private(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    uri.scheme_str() == Some("https")
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let section: TelemetrySection = toml::from_str(toml).unwrap();
        section.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn nothing_is_exported_by_default() {
        let section: TelemetrySection = toml::from_str("").unwrap();
        assert!(section.otlp_endpoint.is_none() && refused("").is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        assert!(refused("sample_ratio = 1.5").contains("telemetry.sample_ratio"));
        assert!(refused("sample_ratio = nan").contains("telemetry.sample_ratio"));
        assert!(refused("otlp_timeout = \"0s\"").contains("telemetry.otlp_timeout"));
        assert!(refused("otlp_headers_file = \"x\"").contains("telemetry.otlp_endpoint"));
        for endpoint in [
            "collector:4317",
            "https.corp.lan:4317",
            "collector",
            "ftp://a:1",
            "http://localhost@collector:4317",
            "http://",
            "",
        ] {
            let said = refused(&format!("otlp_endpoint = {endpoint:?}"));
            assert!(
                said.contains("telemetry.otlp_endpoint must be of the form"),
                "{endpoint}: {said}"
            );
        }
    }

    #[test]
    fn headers_go_only_where_nobody_on_the_way_reads_them() {
        let with = |endpoint: &str, more: &str| {
            refused(&format!("otlp_endpoint = {endpoint:?}\notlp_headers_file = \"x\"\n{more}"))
        };
        for open in [
            "http://collector:4317",
            "http://10.0.0.7:4317",
            "HTTP://collector:4317",
            "http://localhost.corp.lan:4317",
            "http://127.0.0.1.corp.lan:4317",
        ] {
            let text = with(open, "");
            assert!(text.contains("telemetry.otlp_plain_http"), "{open}: {text}");
            assert_eq!(with(open, "otlp_plain_http = true"), "", "{open}");
            assert_eq!(refused(&format!("otlp_endpoint = {open:?}")), "", "{open}");
        }
        for private in [
            "https://collector:4317",
            "HTTPS://collector:4317",
            "http://127.0.0.1:4317",
            "http://[::1]:4317",
            "http://localhost:4317",
        ] {
            assert_eq!(with(private, ""), "", "{private}");
        }
    }
}
