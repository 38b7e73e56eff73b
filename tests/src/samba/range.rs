//! Makes Samba give large groups as Windows does: `member;range=0-1499` where `member` was asked for ([MS-ADTS] §3.1.1.3.1.3.3).
//!
//! A proxy for LDAP without TLS. Samba itself gives such parts to who asks for them, and all values to who does not; so the
//! question is changed, and the answers are Samba's.

use anyhow::Result;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What Windows 2003 and later gives of one attribute at a time.
const PART: &[u8] = b"member;range=0-1499";
const WHOLE: &[u8] = b"member";

/// `[APPLICATION 3]`, a search (RFC 4511 §4.5.1).
const SEARCH: u8 = 0x63;
const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    changed: AtomicUsize,
    parts: AtomicUsize,
}

/// The proxy. It takes no new connections when it is dropped; those there are end with their ends.
pub struct RangeProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl RangeProxy {
    /// Listens on a free port of 127.0.0.1, for the server at this address.
    pub fn start(server: Ipv4Addr) -> Result<RangeProxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        std::thread::Builder::new()
            .name("range-proxy".into())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    if for_thread.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Ok(server) = TcpStream::connect((server, 389)) {
                        let _ = join(client, server, &for_thread);
                    }
                }
            })?;
        Ok(RangeProxy { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Questions for all members that it has made questions for the first 1,500.
    pub fn changed(&self) -> usize {
        self.shared.changed.load(Ordering::Relaxed)
    }

    /// Questions for what follows.
    pub fn parts(&self) -> usize {
        self.shared.parts.load(Ordering::Relaxed)
    }
}

impl Drop for RangeProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    std::thread::Builder::new().spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    })?;
    let (mut from, mut to, shared) = (client, server, shared.clone());
    std::thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..n]);
            while let Some((_, _, length)) = element(&bytes) {
                let message: Vec<u8> = bytes.drain(..length).collect();
                if message.windows(15).any(|w| w == b"member;range=15") {
                    shared.parts.fetch_add(1, Ordering::Relaxed);
                }
                let message = match asked(&message) {
                    Some(changed) => {
                        shared.changed.fetch_add(1, Ordering::Relaxed);
                        changed
                    }
                    None => message,
                };
                if to.write_all(&message).is_err() {
                    break;
                }
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    })?;
    Ok(())
}

/// The first element of BER: its tag, what is in it, and how long all of it is. `None`: not all of it is there.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    let (length, from) = match first {
        0..=0x7f => (usize::from(first), 2),
        _ => {
            let digits = bytes.get(2..2 + usize::from(first & 0x7f))?;
            let length = digits.iter().fold(0, |n, d| n << 8 | usize::from(*d));
            (length, 2 + digits.len())
        }
    };
    Some((tag, bytes.get(from..from + length)?, from + length))
}

fn elements(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some((tag, content, length)) = element(bytes) {
        out.push((tag, content.to_vec()));
        bytes = &bytes[length..];
    }
    out
}

fn encode(elements: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, content) in elements {
        out.push(*tag);
        // Four bytes of length are always allowed.
        out.push(0x84);
        out.extend((content.len() as u32).to_be_bytes());
        out.extend(content);
    }
    out
}

/// A search for all members, made one for the first of them. `None`: it is something else.
fn asked(message: &[u8]) -> Option<Vec<u8>> {
    let (_, content, _) = element(message)?;
    let mut parts = elements(content);
    let (_, search) = parts.get_mut(1).filter(|(tag, _)| *tag == SEARCH)?;
    let mut fields = elements(search);
    let (_, list) = fields.last_mut()?;
    let mut attributes = elements(list);
    let whole = attributes
        .iter_mut()
        .find(|(tag, name)| *tag == OCTETS && name.eq_ignore_ascii_case(WHOLE))?;
    whole.1 = PART.to_vec();
    *list = encode(&attributes);
    *search = encode(&fields);
    Some(encode(&[(SEQUENCE, encode(&parts))]))
}
