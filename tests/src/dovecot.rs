//! A real Dovecot (IMAP) with a directory of its own, on free ports, with TLS by a CA of its own.
//!
//! Mailboxes are lines of a password file: localpart and password, good with any domain behind the localpart too.

use crate::client::Account;
use crate::harness::{Proc, run};
use crate::ports::PortBlock;
use crate::wait;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It ends, and its directory goes, when this is dropped.
pub struct Dovecot {
    process: Option<Proc>,
    ports: PortBlock,
    dir: tempfile::TempDir,
}

impl Dovecot {
    /// Starts a server with these mailboxes.
    pub fn start(mailboxes: &[Account]) -> Result<Dovecot> {
        let dir = tempfile::Builder::new()
            .prefix("isthmus-dovecot-")
            .tempdir()?;
        let mut dovecot = Dovecot {
            process: None,
            ports: PortBlock::reserve()?,
            dir,
        };
        // Its processes have other users, if it is started by root.
        fs::set_permissions(dovecot.dir.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(dovecot.path("mail"))?;
        fs::set_permissions(dovecot.path("mail"), fs::Permissions::from_mode(0o777))?;
        certificates(dovecot.dir.path())?;
        let mut passwd = String::new();
        for mailbox in mailboxes {
            let _ = writeln!(passwd, "{}:{{PLAIN}}{}", mailbox.user, mailbox.password);
        }
        fs::write(dovecot.path("passwd"), passwd)?;
        let config = configuration(&dovecot)?;
        fs::write(dovecot.path("dovecot.conf"), config)?;
        dovecot.restart()?;
        Ok(dovecot)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// IMAP, with STARTTLS, on 127.0.0.1 with a certificate for `localhost`.
    pub fn port(&self) -> u16 {
        5222 + self.ports.offset()
    }

    /// IMAP over TLS.
    pub fn tls_port(&self) -> u16 {
        5223 + self.ports.offset()
    }

    /// Starts it, again if it was killed, and waits until it greets.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(self.path("dovecot.conf"));
        let log = self.path("dovecot.out");
        let process = self
            .process
            .insert(Proc::start("dovecot", &mut command, &log)?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5222 + self.ports.offset()));
        wait::until(START_PATIENCE, || {
            let socket = TcpStream::connect(address).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            let greeted = matches!(socket.peek(&mut [0]), Ok(1));
            (greeted || !process.is_running()).then_some(())
        });
        if process.is_running() {
            return Ok(());
        }
        anyhow::bail!("dovecot does not answer: {}", self.log());
    }

    /// SIGTERM, and waits for the end: its own processes go with it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.terminate();
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("dovecot.out") + &read("dovecot.log")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Name or number of the users it runs as: as root its own users and nobody, else whoever runs the test.
fn configuration(dovecot: &Dovecot) -> Result<String> {
    let id = |flag: &str| -> Result<String> {
        let output = run(Command::new("id").arg(flag))?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let users = if id("-u")? == "0" {
        String::new()
    } else {
        let (user, group) = (id("-un")?, id("-gn")?);
        format!(
            "default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n"
        )
    };
    let (uid, gid) = match id("-u")?.as_str() {
        "0" => ("65534".to_owned(), "65534".to_owned()),
        other => (other.to_owned(), id("-g")?),
    };
    let dir = dovecot.dir.path().display();
    let (port, tls_port) = (dovecot.port(), dovecot.tls_port());
    Ok(format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
protocols = imap
listen = 127.0.0.1
{users}ssl = yes
ssl_cert = <{dir}/server.pem
ssl_key = <{dir}/server.key
disable_plaintext_auth = yes
auth_mechanisms = plain
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:{dir}/mail/%n
passdb {{
  driver = passwd-file
  args = username_format=%Ln {dir}/passwd
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={dir}/mail/%n allow_all_users=yes
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
"
    ))
}

/// A CA and a certificate for `localhost`.
fn certificates(dir: &Path) -> Result<()> {
    let openssl = |args: &str| {
        run(Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir))
        .context("openssl")
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 3650 -subj /CN=mail-ca"
    ))?;
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=localhost"
    ))?;
    fs::write(dir.join("ext"), "subjectAltName=DNS:localhost\n")?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out server.pem",
    )?;
    Ok(())
}
