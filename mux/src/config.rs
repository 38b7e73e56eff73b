//! The configuration of a mux: the checked result, and how a file becomes one.
//!
//! `etc/mux.toml` documents every key; a test parses it. Each field below says whether a reload
//! (SIGHUP) changes it. Relative paths are relative to the directory of the file.
//!
//! In: the text of `mux.toml`, or one section of `imserver.toml` (embedded mux); for a start and for `--check` also the files
//! it names. Out: [`Config`] or all its [`Mistake`]s at once. Owns: nothing. Never: opens a socket; reads a certificate for a
//! reload (a bad one is no mistake there: the old one stays, see `tls::certs`).

pub mod files;
mod networks;
mod read;
pub mod syntax;
#[cfg(test)]
mod tests;
mod websocket;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::frame::ListenerKind;
use toml::Spanned;

pub use networks::Network;
pub use read::Mistake;
use read::{Reader, Source};
pub use websocket::WebSocketConfig;

/// Default port of the c2s listener (STARTTLS).
pub const PORT_C2S: u16 = 5222;
/// Default port of the c2s listener with direct TLS.
pub const PORT_C2S_TLS: u16 = 5223;
/// Default port of the WebSocket listener without TLS.
pub const PORT_WS: u16 = 5280;
/// Default port of the WebSocket listener with TLS.
pub const PORT_WSS: u16 = 5443;
/// Default port of the link.
pub const PORT_LINK: u16 = 15230;
/// Default port of the mux's metrics.
pub const PORT_METRICS: u16 = 15234;

/// A whole, checked configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The mux's name, as `[[mux]]` in imserver.toml and the link certificate say it. Not reloaded.
    pub name: String,
    /// Event-loop threads. 1: one thread does all. N > 1: one drives the link, N - 1 hold connections. Not reloaded.
    pub threads: usize,
    /// Servers, in order of preference. Empty only for an embedded mux. Not reloaded.
    pub servers: Vec<ServerConfig>,
    /// Listeners. Not reloaded.
    pub listeners: Vec<ListenerConfig>,
    /// Certificates; the first is the default. Reloaded, also when the files' content changes.
    pub certificates: Vec<CertificateConfig>,
    /// TLS towards clients. Reloaded.
    pub tls: TlsConfig,
    /// WebSocket clients. Reloaded, for new connections.
    pub websocket: WebSocketConfig,
    /// Options of client sockets. Reloaded, for new connections.
    pub tcp: TcpConfig,
    /// Limits. Reloaded.
    pub limits: LimitsConfig,
    /// Where metrics and health are served; `None`: nowhere. Not reloaded.
    pub metrics: Option<SocketAddr>,
    /// What is logged, as a `tracing` filter, e.g. `info` or `mux=debug`. Reloaded.
    pub log: String,
}

/// A server this mux may link to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// Where its link door is.
    pub address: ServerAddress,
    /// The server's name: it must show a certificate for `NAME.server.isthmus`.
    pub name: String,
    /// Files for mutual TLS; `None`: no TLS (Unix socket, or `tls = false` on loopback).
    pub tls: Option<LinkTlsConfig>,
}

/// Where a server's link door is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerAddress {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Files for the link's mutual TLS 1.3 (PEM).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkTlsConfig {
    /// The private CA.
    pub ca: PathBuf,
    /// This mux's certificate (`NAME.mux.isthmus`).
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What a listener's sockets carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerTransport {
    /// Plain TCP; the server may order STARTTLS.
    Tcp,
    /// TLS from the first byte (XEP-0368).
    Tls,
    /// WebSocket (RFC 7395), without TLS: for a reverse proxy on this host, or one that the operator vouches for.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl ListenerTransport {
    /// TLS comes before everything else.
    pub fn is_direct_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// A WebSocket handshake comes before XMPP.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// Kind of stream.
    pub kind: ListenerKind,
    /// What carries it.
    pub transport: ListenerTransport,
    /// Addresses to bind. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The load balancers in front of it: each connection comes from one of them and begins with a PROXY header. `None`:
    /// clients connect directly.
    pub proxy_from: Option<Vec<Network>>,
    /// Clients are asked for a certificate at every handshake, STARTTLS or direct. Else only when the server orders it.
    pub request_client_certificate: bool,
}

/// One certificate for clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateConfig {
    /// Domains it is shown for, lower case; `*.example.org` covers one label.
    pub domains: Vec<String>,
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// TLS towards clients and dialled servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    /// PEM files with the CAs client certificates and dialled servers are checked against. None: none is verified.
    pub client_ca: Vec<PathBuf>,
    /// How often the content of certificate files is looked at.
    pub watch: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            client_ca: Vec::new(),
            watch: Duration::from_secs(5),
        }
    }
}

/// Options of client sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// Idle time before the first keep-alive probe; zero: no keep-alive.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before the connection counts as dead (TCP_USER_TIMEOUT); zero: the kernel's choice.
    pub user_timeout: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Duration::from_secs(120),
            user_timeout: Duration::from_secs(60),
        }
    }
}

/// Limits; the reason for each default is in `etc/mux.toml`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// Connections in all.
    pub conns_max: usize,
    /// Connections per client address (an IPv6 /64 counts as one).
    pub conns_per_address_max: usize,
    /// Addresses `conns_per_address_max` does not apply to.
    pub exempt: HashSet<IpAddr>,
    /// Connections that have not logged in (have no Note); more wait in the kernel's backlog.
    pub unauthenticated_max: usize,
    /// How long a connection may stay without logging in.
    pub login: Duration,
    /// How long the PROXY header may take, on listeners that want one.
    pub proxy_header: Duration,
    /// Connections accepted per second; more wait in the kernel's backlog.
    pub accepts_per_s: u64,
    /// TLS handshakes started per second; more wait.
    pub handshakes_per_s: u64,
    /// TLS handshakes at a time; more wait.
    pub handshakes_max: usize,
    /// How long a TLS handshake may take, waiting included.
    pub handshake: Duration,
    /// Output of one connection that may wait for its socket; past it the connection is closed.
    pub output_bytes_max: usize,
    /// Unsettled input of all connections together. Not reloaded.
    pub unsettled_bytes_max: usize,
    /// How long clients are kept without a server. Not reloaded.
    pub server_lost: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            conns_max: 100_000,
            conns_per_address_max: 1_000,
            exempt: [
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ]
            .into(),
            unauthenticated_max: 20_000,
            login: Duration::from_secs(30),
            proxy_header: Duration::from_secs(5),
            accepts_per_s: 5_000,
            handshakes_per_s: 2_000,
            handshakes_max: 2_000,
            handshake: Duration::from_secs(15),
            output_bytes_max: 1 << 20,
            unsettled_bytes_max: 64 << 20,
            server_lost: Duration::from_secs(300),
        }
    }
}

/// Reads `mux.toml`.
pub fn parse(text: &str, file: &Path) -> Result<Config, Vec<Mistake>> {
    parse_file(Source::new(text, file))
}

/// Reads `mux.toml`, and looks at the certificates and keys it names: what a start needs.
pub fn parse_with_files(text: &str, file: &Path) -> Result<Config, Vec<Mistake>> {
    parse_file(Source::new(text, file).with_files())
}

fn parse_file(mut source: Source<'_>) -> Result<Config, Vec<Mistake>> {
    let table = source.parse();
    let top = Reader::new("", 0..0, table.as_ref());
    let base = base_dir(source.file());
    let config = read_config(&mut source, top, base, false);
    finish(source, config)
}

/// Reads the same keys from one section of another file, for a mux inside `imserver`. There `name`
/// defaults to `embedded`, and `server`, `metrics` and `log` are unknown keys. `None`: no such section. `with_files`: the
/// certificates and keys it names are looked at too.
pub fn parse_section(
    text: &str,
    file: &Path,
    section: &str,
    with_files: bool,
) -> Result<Option<Config>, Vec<Mistake>> {
    let mut source = Source::new(text, file);
    if with_files {
        source = source.with_files();
    }
    let table = source.parse();
    // The file has a reader of its own, who says what is wrong with its syntax.
    source.forget();
    let mut top = Reader::new("", 0..0, table.as_ref());
    let Some(reader) = top.table(&mut source, section) else {
        let mistakes = source.finish();
        return if mistakes.is_empty() {
            Ok(None)
        } else {
            Err(mistakes)
        };
    };
    let config = read_config(&mut source, reader, base_dir(file), true);
    finish(source, config).map(Some)
}

fn finish(source: Source<'_>, config: Config) -> Result<Config, Vec<Mistake>> {
    let mistakes = source.finish();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

/// Reads and parses a file; a file that cannot be read is one mistake.
pub fn load(file: &Path) -> Result<Config, Vec<Mistake>> {
    read_text(file).and_then(|text| parse(&text, file))
}

/// The same, and looks at the certificates and keys it names.
pub fn load_with_files(file: &Path) -> Result<Config, Vec<Mistake>> {
    read_text(file).and_then(|text| parse_with_files(&text, file))
}

fn read_text(file: &Path) -> Result<String, Vec<Mistake>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) => Err(vec![Mistake {
            file: file.to_owned(),
            line: 0,
            text: format!("cannot be read: {error}"),
        }]),
    }
}

fn base_dir(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read_config(
    source: &mut Source<'_>,
    mut top: Reader<'_, '_>,
    base: &Path,
    embedded: bool,
) -> Config {
    let name = if embedded {
        top.string(source, "name")
    } else {
        top.required_string(source, "name")
    };
    if let Some(name) = &name
        && !is_link_name(name.as_ref())
    {
        source.mistake(
            name.span(),
            "`name` may have letters a-z, digits and hyphens, at most 63",
        );
    }
    let threads = top.number(source, "threads", 1..=64, default_threads()) as usize;

    // "Nothing at all of that kind" is only worth saying when what there is could be read.
    let whole = source.is_clean();
    let mut servers = Vec::new();
    if !embedded {
        let tables = sections(source, &mut top, "server");
        if whole && tables.as_ref().is_some_and(Vec::is_empty) {
            source.mistake(
                0..0,
                "there is no [[server]]: say where the server's link port is",
            );
        }
        let link_name = name.as_ref().map(|n| format!("{}.mux.isthmus", n.as_ref()));
        for reader in tables.unwrap_or_default() {
            servers.extend(read_server(source, reader, base, link_name.as_deref()));
        }
    }
    let tables = sections(source, &mut top, "listener");
    if whole && tables.as_ref().is_some_and(Vec::is_empty) {
        source.mistake(top.span(), "there is no [[listener]]: nobody could connect");
    }
    let mut taken = HashSet::new();
    let listeners: Vec<_> = tables
        .unwrap_or_default()
        .into_iter()
        .filter_map(|reader| read_listener(source, reader, &mut taken))
        .collect();
    let tables = sections(source, &mut top, "certificate");
    let mut tls_listeners = listeners.iter().filter(|l| l.transport.is_direct_tls());
    if whole && tables.as_ref().is_some_and(Vec::is_empty) && tls_listeners.next().is_some() {
        source.mistake(
            top.span(),
            "a listener with transport \"tls\" or \"wss\" needs a [[certificate]]",
        );
    }
    let mut certificates = Vec::new();
    let mut domains_seen = HashSet::new();
    for reader in tables.unwrap_or_default() {
        certificates.extend(read_certificate(source, reader, base, &mut domains_seen));
    }
    let before = source.count();
    let tls = top
        .table(source, "tls")
        .map(|r| read_tls(source, r, base))
        .unwrap_or_default();
    if whole
        && source.count() == before
        && tls.client_ca.is_empty()
        && listeners.iter().any(|l| l.request_client_certificate)
    {
        source.mistake(
            top.span(),
            "a listener with `request_client_certificate = true` needs `tls.client_ca`: no certificate could pass",
        );
    }
    let websocket = top
        .table(source, "websocket")
        .map(|r| websocket::read(source, r))
        .unwrap_or_default();
    let tcp = top
        .table(source, "tcp")
        .map(|r| read_tcp(source, r))
        .unwrap_or_default();
    let limits = top
        .table(source, "limits")
        .map(|r| read_limits(source, r))
        .unwrap_or_default();
    let mut metrics = None;
    let mut log = "info".to_owned();
    if !embedded {
        if let Some(mut reader) = top.table(source, "metrics") {
            match reader.required_string(source, "listen") {
                Some(listen) => metrics = free_addr(source, &listen, &mut taken),
                None => metrics = None,
            }
            reader.finish(source);
        }
        if let Some(mut reader) = top.table(source, "log") {
            if let Some(filter) = reader.string(source, "filter") {
                match filter
                    .as_ref()
                    .parse::<tracing_subscriber::filter::Targets>()
                {
                    Ok(_) => log = filter.into_inner(),
                    Err(error) => {
                        source.mistake(filter.span(), format!("`log.filter` is no filter: {error}"))
                    }
                }
            }
            reader.finish(source);
        }
    }
    top.finish(source);
    Config {
        name: name.map_or_else(|| "embedded".to_owned(), Spanned::into_inner),
        threads,
        servers,
        listeners,
        certificates,
        tls,
        websocket,
        tcp,
        limits,
        metrics,
        log,
    }
}

/// The tables of that name; `None`: what there is are none, which has been said.
fn sections<'t, 'i>(
    source: &mut Source<'_>,
    top: &mut Reader<'t, 'i>,
    key: &str,
) -> Option<Vec<Reader<'t, 'i>>> {
    let before = source.count();
    let tables = top.tables(source, key);
    (source.count() == before).then_some(tables)
}

/// One event loop carries tens of thousands of messages a second; a second thread costs each message a
/// hop, so a small machine is better off with one.
fn default_threads() -> u64 {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        0..=2 => 1,
        n => (n / 2).min(8) as u64,
    }
}

fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A file that was named, and where.
type Named = Spanned<PathBuf>;

fn path(base: &Path, value: Option<Spanned<String>>) -> Option<Named> {
    value.map(|v| Spanned::new(v.span(), base.join(v.into_inner())))
}

/// Looks at a certificate and its key, if that is wanted; `link_name` is what the certificate must be for.
fn look_at_pair(
    source: &mut Source<'_>,
    cert: Option<&Named>,
    key: Option<&Named>,
    link_name: Option<&str>,
) {
    let chain = cert.and_then(|c| source.look(c, files::certificate));
    if let (Some(cert), Some(chain), Some(wanted)) = (cert, &chain, link_name) {
        source.look(cert, |path| files::link_name(path, chain, wanted));
    }
    let private = key.and_then(|k| source.look(k, files::key));
    if let (Some(cert), Some(chain), Some(key), Some(private)) = (cert, chain, key, private) {
        source.look(key, |path| {
            files::belong_together((cert.as_ref(), chain), (path, private))
        });
    }
}

fn socket_addr(source: &mut Source<'_>, value: &Spanned<String>) -> Option<SocketAddr> {
    match value.as_ref().parse() {
        Ok(addr) => Some(addr),
        Err(_) => {
            let text = format!(
                "\"{}\" is no address with port, like \"0.0.0.0:5222\" or \"[::]:5222\"",
                value.as_ref()
            );
            source.mistake(value.span(), text);
            None
        }
    }
}

/// One to listen on: a port bound twice fails at start with a puzzling "address in use".
fn free_addr(
    source: &mut Source<'_>,
    value: &Spanned<String>,
    taken: &mut HashSet<SocketAddr>,
) -> Option<SocketAddr> {
    let address = socket_addr(source, value)?;
    if address.port() != 0 && !taken.insert(address) {
        source.mistake(value.span(), format!("{address} is listened on already"));
    }
    Some(address)
}

fn read_server(
    source: &mut Source<'_>,
    mut reader: Reader<'_, '_>,
    base: &Path,
    link_name: Option<&str>,
) -> Option<ServerConfig> {
    let name = reader.required_string(source, "name");
    if let Some(name) = &name
        && !is_link_name(name.as_ref())
    {
        source.mistake(
            name.span(),
            "`server.name` may have letters a-z, digits and hyphens, at most 63",
        );
    }
    let address = reader.required_string(source, "address");
    let tls = reader.boolean(source, "tls", true);
    let is_unix = address
        .as_ref()
        .is_some_and(|a| a.as_ref().starts_with("unix:"));
    let mut files = None;
    if tls && !is_unix {
        let ca = path(base, reader.required_string(source, "ca"));
        let cert = path(base, reader.required_string(source, "cert"));
        let key = path(base, reader.required_string(source, "key"));
        if let Some(ca) = &ca {
            source.look(ca, files::authorities);
        }
        look_at_pair(source, cert.as_ref(), key.as_ref(), link_name);
        if let (Some(ca), Some(cert), Some(key)) = (ca, cert, key) {
            files = Some(LinkTlsConfig {
                ca: ca.into_inner(),
                cert: cert.into_inner(),
                key: key.into_inner(),
            });
        }
    } else {
        for key in ["ca", "cert", "key"] {
            reader.take(key);
        }
    }
    reader.finish(source);
    let address = address?;
    let parsed = match address.as_ref().strip_prefix("unix:") {
        Some(p) => ServerAddress::Unix(base.join(p)),
        None => {
            let host_port = address.as_ref();
            let port = host_port.rsplit_once(':').and_then(|(host, port)| {
                let bare_v6 = host.contains(':') && !host.starts_with('[');
                (!host.is_empty() && !bare_v6)
                    .then(|| port.parse::<u16>().ok())
                    .flatten()
            });
            if port.is_none() {
                let text = "`server.address` must be \"host:port\" or \"unix:PATH\"";
                source.mistake(address.span(), text);
                return None;
            }
            if !tls && !is_loopback(host_port) {
                let text = "`server.tls = false` is for loopback addresses only: a link that leaves the host needs TLS";
                source.mistake(address.span(), text);
                return None;
            }
            ServerAddress::Tcp(host_port.to_owned())
        }
    };
    Some(ServerConfig {
        address: parsed,
        name: name?.into_inner(),
        tls: files,
    })
}

fn is_loopback(host_port: &str) -> bool {
    match host_port.parse::<SocketAddr>() {
        Ok(addr) => addr.ip().is_loopback(),
        Err(_) => {
            host_port.starts_with("localhost:")
                && host_port
                    .to_socket_addrs()
                    .is_ok_and(|mut all| all.all(|a| a.ip().is_loopback()))
        }
    }
}

fn read_listener(
    source: &mut Source<'_>,
    mut reader: Reader<'_, '_>,
    taken: &mut HashSet<SocketAddr>,
) -> Option<ListenerConfig> {
    let kind =
        reader
            .required_string(source, "kind")
            .and_then(|kind| match kind.as_ref().as_str() {
                "c2s" => Some(ListenerKind::C2s),
                "s2s" => Some(ListenerKind::S2s),
                "component" => Some(ListenerKind::Component),
                other => {
                    let text = format!(
                        "`listener.kind` is \"c2s\", \"s2s\" or \"component\", not \"{other}\""
                    );
                    source.mistake(kind.span(), text);
                    None
                }
            });
    let transport =
        reader
            .required_string(source, "transport")
            .and_then(|t| match t.as_ref().as_str() {
                "tcp" => Some(ListenerTransport::Tcp),
                "tls" => Some(ListenerTransport::Tls),
                "ws" => Some(ListenerTransport::Ws),
                "wss" => Some(ListenerTransport::Wss),
                other => {
                    source.mistake(
                        t.span(),
                        format!("`listener.transport` is \"tcp\", \"tls\", \"ws\" or \"wss\", not \"{other}\""),
                    );
                    None
                }
            });
    let listen = match reader.strings(source, "listen") {
        Some(all) if !all.is_empty() => all
            .iter()
            .filter_map(|a| free_addr(source, a, taken))
            .collect(),
        Some(_) => {
            source.mistake(reader.span(), "`listener.listen` names no address");
            Vec::new()
        }
        None => {
            reader.missing(source, "listen");
            Vec::new()
        }
    };
    let proxy_from = read_proxy(source, &mut reader);
    let request_client_certificate = reader.boolean(source, "request_client_certificate", false);
    let tls_in_front = reader.boolean(source, "tls_in_front", false);
    if let (Some(kind), Some(transport)) = (kind, transport) {
        let tls = (tls_in_front, request_client_certificate);
        websocket::check_listener(source, &reader, kind, transport, &listen, tls);
    }
    reader.finish(source);
    Some(ListenerConfig {
        kind: kind?,
        transport: transport?,
        listen,
        proxy_from,
        request_client_certificate,
    })
}

/// Whoever may write a PROXY header may claim any address, so they are named.
fn read_proxy(source: &mut Source<'_>, reader: &mut Reader<'_, '_>) -> Option<Vec<Network>> {
    let wanted = reader.boolean(source, "proxy_protocol", false);
    let Some(from) = reader.strings(source, "proxy_from") else {
        if wanted {
            reader.missing(source, "proxy_from");
        }
        return wanted.then(Vec::new);
    };
    if !wanted {
        let text = "`listener.proxy_from` means nothing without `proxy_protocol = true`";
        source.mistake(reader.span(), text);
    } else if from.is_empty() {
        source.mistake(reader.span(), "`listener.proxy_from` names no address");
    }
    let mut networks = Vec::new();
    for one in from {
        match Network::parse(one.as_ref()) {
            Ok(network) => networks.push(network),
            Err(why) => source.mistake(one.span(), format!("\"{}\" {why}", one.as_ref())),
        }
    }
    wanted.then_some(networks)
}

fn read_certificate(
    source: &mut Source<'_>,
    mut reader: Reader<'_, '_>,
    base: &Path,
    seen: &mut HashSet<String>,
) -> Option<CertificateConfig> {
    let mut domains = Vec::new();
    match reader.strings(source, "domains") {
        Some(all) if !all.is_empty() => {
            for domain in all {
                let name = domain.as_ref().trim_end_matches('.').to_ascii_lowercase();
                let plain = name.strip_prefix("*.").unwrap_or(&name);
                let good = !plain.is_empty()
                    && plain
                        .bytes()
                        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'));
                if !good {
                    let text = format!(
                        "\"{}\" is no domain name (write non-ASCII ones in their xn-- form)",
                        domain.as_ref()
                    );
                    source.mistake(domain.span(), text);
                } else if !seen.insert(name.clone()) {
                    source.mistake(
                        domain.span(),
                        format!("\"{name}\" has a certificate already"),
                    );
                }
                domains.push(name);
            }
        }
        Some(_) => source.mistake(reader.span(), "`certificate.domains` names no domain"),
        None => reader.missing(source, "domains"),
    }
    let chain = path(base, reader.required_string(source, "chain"));
    let key = path(base, reader.required_string(source, "key"));
    look_at_pair(source, chain.as_ref(), key.as_ref(), None);
    reader.finish(source);
    Some(CertificateConfig {
        domains,
        chain: chain?.into_inner(),
        key: key?.into_inner(),
    })
}

fn read_tls(source: &mut Source<'_>, mut reader: Reader<'_, '_>, base: &Path) -> TlsConfig {
    let client_ca = reader.one_or_more(source, "client_ca").unwrap_or_default();
    let client_ca: Vec<Named> = client_ca
        .into_iter()
        .filter_map(|p| path(base, Some(p)))
        .collect();
    for ca in client_ca.iter().filter(|ca| *ca.as_ref() != base.join("")) {
        source.look(ca, files::authorities);
    }
    let client_ca = client_ca.into_iter().map(Spanned::into_inner).collect();
    let watch = seconds(
        source,
        &mut reader,
        "watch_s",
        1..=86_400,
        TlsConfig::default().watch,
    );
    reader.finish(source);
    TlsConfig { client_ca, watch }
}

fn read_tcp(source: &mut Source<'_>, mut reader: Reader<'_, '_>) -> TcpConfig {
    let default = TcpConfig::default();
    let config = TcpConfig {
        nodelay: reader.boolean(source, "nodelay", default.nodelay),
        keepalive: seconds(
            source,
            &mut reader,
            "keepalive_s",
            0..=86_400,
            default.keepalive,
        ),
        user_timeout: seconds(
            source,
            &mut reader,
            "user_timeout_s",
            0..=86_400,
            default.user_timeout,
        ),
    };
    reader.finish(source);
    config
}

fn read_limits(source: &mut Source<'_>, mut reader: Reader<'_, '_>) -> LimitsConfig {
    let d = LimitsConfig::default();
    let r = &mut reader;
    let exempt = r.strings(source, "exempt").map(|all| {
        let mut out = HashSet::new();
        for one in all {
            match one.as_ref().parse::<IpAddr>() {
                Ok(ip) => {
                    out.insert(ip);
                }
                Err(_) => {
                    source.mistake(one.span(), format!("\"{}\" is no IP address", one.as_ref()))
                }
            }
        }
        out
    });
    let million = 10_000_000;
    let limits = LimitsConfig {
        conns_max: r.number(source, "conns_max", 1..=million, d.conns_max as u64) as usize,
        conns_per_address_max: r.number(
            source,
            "conns_per_address_max",
            1..=million,
            d.conns_per_address_max as u64,
        ) as usize,
        exempt: exempt.unwrap_or(d.exempt),
        unauthenticated_max: r.number(
            source,
            "unauthenticated_max",
            1..=million,
            d.unauthenticated_max as u64,
        ) as usize,
        login: seconds(source, r, "login_s", 1..=3_600, d.login),
        proxy_header: seconds(source, r, "proxy_header_s", 1..=60, d.proxy_header),
        accepts_per_s: r.number(source, "accepts_per_s", 1..=1_000_000, d.accepts_per_s),
        handshakes_per_s: r.number(
            source,
            "handshakes_per_s",
            1..=1_000_000,
            d.handshakes_per_s,
        ),
        handshakes_max: r.number(
            source,
            "handshakes_max",
            1..=million,
            d.handshakes_max as u64,
        ) as usize,
        handshake: seconds(source, r, "handshake_s", 1..=3_600, d.handshake),
        output_bytes_max: r.number(
            source,
            "output_bytes_max",
            65_536..=1 << 30,
            d.output_bytes_max as u64,
        ) as usize,
        unsettled_bytes_max: r.number(
            source,
            "unsettled_bytes_max",
            1 << 20..=1 << 40,
            d.unsettled_bytes_max as u64,
        ) as usize,
        server_lost: seconds(source, r, "server_lost_s", 1..=86_400, d.server_lost),
    };
    reader.finish(source);
    limits
}

fn seconds(
    source: &mut Source<'_>,
    reader: &mut Reader<'_, '_>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
    default: Duration,
) -> Duration {
    Duration::from_secs(reader.number(source, key, range, default.as_secs()))
}
