//! Names to addresses, off the event loop.
//!
//! In: host and port. Out: addresses or why not, by a bounded queue and a waker. Owns: its threads, started when
//! the first name is asked for. Never: blocks the loop; looks up SRV records (a Dial to an SRV name is answered as failed).

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;
use proto::frame::Dial;

/// Who asked.
#[derive(Debug)]
pub enum Asker {
    /// The link.
    Link,
    /// A Dial.
    Dial(Dial),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Who asked.
    pub asker: Asker,
    /// What was found.
    pub found: Result<Vec<SocketAddr>, String>,
}

struct Job {
    asker: Asker,
    host: String,
    port: u16,
}

/// Look-ups waiting. Dials in flight are limited to as many by the link.
const JOBS_MAX: usize = proto::limits::DIALS_MAX;
/// A look-up may hang for many seconds; so many may hang before others wait.
const THREADS: usize = 4;

/// See the module.
pub struct Resolver {
    jobs: Sender<Job>,
    waiting: Option<Receiver<Job>>,
    answers: Receiver<Answer>,
    answer: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Resolver {
    /// No thread yet. `waker` is woken for each answer.
    pub fn new(waker: Arc<Waker>) -> Self {
        let (jobs, waiting) = bounded(JOBS_MAX);
        let (answer, answers) = bounded(JOBS_MAX);
        Self {
            jobs,
            waiting: Some(waiting),
            answers,
            answer,
            waker,
        }
    }

    /// Asks. An address needs no look-up: it is returned at once.
    pub fn ask(&mut self, asker: Asker, host: &str, port: u16) -> Option<Answer> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        if let Ok(ip) = literal {
            return Some(Answer {
                asker,
                found: Ok(vec![SocketAddr::new(ip, port)]),
            });
        }
        if let Some(waiting) = self.waiting.take()
            && let Err(error) = self.start(&waiting)
        {
            self.waiting = Some(waiting);
            return Some(Answer {
                asker,
                found: Err(format!("no thread for look-ups: {error}")),
            });
        }
        match self.jobs.try_send(Job {
            asker,
            host: host.to_owned(),
            port,
        }) {
            Ok(()) => None,
            Err(full) => Some(Answer {
                asker: full.into_inner().asker,
                found: Err("too many look-ups at once".into()),
            }),
        }
    }

    fn start(&self, waiting: &Receiver<Job>) -> std::io::Result<()> {
        for n in 0..THREADS {
            let (waiting, answer, waker) =
                (waiting.clone(), self.answer.clone(), self.waker.clone());
            std::thread::Builder::new()
                .name(format!("mux-resolve-{n}"))
                .spawn(move || {
                    for job in waiting {
                        let found = (job.host.as_str(), job.port)
                            .to_socket_addrs()
                            .map(|all| all.collect::<Vec<_>>())
                            .map_err(|e| format!("{} has no address: {e}", job.host));
                        if answer
                            .send(Answer {
                                asker: job.asker,
                                found,
                            })
                            .is_err()
                            || waker.wake().is_err()
                        {
                            return;
                        }
                    }
                })?;
        }
        Ok(())
    }

    /// The next answer.
    pub fn poll(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

/// Splits `host:port` (checked when the configuration was read).
pub fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}
