//! Metrics and health: one GET-only HTTP listener.
//!
//! In: `GET /metrics`, `GET /healthz`. Out: text.
//! Never: takes anything but GET; reads more than a request line and headers; holds more than a few connections.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// A request may not be longer, bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// A client may not take longer for its request or for taking the answer.
const CLIENT_TIME: Duration = Duration::from_secs(2);

/// What is served.
pub trait Source: Send + Sync {
    /// Prometheus text format.
    fn metrics(&self) -> String;
    /// `Ok`: serving; `Err`: why not.
    fn health(&self) -> Result<(), String>;
}

/// Serves until the process ends. One connection at a time: scrapers are few and a slow one is cut off.
pub fn serve(listener: &TcpListener, source: &Arc<dyn Source>) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else {
            // Out of descriptors: the next scrape may find some.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let timeouts = stream
            .set_read_timeout(Some(CLIENT_TIME))
            .and_then(|()| stream.set_write_timeout(Some(CLIENT_TIME)));
        if timeouts.is_err() {
            continue;
        }
        if let Some(answer) = answer(&mut stream, source.as_ref()) {
            // A scraper that has gone needs no answer.
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

fn answer(stream: &mut impl Read, source: &dyn Source) -> Option<String> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).ok().filter(|&n| n > 0)?;
        request.extend_from_slice(&chunk[..n]);
        if request.len() > REQUEST_BYTES_MAX {
            return Some(response(
                431,
                "Request Header Fields Too Large",
                "too long\n",
            ));
        }
    }
    let line = request.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    Some(match (method, path) {
        (b"GET", b"/metrics") => response(200, "OK", &source.metrics()),
        (b"GET", b"/healthz") => match source.health() {
            Ok(()) => response(200, "OK", "ok\n"),
            Err(why) => response(503, "Service Unavailable", &format!("{why}\n")),
        },
        (b"GET", _) => response(404, "Not Found", "here are /metrics and /healthz\n"),
        _ => response(405, "Method Not Allowed", "only GET\n"),
    })
}

fn response(status: u16, reason: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
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

    fn ask(request: &str) -> Option<String> {
        answer(&mut request.as_bytes(), &Fine)
    }

    #[test]
    fn only_get_of_what_is_there() {
        assert!(
            ask("GET /metrics HTTP/1.1\r\n\r\n")
                .unwrap()
                .ends_with("isthmus_up 1\n")
        );
        assert!(
            ask("GET /healthz HTTP/1.1\r\n\r\n")
                .unwrap()
                .starts_with("HTTP/1.1 503")
        );
        assert!(
            ask("POST /metrics HTTP/1.1\r\n\r\n")
                .unwrap()
                .starts_with("HTTP/1.1 405")
        );
        assert!(
            ask("GET /../etc HTTP/1.1\r\n\r\n")
                .unwrap()
                .starts_with("HTTP/1.1 404")
        );
        assert!(
            ask(&format!("GET /{} HTTP/1.1", "x".repeat(9000)))
                .unwrap()
                .starts_with("HTTP/1.1 431")
        );
        assert!(ask("GET /metr").is_none());
    }
}
