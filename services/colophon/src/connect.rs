//! The connection: where the server is, what is trusted, and the token that says who is calling.
//! The token comes from the environment or a file, because arguments can be read by every
//! process of the machine, and goes over plain HTTP only to this machine unless told otherwise.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use colophon_api::v1::{
    freeze_service_client::FreezeServiceClient, release_service_client::ReleaseServiceClient,
    tag_service_client::TagServiceClient, upload_service_client::UploadServiceClient,
};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri},
};

use crate::{args::Connection, exit::Problem};

const TOKEN_VARIABLE: &str = "COLOPHON_TOKEN";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A page of 200 releases with many tags each stays below this.
const MESSAGE_LIMIT_BYTES: usize = 64 * 1024 * 1024;

type Transport = InterceptedService<Channel, Bearer>;

/// The services of one server. Connecting is left to the first call, and is tried again by
/// every later one, so that a server that restarts is found again.
#[derive(Clone)]
pub struct Client {
    /// Publishes.
    pub releases: ReleaseServiceClient<Transport>,
    /// Answers from the ledger.
    pub tags: TagServiceClient<Transport>,
    /// Stops all moves for a time.
    pub freezes: FreezeServiceClient<Transport>,
    /// Takes content.
    pub uploads: UploadServiceClient<Transport>,
}

impl Client {
    /// Reads what the command line names; touches files, not the network.
    pub fn new(connection: &Connection) -> Result<Self, Problem> {
        let server = connection.server.as_deref().filter(|server| !server.is_empty());
        let server = server.ok_or_else(|| {
            Problem::usage("no server is given").remedy("use --server URL or COLOPHON_SERVER")
        })?;
        let uri = server_uri(server, connection.insecure_http)?;
        let ca = connection.ca_file.as_deref().map(read_ca).transpose()?;
        let channel = endpoint(uri, ca)?.connect_lazy();
        let token = token(connection.token_file.as_deref())?;
        let bearer = Bearer { header: token.as_ref().map(header).transpose()? };
        Ok(Self {
            releases: ReleaseServiceClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES),
            tags: TagServiceClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES),
            freezes: FreezeServiceClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES),
            uploads: UploadServiceClient::with_interceptor(channel, bearer),
        })
    }
}

/// Adds the token to every call; without one the server decides what a stranger may do.
#[derive(Clone)]
pub struct Bearer {
    header: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

fn server_uri(server: &str, insecure_http: bool) -> Result<Uri, Problem> {
    // The text is not repeated in the error: a URL may hold a password.
    let malformed = || {
        Problem::usage("the server's address is not of the form https://host[:port]")
            .remedy("give scheme, host and port only, for example https://colophon.example.com")
    };
    let uri: Uri = server.trim_end_matches('/').parse().map_err(|_| malformed())?;
    let authority = uri.authority().ok_or_else(malformed)?;
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    if !bare || authority.as_str().contains('@') {
        return Err(malformed());
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if insecure_http || is_loopback(authority.host()) => Ok(uri),
        Some("http") => Err(Problem::usage(format!(
            "plain HTTP to {} would send the token in clear",
            authority.host()
        ))
        .remedy("use https://, or --insecure-http if everyone on the way may read the token")),
        _ => Err(malformed()),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_ca(path: &Path) -> Result<Certificate, Problem> {
    let pem = fs::read(path).map_err(|error| unreadable("the CA file", path, &error))?;
    Ok(Certificate::from_pem(pem))
}

fn endpoint(uri: Uri, ca: Option<Certificate>) -> Result<Endpoint, Problem> {
    let https = uri.scheme_str() == Some("https");
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_LIMIT)
        // A server that has gone without a word is noticed although the connection stays open.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .user_agent(concat!("colophon/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Problem::usage(error.to_string()))?;
    if !https {
        return Ok(endpoint);
    }
    let system = endpoint.clone().tls_config(roots(true, ca.clone()));
    // A machine without any trusted certificates is no obstacle where a CA is named.
    let configured = match (system, ca) {
        (Err(_), Some(ca)) => endpoint.tls_config(roots(false, Some(ca))),
        (configured, _) => configured,
    };
    configured.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Problem::usage(format!("no certificates to trust: {error}: {cause}"))
            .remedy("install ca-certificates, or give a PEM file with --ca-file")
    })
}

fn roots(system: bool, ca: Option<Certificate>) -> ClientTlsConfig {
    let config = ClientTlsConfig::new();
    let config = if system { config.with_native_roots() } else { config };
    match ca {
        Some(ca) => config.ca_certificate(ca),
        None => config,
    }
}

fn token(file: Option<&Path>) -> Result<Option<SecretString>, Problem> {
    let text = match file {
        Some(path) => SecretString::from(
            fs::read_to_string(path).map_err(|error| unreadable("the token file", path, &error))?,
        ),
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(text) => SecretString::from(text),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => return Err(unfit_token()),
        },
    };
    let trimmed = SecretString::from(text.expose_secret().trim());
    match (trimmed.expose_secret().is_empty(), file) {
        (false, _) => Ok(Some(trimmed)),
        // An empty variable is how many pipelines say "not set"; an empty file is a mistake.
        (true, None) => Ok(None),
        (true, Some(path)) => {
            Err(Problem::usage(format!("the token file {} is empty", path.display())))
        }
    }
}

fn header(token: &SecretString) -> Result<MetadataValue<Ascii>, Problem> {
    let visible = token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
    let text = SecretString::from(format!("Bearer {}", token.expose_secret()));
    let value = text.expose_secret().parse::<MetadataValue<Ascii>>();
    let mut value = value.ok().filter(|_| visible).ok_or_else(unfit_token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn unfit_token() -> Problem {
    Problem::usage("the token has characters that no token has")
        .remedy("check for line breaks and spaces within it; only visible ASCII is possible")
}

fn unreadable(what: &str, path: &Path, error: &std::io::Error) -> Problem {
    Problem::usage(format!("{what} {} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn plain_http_goes_only_to_this_machine_or_where_it_was_asked_for() {
        for url in ["http://localhost:1", "http://127.0.0.1:1/", "http://[::1]:1", "https://a.b"] {
            assert!(server_uri(url, false).is_ok(), "{url}");
        }
        for url in ["http://a.b:1", "http://10.0.0.1", "http://127.0.0.1.a.b", "http://localhost.b"]
        {
            let problem = server_uri(url, false).unwrap_err();
            assert_eq!(problem.exit, Exit::Usage, "{url}");
            assert!(problem.message.contains("in clear"), "{url}");
            assert!(server_uri(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_without_being_repeated() {
        for url in [
            "colophon",
            "a.b:8080",
            "ftp://a.b",
            "https://",
            "https://me:hush@a.b",
            "https://a.b/v1",
            "https://a.b?x=1",
        ] {
            let problem = server_uri(url, true).unwrap_err();
            assert!(!problem.render(false).contains("hush"), "{url}");
        }
    }

    #[test]
    fn tokens_are_trimmed_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, " hush-hush \n").unwrap();
        let read = token(Some(&path)).unwrap().unwrap();
        assert_eq!(read.expose_secret(), "hush-hush");
        assert!(!format!("{:?}", header(&read).unwrap()).contains("hush"));
        let problem = header(&SecretString::from("hush\nhush")).unwrap_err();
        assert!(!problem.render(false).contains("hush"));
        fs::write(&path, "\n").unwrap();
        assert!(token(Some(&path)).unwrap_err().message.contains("empty"));
        assert!(token(Some(&folder.path().join("none"))).is_err());
    }
}
