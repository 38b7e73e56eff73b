//! The client's end of a log-in with Kerberos (SASL GSSAPI): MIT's own programs and library, in processes of their own.
//!
//! Wherever a directory is asked for here, it has a `krb5.conf`, and tickets and replay caches are kept in it.

use crate::client::{Client, Endpoint, NS_SASL};
use crate::harness::run;
use crate::wait;
use crate::xml::Xml;
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a KDC may take to start: it says nowhere that it listens.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Makes a program know the realm of this directory, and no other.
pub fn env<'c>(dir: &Path, command: &'c mut Command) -> &'c mut Command {
    command
        .env("KRB5_CONFIG", dir.join("krb5.conf"))
        .env("KRB5_KDC_PROFILE", dir.join("kdc.conf"))
        .env("KRB5RCACHEDIR", dir)
}

/// A ticket for somebody, in a cache of its own.
pub fn ticket(dir: &Path, name: &str, password: &str) -> Result<PathBuf> {
    let cache = dir.join(format!("cache-{}", name.replace('/', "-")));
    let mut last = None;
    let done = wait::until(START_PATIENCE, || {
        let mut command = Command::new("sh");
        env(dir, &mut command)
            .args(["-c", "echo \"$2\" | kinit -c \"$1\" \"$0\"", name])
            .arg(&cache)
            .arg(password);
        match run(&mut command) {
            Ok(_) => Some(()),
            Err(e) => {
                last = Some(e);
                None
            }
        }
    });
    done.with_context(|| format!("no ticket for {name}: {last:?}"))?;
    Ok(cache)
}

/// Makes the messages of a client.
pub struct Tokens {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Tokens {
    /// Of whoever has the tickets in `cache`, for `service` (`xmpp@HOST`).
    pub fn start(
        dir: &Path,
        cache: &Path,
        service: &str,
        authzid: &str,
        layer: u8,
    ) -> Result<Tokens> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/gssapi_tokens.py");
        let mut command = Command::new("/usr/bin/python3");
        env(dir, &mut command)
            .env("KRB5CCNAME", cache)
            .arg(script)
            .args([service, authzid, &layer.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting python3")?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        Ok(Tokens {
            child,
            input,
            output,
        })
    }

    /// The next message, in base64.
    pub fn message(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the client has given up");
        Ok(line.trim_end().to_owned())
    }

    fn answer(&mut self, challenge: &str) -> Result<String> {
        writeln!(self.input, "{challenge}")?;
        self.message()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first message of an exchange.
pub fn auth(message: &str) -> String {
    let message = if message.is_empty() { "=" } else { message };
    format!("<auth xmlns='{NS_SASL}' mechanism='GSSAPI'>{message}</auth>")
}

/// Goes on until the server says success or failure. Returns that, and every message of the client.
pub fn exchange(client: &mut Client, tokens: &mut Tokens) -> Result<(Xml, Vec<String>)> {
    let mut said = vec![tokens.message()?];
    client.send(&auth(&said[0]))?;
    loop {
        let answer = client.element()?;
        if !answer.is(NS_SASL, "challenge") {
            return Ok((answer, said));
        }
        let message = tokens.answer(&answer.text())?;
        client.send(&format!("<response xmlns='{NS_SASL}'>{message}</response>"))?;
        said.push(message);
    }
}

/// `success`, or why not.
pub fn condition(outcome: &Xml) -> String {
    match outcome.elements().next() {
        Some(condition) => condition.name.clone(),
        None => outcome.name.clone(),
    }
}

/// What becomes of a log-in with these tickets.
pub fn log_in(endpoint: &Endpoint, dir: &Path, cache: &Path) -> Result<String> {
    let mut client = Client::open(endpoint)?;
    let mut tokens = Tokens::start(dir, cache, "xmpp@localhost", "", 1)?;
    let (outcome, _) = exchange(&mut client, &mut tokens)?;
    Ok(condition(&outcome))
}
