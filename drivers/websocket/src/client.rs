//! The client: connects to `ws://` and `wss://` addresses.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use antiphon_node::{ConnectError, Connector};
use async_io::Timer;
use async_tungstenite::client_async_with_config;
use async_tungstenite::tungstenite;
use async_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use futures_lite::future::or;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{self, ClientConfig};

use crate::roots::Roots;
use crate::socket::{Socket, SocketConfig};
use crate::stream::{Stream, Tcp};

/// Connects to one address. Hand it to [`Node::connect`](antiphon_node::Node::connect).
#[derive(Clone)]
pub struct Client {
    address: Address,
    headers: Vec<(HeaderName, HeaderValue)>,
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
    config: SocketConfig,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("uri", &self.address.uri).finish_non_exhaustive()
    }
}

/// Where to connect to.
#[derive(Clone, Debug)]
struct Address {
    uri: Uri,
    host: String,
    port: u16,
    secure: bool,
}

/// Why something given to a [`Client`] can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadAddress(String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadAddress {}

impl Address {
    fn parse(url: &str) -> Result<Self, BadAddress> {
        let bad = |what: &str| BadAddress(format!("{url:?} {what}: write ws://HOST:PORT/PATH, or wss:// with TLS"));
        let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(bad("does not begin with ws:// or wss://")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| bad("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("has a user or password, which can't be used here"));
        }
        // A port that is no number, or too large a one, is none to `http`: it must not become the default one.
        let without_port = authority.as_str() == authority.host();
        if !without_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("has no port that one can connect to"));
        }
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        // Without a path, the query alone would be asked for.
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let uri = Uri::builder().scheme(if secure { "wss" } else { "ws" }).authority(authority.as_str());
        let uri = uri.path_and_query(target).build().map_err(|_| bad("is not a URL"))?;
        Ok(Self { host, port, secure, uri })
    }
}

impl Client {
    /// A client for an address like `ws://127.0.0.1:8048/` or `wss://example.com/sync`.
    ///
    /// # Errors
    /// If it is not such an address.
    pub fn new(url: &str) -> Result<Self, BadAddress> {
        let address = Address::parse(url)?;
        let (headers, tls, connect_timeout) = (Vec::new(), None, Duration::from_secs(10));
        Ok(Self { address, headers, tls, connect_timeout, config: SocketConfig::default() })
    }

    /// Who is trusted to say that a `wss://` server is who it says. Default: whom the system trusts.
    #[must_use]
    pub fn roots(mut self, roots: &Roots) -> Self {
        self.tls = Some(roots.connector());
        self
    }

    /// Sends a header with the request, for instance `authorization: Bearer TOKEN`.
    ///
    /// # Errors
    /// If the name or the value has characters that a header can't have.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(format!("{name:?} can't be sent as a header with this value"));
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        self.headers.push((name.parse().map_err(|_| bad())?, value));
        Ok(self)
    }

    /// How long connecting may take, all in all. Default 10 s.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// How much memory the connection takes.
    #[must_use]
    pub fn config(self, config: SocketConfig) -> Self {
        Self { config, ..self }
    }

    async fn dial(&self, frame_max: u32) -> Result<Socket<Stream>, ConnectError> {
        let Address { host, port, secure, uri } = &self.address;
        let tcp = self.tcp().await?;
        let stream = if *secure {
            let tls = match &self.tls {
                Some(tls) => tls.clone(),
                None => Roots::system().map_err(|error| ConnectError::never(error.to_string()))?.connector(),
            };
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|_| ConnectError::never(format!("{host:?} can't be the name in a certificate")))?;
            let tls = tls.connect(name, tcp).await.map_err(|error| tls_failed(host, *port, &error))?;
            Stream::Tls(Box::new(tls))
        } else {
            Stream::Plain(tcp)
        };
        let mut request = Request::get(uri)
            .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, tungstenite::handshake::client::generate_key());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(()).map_err(|error| ConnectError::never(error.to_string()))?;
        match client_async_with_config(request, stream, Some(self.config.protocol(frame_max))).await {
            Ok((stream, _)) => Ok(Socket::new(stream)),
            Err(tungstenite::Error::Http(response)) => Err(refused(uri, &response)),
            Err(tungstenite::Error::Io(error)) => Err(broken_off(host, *port, &error.to_string())),
            Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::HandshakeIncomplete)) => {
                Err(broken_off(host, *port, "it closed the connection"))
            }
            Err(error) => Err(ConnectError::never(format!(
                "what listens at {host}:{port} is no WebSocket server ({error}): check host, port and path"
            ))),
        }
    }

    async fn tcp(&self) -> Result<Tcp, ConnectError> {
        let Address { host, port, .. } = &self.address;
        let unknown = |error| ConnectError::later(format!("can't find the host {host:?}: {error}"));
        let addresses = async_net::resolve((host.as_str(), *port)).await.map_err(unknown)?;
        let mut failure = None;
        for address in addresses {
            match Tcp::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(error),
            }
        }
        Err(ConnectError::later(match failure {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                format!("nothing listens at {host}:{port}: is the server running, and is this its port?")
            }
            Some(error) => format!("can't connect to {host}:{port}: {error}"),
            None => format!("the host {host:?} has no address"),
        }))
    }
}

impl Connector for Client {
    type Transport = Socket<Stream>;

    async fn connect(&mut self, frame_max: u32) -> Result<Self::Transport, ConnectError> {
        let late = async {
            Timer::after(self.connect_timeout).await;
            let Address { host, port, .. } = &self.address;
            let seconds = self.connect_timeout.as_secs_f32();
            Err(ConnectError::later(format!("{host}:{port} did not answer within {seconds} s")))
        };
        or(self.dial(frame_max), late).await
    }
}

fn broken_off(host: &str, port: u16, what: &str) -> ConnectError {
    ConnectError::later(format!("{host}:{port} broke off before the WebSocket was there: {what}"))
}

fn tls_failed(host: &str, port: u16, error: &io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => ConnectError::never(format!(
            "the certificate of {host}:{port} is not accepted ({why:?}): check the host's name, or trust the root that issued it"
        )),
        Some(rustls::Error::InvalidMessage(_)) => {
            ConnectError::never(format!("what listens at {host}:{port} does not speak TLS: use ws://, or another port"))
        }
        Some(tls) => ConnectError::never(format!("no TLS with {host}:{port}: {tls}")),
        None => broken_off(host, port, &error.to_string()),
    }
}

/// The server answered with a status other than that of an upgrade.
fn refused(uri: &Uri, response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(512)]);
    let said = body.lines().next().map(str::trim).filter(|line| !line.is_empty());
    let said = said.map_or_else(String::new, |line| format!(": {line}"));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ConnectError::never(format!("the server refused authentication ({status}){said}"))
        }
        StatusCode::NOT_FOUND => {
            ConnectError::never(format!("the server has no documents at the path {} ({status}){said}", uri.path()))
        }
        StatusCode::TOO_MANY_REQUESTS => later(response, format!("the server is too busy ({status}){said}")),
        _ if status.is_server_error() => later(response, format!("the server can't take us now ({status}){said}")),
        _ => ConnectError::never(format!("the server at {uri} answered with {status} instead of a WebSocket{said}")),
    }
}

fn later(response: &Response<Option<Vec<u8>>>, reason: String) -> ConnectError {
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let error = ConnectError::later(reason);
    seconds.into_iter().fold(error, |error, seconds| error.after(Duration::from_secs(seconds)))
}

pub(crate) fn connector(roots: rustls::RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
