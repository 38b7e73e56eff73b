//! Starts and stops the real processes.
//!
//! A [`Site`] is what `imadmin init` made in a temporary directory, and the processes that run from
//! it. It kills what it started, by process id, when it is dropped, also by a panic, and a guard
//! process does the same if the test process itself is killed. Logs go to files; after a panic the
//! ends of all of them are printed.

use crate::client::{Account, Client, Endpoint, Transport};
use crate::ports::PortBlock;
use crate::proxy::LinkProxy;
use crate::wait;
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How long a process may take to get ready (two busy cores, a dozen sites at once).
pub const START_PATIENCE: Duration = Duration::from_secs(60);

/// The binary `name` beside the running test, or in `ISTHMUS_BIN_DIR`.
pub fn binary(name: &str) -> PathBuf {
    let dir = match std::env::var_os("ISTHMUS_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = std::env::current_exe().expect("a running test has a path");
            let deps = test
                .parent()
                .expect("test executables lie in target/PROFILE/deps");
            deps.parent().expect("as above").to_owned()
        }
    };
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --workspace --bins` comes before the tests",
        path.display()
    );
    path
}

/// What makes a process live in another time: `+3d`, or `@2001-01-01 00:00:00` (faketime(1), `-f`). Its monotonic clock is right.
/// Not by the program of that name: it stays as the parent of what it runs, and both leave files in /dev/shm when they are killed.
pub fn other_time(time: &str) -> Result<Vec<(&'static str, OsString)>> {
    let library = std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|path| path.exists())
        .context("libfaketime is not there: tests/install.sh installs it")?;
    Ok(vec![
        ("LD_PRELOAD", library.into()),
        ("FAKETIME", time.into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ])
}

/// One running process, killed when dropped.
pub struct Proc {
    name: String,
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Proc {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Proc> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        // Reads until this process is gone, then kills what it left behind.
        let guard = Command::new("sh")
            .args(["-c", "read _ || kill -9 \"$0\" 2>/dev/null"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the guard")?;
        Ok(Proc {
            name: name.into(),
            child,
            guard,
            log: log.into(),
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What libfaketime leaves of a process that is killed (see `other_time`); the next one of this number would stumble over it.
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = fs::remove_file(format!("/dev/shm/{name}{}", self.pid()));
        }
    }

    /// Sends SIGTERM and waits for the end; `Err` if it does not come.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        run(Command::new("kill").arg(self.pid().to_string()))?;
        wait::until(START_PATIENCE, || self.child.try_wait().ok().flatten())
            .with_context(|| format!("{} does not end on SIGTERM", self.name))
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .and_then(|v| v.trim().trim_end_matches("kB").trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            eprintln!(
                "--- last lines of {} ---\n{}",
                self.name,
                lines[from..].join("\n")
            );
        }
    }
}

/// Runs a command to its end; an exit code other than 0 is an error that shows the output.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// What to set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// XMPP domain.
    pub domain: String,
    /// `init --embedded`.
    pub embedded: bool,
    /// `init --plaintext`.
    pub plaintext: bool,
    /// `init --listen`; loopback if `None`.
    pub listen: Option<String>,
    /// Whether the link of the first mux goes through a [`LinkProxy`].
    pub proxied: bool,
    /// More arguments of `init`.
    pub init: Vec<String>,
    /// Replacements in the written `imserver.toml` and `mux.toml`, before the start.
    pub edits: Vec<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            domain: "localhost".into(),
            embedded: false,
            plaintext: true,
            listen: None,
            proxied: false,
            init: Vec::new(),
            edits: Vec::new(),
        }
    }
}

/// A set-up and its processes.
pub struct Site {
    // Processes first: they are dropped, that is killed, before the directory goes.
    server: Option<Proc>,
    mux: Option<Proc>,
    second_mux: Option<SecondMux>,
    proxy: Option<LinkProxy>,
    ports: PortBlock,
    plan: Plan,
    env: Vec<(String, OsString)>,
    dir: tempfile::TempDir,
}

/// The other mux, with listeners of its own.
struct SecondMux {
    process: Option<Proc>,
    dir: PathBuf,
    ports: PortBlock,
}

impl Site {
    /// Writes the configuration; starts nothing.
    pub fn init(plan: &Plan) -> Result<Site> {
        let dir = tempfile::Builder::new().prefix("isthmus-").tempdir()?;
        let ports = PortBlock::reserve()?;
        let mut command = Command::new(binary("imadmin"));
        command
            .arg("init")
            .arg("--dir")
            .arg(dir.path().join("site"));
        command.args(["--domain", &plan.domain]);
        command.args(["--port-offset", &ports.offset().to_string()]);
        if plan.embedded {
            command.arg("--embedded");
        }
        if plan.plaintext {
            command.arg("--plaintext");
        }
        if let Some(address) = &plan.listen {
            command.args(["--listen", address]);
        }
        command.args(&plan.init);
        run(&mut command)?;
        let mut site = Site {
            server: None,
            mux: None,
            second_mux: None,
            proxy: None,
            ports,
            plan: plan.clone(),
            env: Vec::new(),
            dir,
        };
        if plan.proxied {
            let proxy = LinkProxy::start(site.address(15230))?;
            let (from, to) = (site.address(15230).to_string(), proxy.address().to_string());
            site.edit("mux.toml", &from, &to)?;
            site.proxy = Some(proxy);
        }
        for (from, to) in &plan.edits {
            site.edit_somewhere(from, to)?;
        }
        Ok(site)
    }

    /// Writes the configuration, starts everything, adds accounts, and waits until clients can log in.
    pub fn start(plan: &Plan, accounts: &[Account]) -> Result<Site> {
        let mut site = Site::init(plan)?;
        site.start_server()?;
        if !plan.embedded {
            site.start_mux()?;
        }
        site.add_accounts(accounts)?;
        site.await_clients()?;
        Ok(site)
    }

    /// An environment variable for the processes started from now on.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Processes started from now on live in another time: `+3d`, as `faketime` writes it. Their monotonic clocks are right.
    pub fn shift_clock(&mut self, offset: &str) -> Result<()> {
        for (name, value) in other_time(offset)? {
            self.env(name, value);
        }
        Ok(())
    }

    /// The directory that `imadmin init` filled.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    /// A path for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// 127.0.0.1 with the port that has `base` as its default.
    pub fn address(&self, base: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, base + self.ports.offset()))
    }

    /// The offset given to `init`.
    pub fn port_offset(&self) -> u16 {
        self.ports.offset()
    }

    /// How to reach the first mux, or the embedded one.
    pub fn endpoint(&self, transport: Transport) -> Endpoint {
        Endpoint {
            domain: self.plan.domain.clone(),
            starttls: self.address(5222),
            direct: self.address(5223),
            ws: self.address(5280),
            wss: self.address(5443),
            component: self.address(5347),
            transport,
            tls: None,
            identity: None,
            from: None,
        }
    }

    /// How to reach the second mux.
    pub fn second_endpoint(&self, transport: Transport) -> Endpoint {
        let second = self.second_mux.as_ref().expect("a second mux was set up");
        let port =
            |base: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, base + second.ports.offset()));
        Endpoint {
            starttls: port(5222),
            direct: port(5223),
            ws: port(5280),
            wss: port(5443),
            component: port(5347),
            ..self.endpoint(transport)
        }
    }

    /// Replaces text in one configuration file; an error if it is not there.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        edit(&self.path().join(file), from, to)
    }

    /// Sets a key of a configuration file, in its section, whether it is there already or not.
    ///
    /// `section` is written as in the file, `[limits]` for example; an empty one is the top of the file.
    pub fn set(&self, file: &str, section: &str, key: &str, value: &str) -> Result<()> {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let begin = if section.is_empty() {
            0
        } else if let Some(at) = lines.iter().position(|l| l.trim() == section) {
            at + 1
        } else {
            lines.push(section.to_owned());
            lines.len()
        };
        let end = lines[begin..]
            .iter()
            .position(|l| l.trim_start().starts_with('['))
            .map_or(lines.len(), |n| begin + n);
        lines_without(&mut lines, begin, end, key);
        lines.insert(begin, format!("{key} = {value}"));
        fs::write(path, lines.join("\n") + "\n")?;
        Ok(())
    }

    /// Tells the server of another mux, as `imadmin cert mux` asks the operator to.
    pub fn allow_mux(&self, name: &str) -> Result<()> {
        let path = self.path().join("imserver.toml");
        let before = fs::read_to_string(&path)?;
        let entry = format!("\n[[mux]]\nname = \"{name}\"\nkinds = [\"c2s\"]\n");
        fs::write(path, before + &entry)?;
        Ok(())
    }

    fn edit_somewhere(&self, from: &str, to: &str) -> Result<()> {
        let done = ["imserver.toml", "mux.toml"]
            .iter()
            .filter(|file| self.path().join(file).exists() && self.edit(file, from, to).is_ok())
            .count();
        ensure!(done > 0, "no configuration file contains {from}");
        Ok(())
    }

    /// The link proxy, if the plan asked for one.
    pub fn proxy(&self) -> &LinkProxy {
        self.proxy.as_ref().expect("the plan asked for a proxy")
    }

    /// The running server.
    pub fn server(&mut self) -> &mut Proc {
        self.server.as_mut().expect("the server was started")
    }

    /// The running first mux.
    pub fn mux(&mut self) -> &mut Proc {
        self.mux.as_mut().expect("the mux was started")
    }

    /// The running second mux.
    pub fn second_mux(&mut self) -> &mut Proc {
        let second = self.second_mux.as_mut().expect("a second mux was set up");
        second.process.as_mut().expect("the second mux was started")
    }

    fn start_process(&self, program: &str, config: &Path, log: &str) -> Result<Proc> {
        let mut command = Command::new(binary(program));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // "From any working directory": one where nothing of ours lies.
        command.arg("--config").arg(config).current_dir("/");
        command.env("RUST_BACKTRACE", "1");
        Proc::start(
            log,
            &mut command,
            &self.dir.path().join(format!("{log}.log")),
        )
    }

    /// Starts `imserver` and waits until it answers `imadmin`.
    pub fn start_server(&mut self) -> Result<()> {
        self.server =
            Some(self.start_process("imserver", &self.path().join("imserver.toml"), "imserver")?);
        self.await_admin()
    }

    /// Starts `imserver` and waits for nothing.
    pub fn start_server_only(&mut self) -> Result<()> {
        self.server =
            Some(self.start_process("imserver", &self.path().join("imserver.toml"), "imserver")?);
        Ok(())
    }

    /// Lets the server read its configuration again (SIGHUP), and waits until it has.
    pub fn reload(&mut self) -> Result<()> {
        let done = |log: String| log.matches("reload: in force").count();
        let before = done(self.server().log());
        run(Command::new("kill").args(["-HUP", &self.server().pid().to_string()]))?;
        wait::until(START_PATIENCE, || {
            (done(self.server().log()) > before).then_some(())
        })
        .context("the server did not take the new configuration")
    }

    /// `kill -9` on the server.
    pub fn kill_server(&mut self) {
        self.server().kill();
    }

    /// Starts the first mux.
    pub fn start_mux(&mut self) -> Result<()> {
        self.mux = Some(self.start_process("mux", &self.path().join("mux.toml"), "mux")?);
        Ok(())
    }

    /// `kill -9` on the first mux.
    pub fn kill_mux(&mut self) {
        self.mux().kill();
    }

    /// Writes what a second mux needs (`imadmin cert mux`), with listeners on ports of its own.
    pub fn init_second_mux(&mut self, name: &str) -> Result<()> {
        let dir = self.dir.path().join(name);
        let mut command = Command::new(binary("imadmin"));
        command
            .args(["cert", "mux", name, "--dir"])
            .arg(self.path())
            .arg("--out")
            .arg(&dir);
        run(&mut command)?;
        self.allow_mux(name)?;
        let ports = PortBlock::reserve()?;
        let config = dir.join("mux.toml");
        for base in [5222, 5223, 5280, 5443, 15234] {
            let (from, to) = (base + self.ports.offset(), base + ports.offset());
            edit(&config, &format!(":{from}\""), &format!(":{to}\""))
                .with_context(|| format!("port {base} of the second mux"))?;
        }
        self.second_mux = Some(SecondMux {
            process: None,
            dir,
            ports,
        });
        Ok(())
    }

    /// Writes what a copy of the first mux needs: its name and certificate, and listeners on ports of its own.
    pub fn init_twin(&mut self) -> Result<()> {
        let dir = self.dir.path().join("twin");
        run(Command::new("cp").arg("-a").arg(self.path()).arg(&dir))?;
        let ports = PortBlock::reserve()?;
        for base in [5222, 5223, 5280, 5443, 15234] {
            let (from, to) = (base + self.ports.offset(), base + ports.offset());
            edit(
                &dir.join("mux.toml"),
                &format!(":{from}\""),
                &format!(":{to}\""),
            )
            .with_context(|| format!("port {base} of the twin"))?;
        }
        self.second_mux = Some(SecondMux {
            process: None,
            dir,
            ports,
        });
        Ok(())
    }

    /// Starts the second mux and waits for nothing.
    pub fn start_second_mux_only(&mut self) -> Result<()> {
        let second = self.second_mux.as_ref().expect("a second mux was set up");
        let process = self.start_process("mux", &second.dir.join("mux.toml"), "second-mux")?;
        self.second_mux.as_mut().expect("as above").process = Some(process);
        Ok(())
    }

    /// Starts the second mux and waits until clients can log in there.
    pub fn start_second_mux(&mut self) -> Result<()> {
        self.start_second_mux_only()?;
        self.await_endpoint(&self.second_endpoint(Transport::StartTls))
    }

    /// An `imadmin` command against this site.
    pub fn imadmin<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary("imadmin"));
        command
            .arg("--config")
            .arg(self.path().join("admin.toml"))
            .args(args)
            .current_dir("/");
        command
    }

    /// Runs an `imadmin` command with `--json` and returns what it printed.
    pub fn imadmin_json<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<serde_json::Value> {
        let output = run(self.imadmin(["--json"]).args(args))?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Adds accounts by `imadmin user import`.
    pub fn add_accounts(&self, accounts: &[Account]) -> Result<()> {
        if accounts.is_empty() {
            return Ok(());
        }
        let file = self.scratch("accounts.txt");
        let lines: String = accounts
            .iter()
            .map(|a| format!("{}@{} {}\n", a.user, self.plan.domain, a.password))
            .collect();
        fs::write(&file, lines)?;
        run(self.imadmin(["user", "import"]).arg(&file)).map(drop)
    }

    /// Waits until `imadmin status` succeeds.
    pub fn await_admin(&mut self) -> Result<()> {
        let mut last = None;
        let found = wait::until(START_PATIENCE, || {
            if !self.server().is_running() {
                return Some(Err(anyhow::anyhow!(
                    "imserver ended:\n{}",
                    self.server().log()
                )));
            }
            match run(&mut self.imadmin(["status"])) {
                Ok(_) => Some(Ok(())),
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        });
        match found {
            Some(outcome) => outcome,
            None => bail!(
                "imserver does not get ready: {last:?}\n{}",
                self.server().log()
            ),
        }
    }

    /// Waits until the first mux (or the embedded one) serves clients.
    pub fn await_clients(&mut self) -> Result<()> {
        self.await_endpoint(&self.endpoint(Transport::StartTls))
    }

    fn await_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let mut last = None;
        wait::until(START_PATIENCE, || match greet(endpoint) {
            Ok(()) => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        })
        .with_context(|| format!("clients are not served at {}: {last:?}", endpoint.starttls))
    }

    /// Logs in with a resource of the server's choice.
    pub fn login(&self, transport: Transport, account: &Account) -> Result<Client> {
        Client::login(&self.endpoint(transport), account, None)
    }

    /// GETs a path from a metrics listener (15233 imserver, 15234 mux); returns status line and body.
    pub fn http_get(&self, base: u16, path: &str) -> Result<(String, String)> {
        let mut tcp = TcpStream::connect(self.address(base))?;
        tcp.set_read_timeout(Some(wait::PATIENCE))?;
        write!(
            tcp,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok((head.lines().next().unwrap_or_default().into(), body.into()))
    }
}

/// Takes away the lines of a section that set `key`.
fn lines_without(lines: &mut Vec<String>, begin: usize, end: usize, key: &str) {
    let mut at = begin;
    let mut end = end;
    while at < end {
        let sets = lines[at].split('=').next().map(str::trim) == Some(key);
        if sets {
            lines.remove(at);
            end -= 1;
        } else {
            at += 1;
        }
    }
}

/// Opens a stream without TLS and expects a stream header.
fn greet(endpoint: &Endpoint) -> Result<()> {
    let plain = Endpoint {
        transport: Transport::Plain,
        ..endpoint.clone()
    };
    let mut client = Client::dial(&plain)?;
    client.patience = Duration::from_secs(2);
    client.open_stream()
}

/// Replaces text in a file; an error if it is not there.
pub fn edit(path: &Path, from: &str, to: &str) -> Result<()> {
    let before = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    ensure!(
        before.contains(from),
        "{} does not contain {from}",
        path.display()
    );
    fs::write(path, before.replace(from, to))?;
    Ok(())
}
