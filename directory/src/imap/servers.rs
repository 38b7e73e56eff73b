//! The mail servers of a directory, asked one after the other.
//!
//! In: credentials. Out: a verdict, or why there is none.
//! Never: lets one person's odd mailbox keep everybody out; asks more of them at a time than it may.

use super::config::{ImapConfig, ServerConfig, Tls};
use super::dial::{Dialer, Outcome};
use super::dialogue::{Credentials, Dialogue, Verdict};
use crate::DirectoryError;
use crate::servers::{ATTEMPTS_MAX, Permits, Servers, Words};
use std::sync::Arc;
use std::time::{Duration, Instant};

static WORDS: Words = Words {
    thread: "imap-try",
    one_fails: "a mail server does not answer; another one is asked",
    all_fail: "no mail server answers: who is online stays, log-ins fail for now",
    answers: "the mail server answers again",
};

/// See the module.
#[derive(Debug)]
pub(super) struct MailServers {
    servers: Arc<Servers>,
    prober: Arc<Prober>,
    timeout: Duration,
    permits: Permits,
}

/// What a server is tried with, also by a thread beside.
#[derive(Debug)]
struct Prober {
    configs: Vec<ServerConfig>,
    dialer: Dialer,
    timeout: Duration,
}

impl Prober {
    /// Whether a server could be asked now; without anybody's password.
    fn probe(&self, server: usize) -> Result<(), String> {
        let server = &self.configs[server];
        let dialogue = Dialogue::probe(server.tls == Tls::StartTls);
        let deadline = Instant::now() + self.timeout;
        match self.dialer.converse(server, dialogue, deadline).verdict {
            Verdict::Broken(why) => Err(why),
            _ => Ok(()),
        }
    }
}

impl MailServers {
    /// # Errors
    /// The CA's certificates are of no use.
    pub(super) fn new(config: &ImapConfig) -> Result<Self, String> {
        let names = config.servers.iter().map(ServerConfig::to_string);
        Ok(MailServers {
            servers: Servers::new(&config.name, names, &WORDS),
            prober: Arc::new(Prober {
                configs: config.servers.clone(),
                dialer: Dialer::new(config)?,
                timeout: config.timeout,
            }),
            timeout: config.timeout,
            permits: Permits::new(config.connections_max, config.timeout),
        })
    }

    /// Asks whether a password is right: `Right`, `Wrong` or `Disabled`. The second of the answer is which server has said so.
    ///
    /// # Errors
    /// No server has answered the question.
    pub(super) fn ask(
        &self,
        credentials: &Credentials,
    ) -> Result<(Verdict, String), DirectoryError> {
        let Some(_permit) = self.permits.take() else {
            return Err(self.servers.unavailable("all connections to it are busy"));
        };
        // A second server gets its time too; a person waits no longer than for two.
        let last_attempt = Instant::now() + self.timeout;
        let mut tried: Vec<usize> = Vec::new();
        let mut why: Option<String> = None;
        while tried.len() < ATTEMPTS_MAX {
            let began = Instant::now();
            if why.is_some() && began > last_attempt + Duration::from_millis(100) {
                break;
            }
            let prober = self.prober.clone();
            let probe = move |server| prober.probe(server);
            let server = match self.servers.choose(began, &tried, probe) {
                Ok(server) => server,
                Err(reason) => {
                    why.get_or_insert(reason);
                    break;
                }
            };
            tried.push(server);
            let to = &self.prober.configs[server];
            let dialogue = Dialogue::new(credentials.clone(), to.tls == Tls::StartTls);
            let until = began + self.timeout;
            let Outcome { verdict, asked } = self.prober.dialer.converse(to, dialogue, until);
            let reason = match verdict {
                Verdict::Right | Verdict::Wrong | Verdict::Disabled => {
                    self.servers.answered(server, began);
                    return Ok((verdict, to.to_string()));
                }
                Verdict::Ready => "it was not asked".to_owned(),
                Verdict::NotNow(reason) => {
                    self.servers.answered(server, began);
                    reason
                }
                Verdict::Broken(reason) => {
                    // Once it has the name, what goes wrong may be that person's mailbox. If there is no other server, avoiding
                    // this one helps nobody.
                    if !asked || self.servers.has_other(server) {
                        self.servers.failed(server, began, &reason);
                    }
                    reason
                }
            };
            why = Some(format!("{to}: {reason}"));
        }
        Err(self
            .servers
            .unavailable(why.unwrap_or_else(|| "it has no servers".to_owned())))
    }

    /// Each server, and whether it is up.
    pub(super) fn states(&self) -> Vec<(String, bool)> {
        self.servers.states()
    }

    /// Whether each server could be asked now: for an administrator.
    pub(super) fn examine(&self) -> Vec<(String, String)> {
        let one = |(server, config): (usize, &ServerConfig)| {
            let answer = match self.prober.probe(server) {
                Err(why) => why,
                Ok(()) => "it can be asked".to_owned(),
            };
            (config.to_string(), answer)
        };
        self.prober.configs.iter().enumerate().map(one).collect()
    }
}
