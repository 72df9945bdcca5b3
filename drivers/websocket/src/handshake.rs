//! The server's half of the handshake: one HTTP request, read within limits, and its answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::socket::ByteStream;

/// Bytes of the largest request that is read.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// A request to become a WebSocket.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    peer: Option<SocketAddr>,
    pub(crate) parameters: Vec<(String, String)>,
}

impl UpgradeRequest {
    /// The path, as it was sent.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What stands at a place of the path that the [`Pattern`](crate::Pattern) names, as it was sent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The query behind the path's `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header, if it is there once or more and is text: the first one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of a header `authorization: Bearer TOKEN`.
    pub fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Where it comes from, where that is known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The key of a request that is a WebSocket handshake.
    pub(crate) fn websocket_key(&self) -> Result<String, Refusal> {
        let has = |name: &str, word: &str| {
            let values = self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        if self.method != Method::GET || !has("upgrade", "websocket") || !has("connection", "upgrade") {
            let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket server: connect with ws://");
            return Err(refusal);
        }
        if !has("sec-websocket-version", "13") {
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "only version 13 of the WebSocket protocol is spoken",
            ));
        }
        let key = self.header("sec-websocket-key").filter(|key| !key.is_empty());
        key.map(str::to_owned).ok_or_else(|| bad_request("sec-websocket-key is missing"))
    }
}

/// Why a request does not become a WebSocket: an HTTP status, and a line for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    status: StatusCode,
    reason: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// With a status. Clients try again after 429 and 5xx, and not after other ones.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), retry_after: None }
    }

    /// With 401: who it is was not shown, or not believed.
    pub fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason)
    }

    /// With 403: who it is may not come in.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }

    /// Tells when to come back, in whole seconds.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

fn bad_request(reason: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

/// Reads one request, and what came behind it.
pub(crate) async fn read(
    stream: &mut impl ByteStream,
    peer: Option<SocketAddr>,
) -> io::Result<Result<(UpgradeRequest, Vec<u8>), Refusal>> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !piece[0].is_ascii_uppercase() && bytes.is_empty() {
            // TLS, for instance, whose end would be waited for in vain.
            return Ok(Err(bad_request("this is no HTTP request")));
        }
        // The end may lie across two pieces.
        let from = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&piece[..count]);
        if let Some(end) = bytes[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(from + end + 4);
            return Ok(parse(&bytes, peer).map(|request| (request, rest)));
        }
        if bytes.len() > REQUEST_BYTES_MAX {
            return Ok(Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large")));
        }
    }
}

fn parse(bytes: &[u8], peer: Option<SocketAddr>) -> Result<UpgradeRequest, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut slots);
    let malformed = || bad_request("this is no HTTP request");
    parsed.parse(bytes).map_err(|_| malformed())?;
    let method = parsed.method.and_then(|method| method.parse().ok()).ok_or_else(malformed)?;
    let uri = parsed.path.and_then(|path| path.parse().ok()).ok_or_else(malformed)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| malformed())?);
    }
    Ok(UpgradeRequest { method, uri, headers, peer, parameters: Vec::new() })
}

/// Says that from here on it is a WebSocket.
pub(crate) async fn accept(stream: &mut impl ByteStream, key: &str) -> io::Result<()> {
    let key = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await
}

/// Refuses, closes, and returns what the handshake came to.
pub(crate) async fn refuse(stream: &mut impl ByteStream, refusal: &Refusal) -> io::Error {
    let Refusal { status, reason, retry_after } = refusal;
    let phrase = status.canonical_reason().unwrap_or_default();
    let body: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut head =
        format!("HTTP/1.1 {} {phrase}\r\nConnection: close\r\nContent-Type: text/plain\r\n", status.as_str());
    head.push_str(&format!("Content-Length: {}\r\n", body.len() + 1));
    if let Some(wait) = retry_after {
        head.push_str(&format!("Retry-After: {}\r\n", wait.as_secs()));
    }
    match *status {
        StatusCode::UPGRADE_REQUIRED => head.push_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        StatusCode::UNAUTHORIZED => head.push_str(&format!("{}: Bearer\r\n", header::WWW_AUTHENTICATE)),
        _ => {}
    }
    let answer = format!("{head}\r\n{body}\n");
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        stream.close().await?;
        // Until the client has read it: a socket that is dropped with something unread takes back what it has sent.
        let mut scratch = [0; 512];
        let mut left = REQUEST_BYTES_MAX;
        while left > 0 {
            let count = stream.read(&mut scratch).await?;
            left = if count == 0 { 0 } else { left.saturating_sub(count) };
        }
        Ok(())
    };
    let refused = io::Error::new(io::ErrorKind::PermissionDenied, format!("{status}: {reason}"));
    said.await.err().unwrap_or(refused)
}
