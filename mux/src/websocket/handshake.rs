//! The opening handshake (RFC 6455 §4.2) and the two other things a GET may ask this listener: `host-meta` (XEP-0156).
//!
//! In: what has come of a request. Out: its answer: the key for "101 Switching Protocols", or a whole response.
//! Owns: nothing. Never: reads a body; answers anything but GET and HEAD; takes bytes behind a request, where something else might be
//! hidden from whoever stands in front.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Where XMPP is, on every listener.
pub const PATH: &str = "/xmpp-websocket";
/// A request head. Browsers send about 1 KiB; cookies of a host that has much else may be 4.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header fields. A browser behind two proxies has about 30.
const HEADERS_MAX: usize = 64;
/// What the operator says about web clients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Origins beside the host's own whose pages may connect, as browsers write them (`https://chat.example.org`), lower case.
    pub origins: Vec<String>,
    /// Pages from everywhere may.
    pub any_origin: bool,
    /// Addresses for `host-meta`. Empty: it is not there.
    pub host_meta: Vec<String>,
}

/// The value of `Sec-WebSocket-Key`: 16 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key([u8; 24]);

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let is_key = BASE64.decode(text).is_ok_and(|key| key.len() == 16);
        is_key.then(|| text.as_bytes().try_into().ok().map(Self))?
    }

    /// As it was sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What to do about a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is not whole.
    Wait,
    /// It is good: [`switching`], with what the key gives.
    Upgrade(Key),
    /// Send this, then close.
    Http(String),
    /// The same for a page of a site that may not connect: its Origin and the Host it has asked, for the operator.
    Foreign {
        /// The response.
        text: String,
        /// As it came, but not longer than [`SHOWN_CHARS_MAX`].
        origin: String,
        /// Likewise.
        host: String,
    },
}

/// Characters of a header that are shown to the operator: host names end at 255.
pub const SHOWN_CHARS_MAX: usize = 300;

/// What may be wrong with a request for XMPP, each with its response.
struct Refusal {
    status: &'static str,
    more: &'static str,
    text: &'static str,
}

const fn refusal(status: &'static str, text: &'static str) -> Refusal {
    Refusal {
        status,
        more: "",
        text,
    }
}

impl Refusal {
    fn into_answer(self) -> Answer {
        Answer::Http(self.into_text())
    }

    fn into_text(self) -> String {
        let Self { status, more, text } = self;
        response(status, more, "text/plain; charset=utf-8", text)
    }
}

const BAD: &str = "400 Bad Request";

/// Looks at what has come.
pub fn respond(head: &[u8], policy: &Policy) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(n)) if n <= HEAD_BYTES_MAX => {
            let answer = match n == head.len() {
                true => answer(&request, policy),
                // A client waits for the answer (RFC 6455 §4.1); a body has no place here.
                false => Err(refusal(BAD, "nothing may follow the request\n")),
            };
            let answer = answer.unwrap_or_else(Refusal::into_answer);
            match request.method {
                Some("HEAD") => without_body(answer),
                _ => answer,
            }
        }
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => Answer::Wait,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            refusal("431 Request Header Fields Too Large", "too long\n").into_answer()
        }
        Err(_) => refusal(BAD, "no HTTP request\n").into_answer(),
    }
}

fn answer(request: &httparse::Request<'_, '_>, policy: &Policy) -> Result<Answer, Refusal> {
    if !matches!(request.method, Some("GET" | "HEAD")) {
        return Err(Refusal {
            more: "Allow: GET, HEAD\r\n",
            ..refusal("405 Method Not Allowed", "GET and HEAD only\n")
        });
    }
    // A body that we do not read would be taken for the next request by somebody.
    let has_body = only(request, "content-length")?.is_some_and(|length| length != "0")
        || field(request, "transfer-encoding").next().is_some();
    if has_body {
        return Err(refusal(BAD, "a request without body is wanted\n"));
    }
    let host = only(request, "host")?;
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Err(refusal(BAD, "one header Host is wanted\n"));
    };
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    match path {
        // RFC 6455 §4.1: the method is GET.
        PATH if request.method == Some("HEAD") => Err(Refusal {
            more: "Allow: GET\r\n",
            ..refusal("405 Method Not Allowed", "GET only\n")
        }),
        PATH => upgrade(request, host, policy),
        "/.well-known/host-meta" if !policy.host_meta.is_empty() => {
            Ok(Answer::Http(host_meta("application/xrd+xml", &xrd(policy))))
        }
        "/.well-known/host-meta.json" if !policy.host_meta.is_empty() => {
            Ok(Answer::Http(host_meta("application/json", &jrd(policy))))
        }
        _ => Err(refusal("404 Not Found", "XMPP is at /xmpp-websocket\n")),
    }
}

/// RFC 6455 §4.2.1 and RFC 7395 §3.1.
fn upgrade(
    request: &httparse::Request<'_, '_>,
    host: &str,
    policy: &Policy,
) -> Result<Answer, Refusal> {
    const UPGRADE: Refusal = Refusal {
        more: "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        ..refusal(
            "426 Upgrade Required",
            "this is for XMPP clients: WebSocket, version 13, subprotocol xmpp\n",
        )
    };
    let has = |name, token: &str| tokens(request, name).any(|t| t.eq_ignore_ascii_case(token));
    if request.version != Some(1) || !has("connection", "upgrade") || !has("upgrade", "websocket") {
        return Err(UPGRADE);
    }
    if only(request, "sec-websocket-version")? != Some("13") {
        return Err(UPGRADE);
    }
    let key = only(request, "sec-websocket-key")?.and_then(Key::parse);
    let Some(key) = key else {
        return Err(refusal(BAD, "Sec-WebSocket-Key is no key\n"));
    };
    if !tokens(request, "sec-websocket-protocol").any(|t| t == "xmpp") {
        return Err(refusal(
            BAD,
            "the client must ask for the subprotocol xmpp (RFC 7395)\n",
        ));
    }
    // Only browsers send it, and they do always. A request with two is nobody's.
    if let Some(origin) = only(request, "origin")?
        && !allowed(origin, host, policy)
    {
        let shown = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect();
        let text = "pages of this origin may not connect here: the operator names those that may in `websocket.origins`\n";
        return Ok(Answer::Foreign {
            text: refusal("403 Forbidden", text).into_text(),
            origin: shown(origin),
            host: shown(host),
        });
    }
    Ok(Answer::Upgrade(key))
}

/// Pages of the same host may connect, whatever their scheme and port, and those the operator has named.
fn allowed(origin: &str, host: &str, policy: &Policy) -> bool {
    let origin = origin.to_ascii_lowercase();
    if policy.any_origin || policy.origins.contains(&origin) {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else {
        // "null": a file, or a page in a sandbox.
        return false;
    };
    without_port(authority).eq_ignore_ascii_case(without_port(host))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The response to a request that is good.
pub fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    )
}

/// There is no server for the client now.
pub fn no_server() -> String {
    response(
        "503 Service Unavailable",
        "Retry-After: 5\r\n",
        "text/plain; charset=utf-8",
        "there is no server to talk to at the moment\n",
    )
}

/// The request did not come in time.
pub fn too_slow() -> String {
    response(
        "408 Request Timeout",
        "",
        "text/plain; charset=utf-8",
        "the request did not come in time\n",
    )
}

fn response(status: &str, more: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    // `Connection: close` is said once: with "426" it stands beside the upgrade.
    let connection = if more.contains("Connection:") {
        ""
    } else {
        "Connection: close\r\n"
    };
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: {content_type}\r\nContent-Length: {length}\r\n{connection}\
         X-Content-Type-Options: nosniff\r\n\r\n{body}"
    )
}

/// The answer to HEAD: that to GET up to its body (RFC 9110 §9.3.2).
fn without_body(answer: Answer) -> Answer {
    match answer {
        Answer::Http(mut text) => {
            if let Some(end) = text.find("\r\n\r\n") {
                text.truncate(end + 4);
            }
            Answer::Http(text)
        }
        other => other,
    }
}

/// XEP-0156 §3: pages of every origin may read it.
fn host_meta(content_type: &str, body: &str) -> String {
    response(
        "200 OK",
        "Access-Control-Allow-Origin: *\r\n",
        content_type,
        body,
    )
}

const REL: &str = "urn:xmpp:alt-connections:websocket";

fn xrd(policy: &Policy) -> String {
    // The configuration lets only addresses without quotes, `<` and `&` pass, so nothing is to be escaped.
    let links = policy.host_meta.iter();
    let links: String = links
        .map(|url| format!("  <Link rel='{REL}' href='{url}'/>\n"))
        .collect();
    format!(
        "<?xml version='1.0' encoding='utf-8'?>\n<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n{links}</XRD>\n"
    )
}

fn jrd(policy: &Policy) -> String {
    let links = policy.host_meta.iter();
    let links: Vec<String> = links
        .map(|url| format!("{{\"rel\":\"{REL}\",\"href\":\"{url}\"}}"))
        .collect();
    format!("{{\"links\":[{}]}}\n", links.join(","))
}

fn field<'r>(
    request: &'r httparse::Request<'_, '_>,
    name: &'static str,
) -> impl Iterator<Item = &'r [u8]> {
    let fields = request.headers.iter();
    fields
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// A header that may stand there once.
fn only<'r>(
    request: &'r httparse::Request<'_, '_>,
    name: &'static str,
) -> Result<Option<&'r str>, Refusal> {
    let mut all = field(request, name);
    let first = all.next();
    if all.next().is_some() {
        return Err(refusal(BAD, "a header is there twice\n"));
    }
    match first.map(std::str::from_utf8) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value.trim_ascii())),
        Some(Err(_)) => Err(refusal(BAD, "a header is no text\n")),
    }
}

/// The members of a list, which may be spread over several headers.
fn tokens<'r>(
    request: &'r httparse::Request<'_, '_>,
    name: &'static str,
) -> impl Iterator<Item = &'r str> {
    field(request, name)
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim_ascii)
}

#[cfg(test)]
#[path = "handshake/tests.rs"]
mod tests;
