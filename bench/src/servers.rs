//! Servers under test: each is set up in a temporary directory on loopback, started on the core under test, and always
//! stopped. A server installed on the system is never touched.

pub mod ejabberd;
pub mod isthmus;
pub mod prosody;
pub mod rows;

use crate::client::{Entrance, Mechanism, PASSWORD, Target, Transport, Way};
use crate::fleet::check_stop;
use crate::load::Processes;
use crate::{sys, tls};
use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xmpp::scram::{ScramHash, ScramKeys, derive};

/// The domain every server serves.
pub const DOMAIN: &str = "bench.localhost";
/// Salt of all accounts: one PBKDF2 serves all.
pub const SALT: [u8; 16] = *b"isthmus-bench-sa";
/// Iterations of all accounts; servers do not see the difference, clients do it once.
pub const ITERATIONS: u32 = 4096;
/// How long a server may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What a server is to be set up with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Accounts u0, u1, ...
    pub accounts: usize,
    /// Contacts of each, mutual, among the accounts.
    pub contacts: usize,
    /// Messages are kept.
    pub archive: bool,
    /// They are kept in SQLite, as ours are (ejabberd's Mnesia takes the longer for a message the more there are, Prosody's own
    /// files are no archive of many).
    pub archive_in_sql: bool,
    /// Messages stored before the start (those of ejabberd and Prosody in SQLite only).
    pub stored: u64,
    /// Accounts are in this directory, not in the server.
    pub ldap: Option<Ldap>,
    /// The core it runs on.
    pub core: usize,
    /// Where temporary directories are made.
    pub dir: PathBuf,
}

/// Where the accounts are, if they are not the server's own.
#[derive(Clone, Debug)]
pub struct Ldap {
    /// Its address, without TLS.
    pub address: SocketAddr,
    /// Arguments of `imadmin init`.
    pub init_args: Vec<String>,
}

/// A running server.
pub struct Server {
    /// As in the table.
    pub name: &'static str,
    /// Its version, as it says.
    pub version: String,
    plain: SocketAddr,
    direct: SocketAddr,
    children: Vec<Running>,
    // After the children: the directory goes last.
    _dir: tempfile::TempDir,
}

impl Server {
    /// Its processes.
    pub fn processes(&self) -> Processes {
        Processes(
            self.children
                .iter()
                .map(|c| (c.name.to_owned(), c.child.id()))
                .collect(),
        )
    }

    /// How to log in.
    pub fn target(
        &self,
        transport: Transport,
        mechanism: Mechanism,
        entrance: Entrance,
    ) -> anyhow::Result<Target> {
        let direct = transport == Transport::Tls;
        Ok(Target {
            address: if direct { self.direct } else { self.plain },
            domain: DOMAIN.into(),
            transport,
            mechanism,
            way: Way::default(),
            entrance,
            tls: tls::client_config(direct)?,
        })
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self._dir.path()
    }
}

/// A child process that is stopped when this is dropped.
pub struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    /// Starts it on a core; what it says goes to `log`.
    pub fn start(
        name: &'static str,
        command: &mut Command,
        core: usize,
        log: &Path,
    ) -> anyhow::Result<Running> {
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .current_dir("/");
        sys::confine(command, core);
        let child = command.spawn().with_context(|| format!("{name} cannot be started; tests/install.sh --full or bench/install.sh installs what the comparison needs"))?;
        Ok(Running { name, child })
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.child.id();
        if !self.ended() {
            sys::terminate(pid);
            let since = Instant::now();
            while !self.ended() && since.elapsed() < STOP_PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        sys::kill_group(pid);
        let _ = self.child.wait();
    }
}

/// Waits until something true happens, or the process has ended, or patience has.
pub fn wait_until(
    running: &mut Running,
    log: &Path,
    mut done: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let since = Instant::now();
    while !done() {
        check_stop()?;
        if running.ended() || since.elapsed() > START_PATIENCE {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            bail!(
                "{} does not start:\n{}",
                running.name,
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// True once the server at `address` answers a stream header with its features.
pub fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
        );
        stream.write_all(header.as_bytes())?;
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while memchr::memmem::find(&all, b"</stream:features>").is_none() {
            match stream.read(&mut buffer)? {
                0 => return Ok(false),
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(true)
    };
    ask().unwrap_or(false)
}

/// A port nobody listens on just now.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A directory for one server.
pub fn temporary(setup: &Setup, name: &str) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("isthmus-bench-{name}-"))
        .tempdir_in(&setup.dir)
        .with_context(|| format!("no directory can be made in {}", setup.dir.display()))
}

/// The keys of every account.
pub fn keys(hash: ScramHash) -> ScramKeys {
    derive(hash, PASSWORD, &SALT, ITERATIONS).expect("the password is ASCII")
}

/// The contacts of an account: as many before as after it, in a ring.
pub fn contacts(user: usize, setup: &Setup) -> Vec<usize> {
    let all = setup.accounts;
    (1..=setup.contacts / 2)
        .flat_map(|n| [(user + n) % all, (user + all - n % all) % all])
        .filter(|c| *c != user)
        .collect()
}

/// A self-signed certificate for the domain (P-256, as `imadmin init` makes one), in one file with its key.
pub fn certificate(dir: &Path) -> anyhow::Result<PathBuf> {
    let (cert, key, both) = (
        dir.join("cert.pem"),
        dir.join("key.pem"),
        dir.join("both.pem"),
    );
    let subject = format!("/CN={DOMAIN}");
    let names = format!("subjectAltName=DNS:{DOMAIN}");
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-addext",
        &names,
        "-keyout",
    ]);
    command.arg(&key).arg("-out").arg(&cert);
    run(&mut command)?;
    std::fs::write(
        &both,
        [std::fs::read(&cert)?, std::fs::read(&key)?].concat(),
    )?;
    Ok(both)
}

/// Runs a program to its end; its output if it succeeds.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{:?} cannot be run", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The version Debian gives a package.
pub fn debian_version(package: &str) -> String {
    run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))
        .unwrap_or_else(|_| "?".into())
}
