//! A TCP proxy between mux and imserver that can be cut.
//!
//! While cut, bytes are held back in both directions and new connections wait; nothing is closed
//! until the cut says so. That is what a broken cable looks like to both ends.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every connection is reset and new ones are refused (closed at once) until restored.
    Reset,
    /// Bytes stop, nobody is told.
    Silent,
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    open: Vec<(TcpStream, TcpStream)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    accepted: AtomicUsize,
}

/// The proxy; its threads end when it is dropped.
pub struct LinkProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl LinkProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    pub fn start(target: SocketAddr) -> Result<LinkProxy> {
        LinkProxy::with_lag(target, Duration::ZERO)
    }

    /// The same on a long way: what goes to `target` arrives `lag` later, what comes back does not.
    pub fn with_lag(target: SocketAddr, lag: Duration) -> Result<LinkProxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        std::thread::Builder::new()
            .name("link-proxy".into())
            .spawn(move || accept_all(&listener, target, lag, &for_thread))?;
        Ok(LinkProxy { address, shared })
    }

    /// Where the mux should dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link until [`LinkProxy::restore`].
    pub fn cut(&self, how: Cut) {
        let mut state = self.shared.state.lock().expect("nobody panics with it");
        state.cut = Some(how);
        if how == Cut::Reset {
            for (a, b) in state.open.drain(..) {
                let _ = a.shutdown(Shutdown::Both);
                let _ = b.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
    }

    /// Lets everything flow again.
    pub fn restore(&self) {
        self.shared.state.lock().expect("nobody panics with it").cut = None;
        self.shared.changed.notify_all();
    }

    /// Connections forwarded so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for LinkProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.cut(Cut::Reset);
        let _ = TcpStream::connect(self.address);
    }
}

fn accept_all(listener: &TcpListener, target: SocketAddr, lag: Duration, shared: &Arc<Shared>) {
    for inbound in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(inbound) = inbound else { continue };
        if shared.state.lock().expect("nobody panics with it").cut == Some(Cut::Reset) {
            continue;
        }
        // A server that is down refuses: so does the proxy, by closing.
        let Ok(outbound) = TcpStream::connect(target) else {
            continue;
        };
        let _ = inbound.set_nodelay(true);
        let _ = outbound.set_nodelay(true);
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let ways = [
            (&inbound, &outbound, lag),
            (&outbound, &inbound, Duration::ZERO),
        ];
        for (from, to, lag) in ways {
            let (from, to) = (from.try_clone(), to.try_clone());
            let shared = shared.clone();
            if let (Ok(from), Ok(to)) = (from, to) {
                std::thread::spawn(move || copy(from, to, lag, &shared));
            }
        }
        shared
            .state
            .lock()
            .expect("nobody panics with it")
            .open
            .push((inbound, outbound));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, lag: Duration, shared: &Shared) {
    let mut buffer = vec![0; 65536];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut state = shared.state.lock().expect("nobody panics with it");
        while state.cut == Some(Cut::Silent) && !shared.stop.load(Ordering::Relaxed) {
            state = shared.changed.wait(state).expect("nobody panics with it");
        }
        let due = Instant::now() + lag;
        while let Some(left) = due.checked_duration_since(Instant::now())
            && !left.is_zero()
            && !shared.stop.load(Ordering::Relaxed)
        {
            let woken = shared.changed.wait_timeout(state, left);
            (state, _) = woken.expect("nobody panics with it");
        }
        drop(state);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
