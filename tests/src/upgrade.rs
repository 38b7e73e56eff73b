//! The client's half of keys of other hashes (XEP-0480), with a log-in by SASL 2: the account is known by one hash, and makes those of
//! another itself.

use crate::client::{Account, Client};
use crate::scram::{Binding, Exchange, Hash};
use crate::xml::{NS_STREAM, Xml};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// How a client wants it: it is known by the keys of `known`, and makes those of `wanted`.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade {
    /// Of the mechanism it logs in by.
    pub known: Hash,
    /// Of which it makes keys.
    pub wanted: Hash,
}

impl Upgrade {
    /// From the keys that another server's accounts have.
    pub fn from_sha_1(wanted: Hash) -> Upgrade {
        Upgrade {
            known: Hash::Sha1,
            wanted,
        }
    }

    /// What the task is called.
    pub fn task(&self) -> String {
        format!("UPGR-{}", self.wanted.mechanism())
    }

    /// Logs in, binds a resource of the server's choice, and wants the keys; what is said when the password is proved.
    pub fn log_in(&self, client: &mut Client, account: &Account) -> Result<Xml> {
        let mut exchange = Exchange::new(self.known, &account.user, None, Binding::No);
        let initial = BASE64.encode(exchange.first());
        client.send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{}'>\
             <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>{}</upgrade>\
             <initial-response>{initial}</initial-response><bind xmlns='urn:xmpp:bind:0'/></authenticate>",
            self.known.mechanism(),
            self.task()
        ))?;
        let challenge = client.element()?;
        let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
        let last = exchange.last(&first, &account.password)?;
        client.send(&format!(
            "<response xmlns='urn:xmpp:sasl:2'>{}</response>",
            BASE64.encode(last)
        ))?;
        let said = client.element()?;
        let data = said
            .child("additional-data")
            .context("no proof of the server's")?;
        exchange.verify(&String::from_utf8(BASE64.decode(data.text())?)?)?;
        Ok(said)
    }

    /// Goes on with the task, to its end; what is said then.
    pub fn make_keys(&self, client: &mut Client, password: &str) -> Result<Xml> {
        let task = self.task();
        client.send(&format!("<next xmlns='urn:xmpp:sasl:2' task='{task}'/>"))?;
        let data = client.element()?;
        let salt = data.child("salt").context("no salt")?;
        let iterations = salt.attr("iterations").context("no iterations")?.parse()?;
        let bytes = BASE64.decode(salt.text())?;
        let salted = self.wanted.salted_password(password, &bytes, iterations);
        client.send(&format!(
            "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>{}</hash></task-data>",
            BASE64.encode(salted)
        ))?;
        client.element()
    }

    /// Both, up to the features of who is logged in.
    pub fn connect(&self, client: &mut Client, account: &Account) -> Result<()> {
        let said = self.log_in(client, account)?;
        let task = said.child("tasks").and_then(|tasks| tasks.child("task"));
        let task = task.with_context(|| format!("no task: {said}"))?;
        ensure!(task.text() == self.task(), "another task: {said}");
        let said = self.make_keys(client, &account.password)?;
        ensure!(said.name == "success", "not logged in: {said}");
        let jid = said.child("authorization-identifier");
        client.jid = jid.context("nobody is logged in")?.text();
        let features = client.element()?;
        ensure!(
            features.is(NS_STREAM, "features"),
            "no features: {features}"
        );
        client.features = features;
        Ok(())
    }
}
