//! The GET-only listener for metrics and health, of this program and of `imserver`.
//!
//! In: sockets. Out: to each request head one answer, then the end.
//! Owns: a few connections, each for a short time. Never: waits for one of them; reads a body.
//!
//! Connections that say nothing must not keep a scraper out: each has [`REQUEST_TIME_MAX`], and past [`CONNS_MAX`] a newcomer
//! takes the place of the oldest.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

/// From the connection to the last byte of the answer: a scraper is a machine nearby.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(3);
/// Enough for any scraper's request head.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Connections at a time: a site has a few scrapers.
const CONNS_MAX: usize = 32;
/// After a failed accept (out of descriptors): the listener says nothing again by itself.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// First token of connections.
const FIRST: usize = 2;

struct Conn {
    token: Token,
    socket: TcpStream,
    until: Instant,
    head: Vec<u8>,
    /// The answer, once there is one.
    out: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct Http {
    poll: Poll,
    listener: TcpListener,
}

/// An answer as bytes. `status`: number and reason.
pub fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Method and path of a request head, without a query.
pub fn request(head: &[u8]) -> (&[u8], &[u8]) {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    (method, path)
}

impl Http {
    /// A listener that is bound.
    ///
    /// # Errors
    /// It cannot be polled.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Makes [`Http::run`] look at `stop`.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// Serves until told to stop, or polling fails.
    ///
    /// # Errors
    /// Polling failed.
    pub fn run(mut self, stop: &AtomicBool, answer: &dyn Fn(&[u8]) -> String) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        let mut conns: VecDeque<Conn> = VecDeque::new();
        let mut next = FIRST;
        let mut accept_at = None;
        while !stop.load(Relaxed) {
            let now = Instant::now();
            let due = conns.front().map(|conn| conn.until);
            let due = due.into_iter().chain(accept_at).min();
            let wait = due.map(|at| at.saturating_duration_since(now));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            let now = Instant::now();
            for event in &events {
                if event.token() == LISTENER {
                    accept_at = Some(now);
                } else if let Some(at) = conns.iter().position(|c| c.token == event.token())
                    && conns[at].advance(answer)
                {
                    conns.remove(at);
                }
            }
            // They all have the same time, so the oldest is the first.
            while conns.front().is_some_and(|conn| conn.until <= now) {
                conns.pop_front();
            }
            if accept_at.is_some_and(|at| at <= now) {
                accept_at = self.accept(now, &mut conns, &mut next, answer);
            }
        }
        Ok(())
    }

    /// Takes who has come. Returns when to look again, if the listener will not say.
    fn accept(
        &mut self,
        now: Instant,
        conns: &mut VecDeque<Conn>,
        next: &mut usize,
        answer: &dyn Fn(&[u8]) -> String,
    ) -> Option<Instant> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Some(now + ACCEPT_AGAIN),
            };
            let token = Token(*next);
            *next += 1;
            let both = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(&mut socket, token, both)
                .is_err()
            {
                continue;
            }
            let mut conn = Conn {
                token,
                socket,
                until: now + REQUEST_TIME_MAX,
                head: Vec::new(),
                out: None,
            };
            if conn.advance(answer) {
                continue;
            }
            if conns.len() >= CONNS_MAX {
                conns.pop_front();
            }
            conns.push_back(conn);
        }
    }
}

impl Conn {
    /// Reads and writes what can be. True: it is done with.
    fn advance(&mut self, answer: &dyn Fn(&[u8]) -> String) -> bool {
        match self.step(answer) {
            Ok(done) => done,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn step(&mut self, answer: &dyn Fn(&[u8]) -> String) -> io::Result<bool> {
        let mut piece = [0; 1024];
        loop {
            if let Some(out) = &mut self.out {
                if out.is_empty() {
                    return Ok(true);
                }
                match self.socket.write(out) {
                    Ok(n) => drop(out.drain(..n)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            let n = match self.socket.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.head.extend_from_slice(&piece[..n]);
            if self.head.windows(4).any(|w| w == b"\r\n\r\n") {
                self.out = Some(answer(&self.head).into_bytes());
            } else if self.head.len() > REQUEST_BYTES_MAX {
                let text = response("431 Request Header Fields Too Large", "too long\n");
                self.out = Some(text.into_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Served {
        address: SocketAddr,
        stop: Arc<AtomicBool>,
        waker: Waker,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Served {
        fn start() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let http = Http::new(listener).expect("a listener");
            let address = http.address().expect("an address");
            let waker = http.waker().expect("a waker");
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let thread = std::thread::spawn(move || {
                let answer = |head: &[u8]| {
                    let (_, path) = request(head);
                    response("200 OK", &String::from_utf8_lossy(path))
                };
                http.run(&stopped, &answer).expect("it polls");
            });
            Self {
                address,
                stop,
                waker,
                thread: Some(thread),
            }
        }

        fn dial(&self) -> std::net::TcpStream {
            let socket = std::net::TcpStream::connect(self.address).expect("a connection");
            let patience = Some(Duration::from_secs(30));
            socket.set_read_timeout(patience).expect("a timeout");
            socket
        }

        fn ask(&self, request: &str) -> String {
            let mut socket = self.dial();
            socket.write_all(request.as_bytes()).expect("write");
            let mut out = String::new();
            socket.read_to_string(&mut out).expect("read");
            out
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.stop.store(true, Relaxed);
            self.waker.wake().expect("it wakes");
            self.thread.take().map(std::thread::JoinHandle::join);
        }
    }

    #[test]
    fn the_silent_keep_nobody_out() {
        let served = Served::start();
        let mut silent: Vec<_> = (0..300).map(|_| served.dial()).collect();
        let begun = Instant::now();
        let answer = served.ask("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.ends_with("\r\n\r\n/metrics"), "{answer}");
        // One after another they would take a quarter of an hour.
        assert!(begun.elapsed() < Duration::from_secs(10));
        // The last of them, too, has only so long.
        let last = silent.last_mut().expect("there are 300");
        assert_eq!(last.read(&mut [0]).expect("the end"), 0);
    }

    #[test]
    fn a_request_comes_in_pieces_and_not_too_long() {
        let served = Served::start();
        let mut socket = served.dial();
        for piece in ["GET /a", "b HTTP/1.1\r", "\n\r\n"] {
            socket.write_all(piece.as_bytes()).expect("write");
            socket.flush().expect("flush");
            std::thread::yield_now();
        }
        let mut out = String::new();
        socket.read_to_string(&mut out).expect("read");
        assert!(out.ends_with("\r\n\r\n/ab"), "{out}");
        // All of it is read, so that no reset overtakes the answer.
        let long = format!("GET /{} HTTP/1.1", "x".repeat(REQUEST_BYTES_MAX));
        assert!(served.ask(&long).starts_with("HTTP/1.1 431 "));
    }
}
