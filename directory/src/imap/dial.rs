//! A connection to a mail server: made, protected, and one conversation carried on it.
//!
//! In: a server, a [`Dialogue`]. Out: its verdict.
//! Owns: a socket, for one conversation. Never: waits beyond the deadline, however slowly the other end goes on; sends a password
//! without protection to another host.

use super::config::{ImapConfig, ServerConfig, Tls, is_loopback};
use super::dialogue::{Dialogue, Output, Verdict};
use crate::dial::{self, Resolver, Unreached};
use crate::tls::client_config;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_BYTES: usize = 4_096;

/// What became of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// What it has come to.
    pub verdict: Verdict,
    /// The name and the password had been sent by then.
    pub asked: bool,
}

fn broken(why: impl Into<String>) -> Outcome {
    Outcome {
        verdict: Verdict::Broken(why.into()),
        asked: false,
    }
}

/// Makes connections.
pub(super) struct Dialer {
    client: Option<Arc<ClientConfig>>,
    resolver: Resolver,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// # Errors
    /// The CA's certificates are of no use.
    pub(super) fn new(config: &ImapConfig) -> Result<Self, String> {
        let protected = config.servers.iter().any(|s| s.tls != Tls::None);
        let client = if protected {
            Some(client_config(config.ca.as_deref())?)
        } else {
            None
        };
        Ok(Dialer {
            client,
            resolver: Resolver::default(),
        })
    }

    /// Carries a conversation to its end.
    pub(super) fn converse(
        &self,
        server: &ServerConfig,
        mut dialogue: Dialogue,
        deadline: Instant,
    ) -> Outcome {
        let socket = match self.connect(server, deadline) {
            Ok(socket) => Timed { socket, deadline },
            Err(why) => return broken(why),
        };
        let carried = match server.tls {
            Tls::None => carry(&mut { socket }, &mut dialogue),
            Tls::Direct => self
                .secure(server, socket)
                .and_then(|mut stream| carry(&mut stream, &mut dialogue)),
            Tls::StartTls => self.upgrade(server, socket, &mut dialogue),
        };
        let asked = dialogue.has_asked();
        match carried {
            Ok(Carried::Done(verdict)) => Outcome { verdict, asked },
            Ok(Carried::StartTls) => broken("TLS was begun twice"),
            Err(error) => Outcome {
                verdict: Verdict::Broken(words(&error)),
                asked,
            },
        }
    }

    fn upgrade(
        &self,
        server: &ServerConfig,
        mut socket: Timed,
        dialogue: &mut Dialogue,
    ) -> io::Result<Carried> {
        match carry(&mut socket, dialogue)? {
            Carried::StartTls => {
                let mut stream = self.secure(server, socket)?;
                dialogue.secured();
                carry(&mut stream, dialogue)
            }
            done @ Carried::Done(_) => Ok(done),
        }
    }

    fn secure(
        &self,
        server: &ServerConfig,
        mut socket: Timed,
    ) -> io::Result<StreamOwned<ClientConnection, Timed>> {
        let wrong = |e: String| io::Error::new(ErrorKind::InvalidData, e);
        let client = self
            .client
            .clone()
            .ok_or_else(|| wrong("no TLS".to_owned()))?;
        let name = ServerName::try_from(server.host.clone()).map_err(|e| wrong(e.to_string()))?;
        let mut connection =
            ClientConnection::new(client, name).map_err(|e| wrong(e.to_string()))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    fn connect(&self, server: &ServerConfig, deadline: Instant) -> Result<TcpStream, String> {
        let patience = left(deadline).map_err(|e| words(&e))?;
        let mut addresses = self
            .resolver
            .addresses(&server.host, server.port, patience)?;
        if server.tls == Tls::None {
            addresses.retain(|a| is_loopback(&server.host) && a.ip().is_loopback());
        }
        // The conversation is the step after.
        dial::connect(&addresses, deadline, 1).map_err(|unreached| match unreached {
            Unreached::Late => words(&late()),
            Unreached::Because(why) => why,
        })
    }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer in time")
}

fn left(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(late)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "it has closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// A socket that gives up at the deadline.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.deadline)?))?;
        self.socket.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.deadline)?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

enum Carried {
    StartTls,
    Done(Verdict),
}

/// Carries bytes until TLS is to begin, or there is a verdict.
fn carry(stream: &mut (impl Read + Write), dialogue: &mut Dialogue) -> io::Result<Carried> {
    let mut bytes = [0; READ_BYTES];
    loop {
        while let Some(output) = dialogue.poll_output() {
            match output {
                Output::Send(out) => {
                    let sent = stream.write_all(&out).and_then(|()| stream.flush());
                    // The last word is courtesy.
                    if !dialogue.is_over() {
                        sent?;
                    }
                }
                Output::StartTls => return Ok(Carried::StartTls),
                Output::Done(verdict) => return Ok(Carried::Done(verdict)),
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) => dialogue.handle_end(),
            Ok(n) => dialogue.handle_bytes(&bytes[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // TLS without a close_notify.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => dialogue.handle_end(),
            Err(e) => return Err(e),
        }
    }
}
