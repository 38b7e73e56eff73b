//! Counters, and the GET-only listener that shows them.
//!
//! In: increments from all threads. Out: Prometheus text at `/metrics`, `/healthz`.
//! Owns: the counters and one thread. Never: blocks a connection thread; shows anything about a client.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use mio::Waker;

use crate::http::{self, Http};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident, $kind:literal, $full:literal;)*) => {
        /// All counters and gauges of one mux.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])* pub $name: AtomicU64,)*
        }

        impl Metrics {
            /// Prometheus text format.
            pub fn render(&self) -> String {
                let mut out = String::with_capacity(4096);
                let mut last = "";
                $(
                    let family = $full.split('{').next().unwrap_or($full);
                    if family != last {
                        let help = concat!($($doc),*).trim();
                        let _ = writeln!(out, "# HELP {family} {help}\n# TYPE {family} {}", $kind);
                        last = family;
                    }
                    let _ = writeln!(out, "{} {}", $full, self.$name.load(Relaxed));
                )*
                let _ = last;
                out
            }
        }
    };
}

counters! {
    /// Connections held.
    conns, "gauge", "mux_conns";
    /// Connections that have not logged in.
    conns_unauthenticated, "gauge", "mux_conns_unauthenticated";
    /// Connections accepted.
    accepted, "counter", "mux_accepted_total";
    /// Connections refused, by reason.
    refused_total, "counter", "mux_refused_total{reason=\"total\"}";
    /// Refused: too many from one address.
    refused_address, "counter", "mux_refused_total{reason=\"address\"}";
    /// Refused: no server.
    refused_no_server, "counter", "mux_refused_total{reason=\"no_server\"}";
    /// Refused: out of file descriptors.
    refused_no_files, "counter", "mux_refused_total{reason=\"no_files\"}";
    /// Refused: no balancer, or without a valid PROXY header in time.
    refused_proxy, "counter", "mux_refused_total{reason=\"proxy\"}";
    /// Times accepting paused for a rate, a count or descriptors.
    accept_pauses, "counter", "mux_accept_pauses_total";
    /// Connections closed, by reason.
    closed_normal, "counter", "mux_closed_total{reason=\"normal\"}";
    /// Closed: socket failed.
    closed_socket, "counter", "mux_closed_total{reason=\"socket\"}";
    /// Closed: TLS failed.
    closed_tls, "counter", "mux_closed_total{reason=\"tls\"}";
    /// Closed: not logged in in time.
    closed_login_age, "counter", "mux_closed_total{reason=\"login_age\"}";
    /// Closed: did not take its output.
    closed_slow, "counter", "mux_closed_total{reason=\"slow\"}";
    /// Closed: on the server's order.
    closed_server, "counter", "mux_closed_total{reason=\"server\"}";
    /// Bytes from clients.
    bytes_in, "counter", "mux_client_bytes_total{direction=\"in\"}";
    /// Bytes to clients.
    bytes_out, "counter", "mux_client_bytes_total{direction=\"out\"}";
    /// Bytes from the link.
    link_bytes_in, "counter", "mux_link_bytes_total{direction=\"in\"}";
    /// Bytes to the link.
    link_bytes_out, "counter", "mux_link_bytes_total{direction=\"out\"}";
    /// TLS handshakes finished.
    handshakes, "counter", "mux_tls_handshakes_total";
    /// TLS handshakes failed.
    handshakes_failed, "counter", "mux_tls_handshakes_failed_total";
    /// TLS handshakes under way.
    handshaking, "gauge", "mux_tls_handshaking";
    /// WebSocket handshakes finished.
    upgrades, "counter", "mux_websocket_upgrades_total";
    /// Requests at WebSocket listeners answered otherwise: `host-meta`, and what was refused.
    http_answers, "counter", "mux_websocket_http_answers_total";
    /// 1 while the link is up.
    link_up, "gauge", "mux_link_up";
    /// Times the link came up.
    link_ups, "counter", "mux_link_ups_total";
    /// Input bytes the server has not made durable.
    unsettled_bytes, "gauge", "mux_unsettled_bytes";
    /// Last valid second of the certificate that ends first, Unix time.
    certificate_not_after, "gauge", "mux_certificate_not_after_seconds";
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// Sets a gauge.
pub fn set(gauge: &AtomicU64, n: u64) {
    gauge.store(n, Relaxed);
}

/// Takes from a gauge.
pub fn sub(gauge: &AtomicU64, n: u64) {
    gauge.fetch_sub(n, Relaxed);
}

/// The listener's thread; stops when dropped.
#[derive(Debug)]
pub struct HttpListener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HttpListener {
    /// Binds and starts serving.
    pub fn start(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let http = Http::new(std::net::TcpListener::bind(address)?)?;
        let address = http.address()?;
        let waker = Arc::new(http.waker()?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("mux-metrics".into())
            .spawn(move || {
                if let Err(error) = http.run(&stopped, &|head| answer(head, &metrics)) {
                    tracing::warn!(%error, "metrics listener stops");
                }
            })?;
        Ok(Self {
            address,
            stop,
            waker,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn answer(head: &[u8], metrics: &Metrics) -> String {
    let (status, body) = match http::request(head) {
        (b"GET", b"/metrics") => ("200 OK", metrics.render()),
        (b"GET", b"/healthz") if metrics.link_up.load(Relaxed) == 1 => ("200 OK", "ok\n".into()),
        (b"GET", b"/healthz") => ("503 Service Unavailable", "no link to a server\n".into()),
        (b"GET", _) => ("404 Not Found", "there is /metrics and /healthz\n".into()),
        _ => ("405 Method Not Allowed", "GET only\n".into()),
    };
    http::response(status, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut socket = std::net::TcpStream::connect(address).expect("connect");
        socket.write_all(request.as_bytes()).expect("write");
        let mut out = String::new();
        socket.read_to_string(&mut out).expect("read");
        out
    }

    #[test]
    fn metrics_and_health_are_served_and_nothing_else() {
        let metrics = Arc::new(Metrics::default());
        let http = HttpListener::start("127.0.0.1:0".parse().expect("addr"), metrics.clone())
            .expect("start");
        let rows = [
            ("GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 503"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
            ("\r\n\r\n", "HTTP/1.1 405"),
        ];
        for (request, want) in rows {
            assert!(
                ask(http.address(), request).starts_with(want),
                "{request:?}"
            );
        }
        set(&metrics.link_up, 1);
        add(&metrics.refused_address, 7);
        assert!(ask(http.address(), "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
        let text = ask(http.address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(
            text.contains("mux_refused_total{reason=\"address\"} 7\n"),
            "{text}"
        );
        assert_eq!(text.matches("# TYPE mux_refused_total counter").count(), 1);
    }
}
