//! Metrics and health: one GET-only HTTP listener.
//!
//! In: `GET /metrics`, `GET /healthz`. Out: text.
//! Never: takes anything but GET; reads more than a request line and headers; holds more than a few connections (`mux::http` sees to both).

use mux::http::{self, Http};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is served.
pub trait Source: Send + Sync {
    /// Prometheus text format.
    fn metrics(&self) -> String;
    /// `Ok`: serving; `Err`: why not.
    fn health(&self) -> Result<(), String>;
}

/// Serves until the process ends.
pub fn serve(listener: TcpListener, source: &Arc<dyn Source>) {
    let never = AtomicBool::new(false);
    let served = Http::new(listener)
        .and_then(|http| http.run(&never, &|head| answer(head, source.as_ref())));
    if let Err(error) = served {
        tracing::warn!(%error, "metrics listener stops");
    }
}

fn answer(head: &[u8], source: &dyn Source) -> String {
    match http::request(head) {
        (b"GET", b"/metrics") => http::response("200 OK", &source.metrics()),
        (b"GET", b"/healthz") => match source.health() {
            Ok(()) => http::response("200 OK", "ok\n"),
            Err(why) => http::response("503 Service Unavailable", &format!("{why}\n")),
        },
        (b"GET", _) => http::response("404 Not Found", "here are /metrics and /healthz\n"),
        _ => http::response("405 Method Not Allowed", "only GET\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fine;
    impl Source for Fine {
        fn metrics(&self) -> String {
            "isthmus_up 1\n".into()
        }
        fn health(&self) -> Result<(), String> {
            Err("no mux is linked".into())
        }
    }

    fn ask(request: &str) -> String {
        answer(request.as_bytes(), &Fine)
    }

    #[test]
    fn only_get_of_what_is_there() {
        assert!(ask("GET /metrics HTTP/1.1\r\n\r\n").ends_with("isthmus_up 1\n"));
        assert!(ask("GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503"));
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask("GET /../etc HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    }
}
