//! Accounts checked against a mail server (IMAP4rev1, RFC 3501), for sites without LDAP.
//!
//! In: login names and passwords. Out: right or wrong, as the mail server says.
//! Owns: nothing but the health of the servers. Never: sends an empty password; takes what is no clear answer for "wrong"; keeps a password.
//!
//! ```text
//!   check_password ─► servers (which one) ─► dial (socket, TLS) ⇄ dialogue (what is said)
//!   resolve, person ─► Known: who has logged in before
//! ```
//! A mail server can be asked for nobody's existence. So somebody exists once they have logged in ([`Known`]); before, they are
//! nobody: messages to them are answered as those to any unknown address. In a chain such a directory is the last one.

mod config;
mod dial;
mod dialogue;
mod servers;

pub use config::{ImapConfig, LoginForm, ServerConfig, Tls, is_loopback};

use crate::backend::{Abilities, Backend, ExplainStep, Person, Profile};
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};
use dialogue::{Credentials, Verdict};
use servers::MailServers;
use std::sync::Arc;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::ScramHash;

/// Who has logged in before.
pub trait Known: Send + Sync + std::fmt::Debug {
    /// `None`: not known. `Some(true)`: known, and may not log in.
    ///
    /// # Errors
    /// It could not be found out.
    fn disabled(&self, jid: &BareJid) -> Result<Option<bool>, DirectoryError>;

    /// They are known from now on. It is durable when this returns.
    ///
    /// # Errors
    /// It could not be written down.
    fn remember(&self, jid: &BareJid) -> Result<(), DirectoryError>;
}

/// See the module.
#[derive(Debug)]
pub struct ImapDirectory {
    name: String,
    login: LoginForm,
    servers: MailServers,
    known: Arc<dyn Known>,
}

impl ImapDirectory {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The CA's certificates are of no use.
    pub fn new(config: &ImapConfig, known: Arc<dyn Known>) -> Result<Self, String> {
        Ok(ImapDirectory {
            name: config.name.clone(),
            login: config.login,
            servers: MailServers::new(config)?,
            known,
        })
    }

    fn known(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        Ok(self.known.disabled(jid)?.map(|disabled| Person {
            jid: jid.clone(),
            disabled,
            reference: format!("mail account {}", self.mail_name(jid)),
            profile: Profile::default(),
        }))
    }

    /// The name a mail server is told: of the prepared address, so that one mailbox is one account.
    fn mail_name<'j>(&self, jid: &'j BareJid) -> &'j str {
        match self.login {
            LoginForm::Localpart => jid.localpart().unwrap_or_default(),
            LoginForm::Address => jid.as_str(),
        }
    }

    /// The verdict of a server, and its name.
    fn ask(
        &self,
        jid: &BareJid,
        password: &str,
    ) -> Result<(PasswordAnswer, String), DirectoryError> {
        let Some(credentials) = Credentials::new(self.mail_name(jid), password) else {
            return Ok((PasswordAnswer::Wrong, "nobody".to_owned()));
        };
        let (verdict, server) = self.servers.ask(&credentials)?;
        let answer = match verdict {
            Verdict::Right => PasswordAnswer::Right(jid.clone()),
            Verdict::Disabled => PasswordAnswer::Disabled(jid.clone()),
            _ => PasswordAnswer::Wrong,
        };
        Ok((answer, server))
    }
}

impl Backend for ImapDirectory {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            password: true,
            ..Abilities::default()
        }
    }

    fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError> {
        login.account().map_or(Ok(None), |jid| self.known(&jid))
    }

    fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        self.known(jid)
    }

    fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
        // A read of our own store. If that fails, whoever may wait asks again and gets the error.
        self.known(jid).ok()
    }

    fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError> {
        // What can be no address is nobody's here, whatever it is to the mail server.
        let Some(jid) = login.account() else {
            return Ok(PasswordAnswer::Wrong);
        };
        let (answer, _) = self.ask(&jid, password)?;
        if let PasswordAnswer::Right(jid) = &answer {
            match self.known.disabled(jid)? {
                Some(true) => return Ok(PasswordAnswer::Disabled(jid.clone())),
                Some(false) => {}
                None => {
                    self.known.remember(jid)?;
                    tracing::info!(
                        account = jid.as_str(),
                        directory = self.name,
                        "a first log-in: the account is there from now on"
                    );
                }
            }
        }
        Ok(answer)
    }

    fn scram_keys(&self, _: &LoginName, _: ScramHash) -> Result<KeysAnswer, DirectoryError> {
        Ok(KeysAnswer::None)
    }

    fn servers(&self) -> Vec<(String, bool)> {
        self.servers.states()
    }

    fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        let step = |what: &str, answer: String| ExplainStep::new(what, answer);
        let mut steps: Vec<ExplainStep> = self
            .servers
            .examine()
            .into_iter()
            .map(|(server, answer)| step(&format!("mail server {server}"), answer))
            .collect();
        let Some(jid) = login.account() else {
            steps.push(step(
                "account",
                format!("the login name {login} can be none"),
            ));
            return steps;
        };
        steps.push(step("mail name", self.mail_name(&jid).to_owned()));
        let known = match self.known.disabled(&jid) {
            Ok(Some(true)) => "known, disabled".to_owned(),
            Ok(Some(false)) => "known".to_owned(),
            Ok(None) => "has never logged in".to_owned(),
            Err(error) => error.to_string(),
        };
        steps.push(step("account", format!("{}: {known}", jid.as_str())));
        if let Some(password) = password {
            let (answer, good) = match self.ask(&jid, password) {
                Ok((PasswordAnswer::Right(_), server)) => (format!("right, says {server}"), true),
                Ok((PasswordAnswer::Disabled(_) | PasswordAnswer::Expired(_), server)) => {
                    (format!("no longer good, says {server}"), false)
                }
                Ok((PasswordAnswer::Wrong, server)) => (format!("wrong, says {server}"), false),
                Err(error) => (error.to_string(), false),
            };
            steps.push(step("password", answer).failing(!good));
        }
        steps
    }
}

#[cfg(test)]
#[path = "imap/tests.rs"]
mod tests;
