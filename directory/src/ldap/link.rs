//! One connection to one server: made, protected, bound, asked.
//!
//! In: what to ask. Out: entries, results, or a [`Fault`].
//! Owns: a socket. Never: waits without a limit; follows a referral; goes on after an answer that makes no sense.

use super::config::{HostConfig, LdapConfig, Tls};
use super::entry::Entry;
use crate::dial::{self, Resolver, Unreached};
use crate::tls::client_config;
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{LdapConn, LdapConnSettings, LdapError, LdapResult, Scope, SearchOptions, StdStream};
use rustls::{CertificateError, ClientConfig};
use std::error::Error as _;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection that has not been used for so long is made anew: a firewall between may have forgotten it without a word.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Operations of one connection. The library keeps four bytes of every search until the connection ends.
const OPERATIONS_MAX: u32 = 10_000;

/// Result codes of RFC 4511 appendix A.
pub(super) mod code {
    pub const SUCCESS: u32 = 0;
    pub const OPERATIONS_ERROR: u32 = 1;
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub const STRONGER_AUTH_REQUIRED: u32 = 8;
    pub const REFERRAL: u32 = 10;
    pub const CONFIDENTIALITY_REQUIRED: u32 = 13;
    pub const CONSTRAINT_VIOLATION: u32 = 19;
    pub const NO_SUCH_OBJECT: u32 = 32;
    pub const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub const INVALID_CREDENTIALS: u32 = 49;
    pub const BUSY: u32 = 51;
    pub const UNAVAILABLE: u32 = 52;
    pub const UNWILLING_TO_PERFORM: u32 = 53;
    pub const ENTRY_ALREADY_EXISTS: u32 = 68;
    pub const OTHER: u32 = 80;
}

/// Why something has not been answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The connection is of no use any more.
    Broken {
        why: String,
        /// It was silent, not gone.
        late: bool,
    },
    /// The server has said no.
    Refused { code: u32, why: String },
}

impl Fault {
    fn broken(why: impl Into<String>) -> Fault {
        Fault::Broken {
            why: why.into(),
            late: false,
        }
    }

    fn late(patience: Duration) -> Fault {
        Fault::Broken {
            why: format!("no answer within {} s", patience.as_secs_f32()),
            late: true,
        }
    }

    /// What the server has done, in words: silence is not a refusal.
    pub(super) fn stated(&self) -> String {
        match self {
            Fault::Broken { why, .. } => format!("did not answer: {why}"),
            Fault::Refused { why, .. } => format!("refused: {why}"),
        }
    }

    /// Whether another server may do better.
    pub(super) fn is_of_the_server(&self) -> bool {
        match self {
            Fault::Broken { .. } => true,
            Fault::Refused { code, .. } => matches!(
                *code,
                code::OPERATIONS_ERROR
                    | code::STRONGER_AUTH_REQUIRED
                    | code::REFERRAL
                    | code::CONFIDENTIALITY_REQUIRED
                    | code::NO_SUCH_OBJECT
                    | code::INVALID_CREDENTIALS
                    | code::BUSY
                    | code::UNAVAILABLE
                    | code::OTHER
            ),
        }
    }
}

/// What a result means for an administrator.
pub(super) fn refused(doing: &str, result: &LdapResult) -> Fault {
    let said = if result.text.is_empty() {
        format!("result code {}", result.rc)
    } else {
        format!("result code {}, {:?}", result.rc, result.text)
    };
    let hint = match result.rc {
        code::REFERRAL => {
            ": it refers to another server, and referrals are not followed; name that server in `uri`"
        }
        code::NO_SUCH_OBJECT => ": there is no such entry (or it may not be read)",
        code::CONFIDENTIALITY_REQUIRED | code::STRONGER_AUTH_REQUIRED => {
            ": it wants a protected connection; see `tls`"
        }
        code::INVALID_CREDENTIALS => {
            ": wrong name or password; see `bind_dn` and `bind_password_file`"
        }
        code::SIZE_LIMIT_EXCEEDED => {
            ": more entries than the server gives; raise its limit for the service account"
        }
        _ => "",
    };
    Fault::Refused {
        code: result.rc,
        why: format!("{doing}: {said}{hint}"),
    }
}

/// A server that does not do StartTLS.
fn no_start_tls(result: &LdapResult) -> Fault {
    match refused("StartTLS", result) {
        Fault::Refused { code, why } => Fault::Refused {
            code,
            why: format!(
                "{why}: if it has no StartTLS, name it as ldaps:// in `uri`; tls = \"none\" shows every password to whoever sees the network"
            ),
        },
        broken @ Fault::Broken { .. } => broken,
    }
}

/// A search.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub base: String,
    pub scope: Scope,
    pub filter: String,
    pub attributes: Vec<String>,
}

/// What a search has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub entries: Vec<Entry>,
    /// The server has more than were asked for.
    pub more: bool,
    /// It says that other servers have some.
    pub referrals: usize,
}

/// Makes connections.
pub(super) struct Dialer {
    hosts: Vec<HostConfig>,
    tls: Option<Arc<ClientConfig>>,
    service: Option<(String, String)>,
    connect_timeout: Duration,
    operation_timeout: Duration,
    resolver: Resolver,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer({:?})", self.hosts)
    }
}

impl Dialer {
    /// # Errors
    /// The CA's certificates are of no use.
    pub(super) fn new(config: &LdapConfig) -> Result<Self, String> {
        let tls = config.hosts.iter().any(|h| h.tls != Tls::None);
        Ok(Dialer {
            hosts: config.hosts.clone(),
            tls: if tls {
                Some(client_config(config.ca.as_deref())?)
            } else {
                None
            },
            service: config
                .bind_dn
                .clone()
                .map(|dn| (dn, config.bind_password.0.clone())),
            connect_timeout: config.connect_timeout,
            operation_timeout: config.operation_timeout,
            resolver: Resolver::default(),
        })
    }

    /// A new connection, bound as the service account if `service`.
    pub(super) fn dial(&self, host: usize, service: bool) -> Result<Link, Fault> {
        let began = Instant::now();
        let to = &self.hosts[host];
        let socket = self.connect(host, began)?;
        let copy = socket
            .try_clone()
            .map_err(|e| Fault::broken(e.to_string()))?;
        let left = self.left(began)?;
        let mut settings = LdapConnSettings::new()
            .set_conn_timeout(left)
            .set_std_stream(StdStream::Tcp(socket))
            .set_starttls(to.tls == Tls::StartTls);
        if let Some(tls) = &self.tls {
            settings = settings.set_config(tls.clone());
        }
        let conn = guarded(|| {
            LdapConn::with_settings(settings, &to.to_string()).map_err(|e| match e {
                // The library waits on for an answer to StartTLS when the other end has hung up.
                LdapError::Timeout { .. } if matches!(copy.peek(&mut [0]), Ok(0)) => Fault::broken(
                    "the server has closed the connection before TLS; does it want ldaps:// there?",
                ),
                LdapError::Timeout { .. } => Fault::late(self.connect_timeout),
                LdapError::LdapResult { result } => no_start_tls(&result),
                other => Fault::broken(words(&other, to)),
            })
        })?;
        let mut link = Link {
            conn,
            socket: copy,
            host,
            used: Instant::now(),
            operations: 0,
            timeout: self.operation_timeout,
        };
        if service && let Some((dn, password)) = &self.service {
            let result = link.bind(dn, password)?;
            if result.rc != code::SUCCESS {
                return Err(refused(&format!("logging in as {dn}"), &result));
            }
        }
        Ok(link)
    }

    fn left(&self, began: Instant) -> Result<Duration, Fault> {
        self.connect_timeout
            .checked_sub(began.elapsed())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| Fault::late(self.connect_timeout))
    }

    fn connect(&self, host: usize, began: Instant) -> Result<TcpStream, Fault> {
        let HostConfig {
            host: name, port, ..
        } = &self.hosts[host];
        let patience = self.connect_timeout / 2;
        let addresses = self.resolver.addresses(name, *port, patience);
        let addresses = addresses.map_err(Fault::broken)?;
        let deadline = began + self.connect_timeout;
        dial::connect(&addresses, deadline, 0).map_err(|unreached| match unreached {
            Unreached::Late => Fault::late(self.connect_timeout),
            // Where the host is given as an address, it is named already.
            Unreached::Because(why) => Fault::broken(
                why.strip_prefix(&format!("{}: ", host_and_port(name, *port)))
                    .unwrap_or(&why),
            ),
        })
    }
}

fn host_and_port(name: &str, port: u16) -> String {
    match name.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{name}:{port}"),
    }
}

/// Says an error of the library so that an administrator knows what to do.
fn words(error: &LdapError, to: &HostConfig) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref());
        let tls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| cause.downcast_ref::<rustls::Error>());
        if let Some(tls) = tls {
            return tls_words(tls, to);
        }
        source = cause.source();
    }
    match error {
        LdapError::ResultRecv { .. } | LdapError::EndOfStream | LdapError::OpSend { .. } => {
            "the server has closed the connection".to_owned()
        }
        LdapError::Io { source, .. } if source.kind() == ErrorKind::UnexpectedEof => {
            format!(
                "the server has closed the connection in the TLS handshake{}",
                plain_port(to)
            )
        }
        LdapError::Io { source, .. } => source.to_string(),
        LdapError::DNSName { .. } => format!("{} is no name a certificate can be for", to.host),
        other => other.to_string(),
    }
}

/// Whoever speaks TLS to a port without it hears nonsense, or nothing.
fn plain_port(to: &HostConfig) -> &'static str {
    match to.tls {
        Tls::Direct => "; does it want ldap:// there (usually port 389; ldaps:// is 636)?",
        Tls::StartTls | Tls::None => "",
    }
}

fn tls_words(error: &rustls::Error, to: &HostConfig) -> String {
    use CertificateError as C;
    let host = &to.host;
    let why = match error {
        rustls::Error::InvalidCertificate(why) => why,
        rustls::Error::InvalidMessage(_) => return format!("TLS: {error}{}", plain_port(to)),
        _ => return format!("TLS: {error}"),
    };
    match why {
        C::UnknownIssuer => {
            "its certificate is signed by nobody we trust: `ca` must name the certificate of the CA that signed it".to_owned()
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!("its certificate is not for {host}: `uri` must name it as the certificate does")
        }
        C::Expired | C::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "its certificate is not valid yet, or the clock here is slow".to_owned(),
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// The library panics where an answer does not have the form of the protocol. That is the server's fault, and ends the connection.
fn guarded<T>(ask: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(ask))
        .unwrap_or_else(|_| Err(Fault::broken("its answer is not LDAP")))
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    conn: LdapConn,
    /// The same socket, to see whether the other end has hung up.
    socket: TcpStream,
    pub host: usize,
    used: Instant,
    operations: u32,
    timeout: Duration,
}

impl Link {
    /// Whether it may serve again. A server that has ended it has said so by now: what can be read while nothing was asked is a
    /// notice of disconnection, or the end.
    pub(super) fn is_good(&self) -> bool {
        if self.used.elapsed() > IDLE_MAX || self.operations >= OPERATIONS_MAX {
            return false;
        }
        // The library has made it non-blocking.
        matches!(self.socket.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    fn begin(&mut self, timeout: Duration) -> &mut LdapConn {
        self.used = Instant::now();
        self.operations += 1;
        self.conn.with_timeout(timeout)
    }

    fn fault(&self, error: &LdapError, timeout: Duration) -> Fault {
        match error {
            LdapError::Timeout { .. } => Fault::late(timeout),
            LdapError::FilterParsing => Fault::Refused {
                code: code::OTHER,
                why: "a search filter that cannot be encoded".to_owned(),
            },
            LdapError::ResultRecv { .. } | LdapError::EndOfStream | LdapError::OpSend { .. } => {
                Fault::broken("the server has closed the connection")
            }
            other => Fault::broken(other.to_string()),
        }
    }

    /// Binds. An empty password would make it anonymous (RFC 4513 §5.1.2), and an empty name too (§5.1.1): neither gets here.
    pub(super) fn bind(&mut self, dn: &str, password: &str) -> Result<LdapResult, Fault> {
        if dn.is_empty() || password.is_empty() {
            return Err(Fault::Refused {
                code: code::INAPPROPRIATE_AUTHENTICATION,
                why: "a bind without a name or a password is not asked for".to_owned(),
            });
        }
        let timeout = self.timeout;
        let answer = guarded(|| Ok(self.begin(timeout).simple_bind(dn, password)))?;
        answer.map_err(|e| self.fault(&e, timeout))
    }

    /// Searches. With `limit`, at most so many entries, and `more` if there are others.
    pub(super) fn search(&mut self, query: &Query, limit: Option<u32>) -> Result<Found, Fault> {
        let until = Instant::now() + self.timeout;
        self.run(query, limit, None, until)
    }

    /// Searches page by page.
    pub(super) fn search_all(
        &mut self,
        query: &Query,
        page: u32,
        until: Instant,
    ) -> Result<Found, Fault> {
        self.run(query, None, Some(page), until)
    }

    fn run(
        &mut self,
        query: &Query,
        limit: Option<u32>,
        page: Option<u32>,
        until: Instant,
    ) -> Result<Found, Fault> {
        guarded(|| self.run_unguarded(query, limit, page, until))
    }

    fn run_unguarded(
        &mut self,
        query: &Query,
        limit: Option<u32>,
        page: Option<u32>,
        until: Instant,
    ) -> Result<Found, Fault> {
        let timeout = self.timeout;
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let options = SearchOptions::new()
            .sizelimit(limit.map_or(0, number))
            .timelimit(
                i32::try_from(timeout.as_secs())
                    .unwrap_or(i32::MAX)
                    .saturating_add(1),
            );
        let mut adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> =
            vec![Box::new(EntriesOnly::new())];
        if let Some(page) = page {
            adapters.push(Box::new(PagedResults::new(number(page))));
        }
        let conn = self.begin(timeout).with_search_options(options);
        let started = conn.streaming_search_with(
            adapters,
            &query.base,
            query.scope,
            &query.filter,
            query.attributes.clone(),
        );
        let mut stream = match started {
            Ok(stream) => stream,
            Err(e) => return Err(self.fault(&e, timeout)),
        };
        let mut found = Found::default();
        loop {
            match stream.next() {
                Ok(Some(entry)) => match Entry::read(entry) {
                    Some(entry) => found.entries.push(entry),
                    None => return Err(Fault::broken("its answer is not LDAP")),
                },
                Ok(None) => break,
                Err(e) => {
                    drop(stream);
                    return Err(self.fault(&e, timeout));
                }
            }
            if Instant::now() >= until {
                return Err(Fault::Broken {
                    why: format!("a search under {:?} takes too long", query.base),
                    late: true,
                });
            }
        }
        let result = stream.result();
        found.referrals = result.refs.len();
        match result.rc {
            code::SUCCESS => Ok(found),
            code::SIZE_LIMIT_EXCEEDED if limit.is_some() => {
                found.more = true;
                Ok(found)
            }
            _ => Err(refused(
                &format!("searching under {:?}", query.base),
                &result,
            )),
        }
    }

    /// Any other operation.
    pub(super) fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut LdapConn) -> ldap3::result::Result<T>,
    ) -> Result<T, Fault> {
        let timeout = self.timeout;
        let answer = guarded(|| Ok(ask(self.begin(timeout))))?;
        answer.map_err(|e| self.fault(&e, timeout))
    }
}
