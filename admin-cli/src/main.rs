//! `imadmin`: sets a server up and administers it from any host. It formats what the server answers and decides nothing.

mod certs;
mod config;
mod init;
mod link;
mod output;
mod users;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use link::{Connection, LinkError};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Administration of Isthmus.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the server cannot be reached, 4 not allowed (wrong password, or
/// the right is lacking).
#[derive(Parser)]
#[command(name = "imadmin", version)]
struct Cli {
    /// How to reach the server (default: $ISTHMUS_ADMIN, ./admin.toml, ./var/admin.toml, /etc/isthmus/admin.toml).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Read the administrator's own password from the first line of standard input, where admin.toml names a `user`
    /// (else: $ISTHMUS_ADMIN_PASSWORD, or it is asked for).
    #[arg(long, global = true)]
    admin_password_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a complete set-up into a new directory.
    Init(init::InitArgs),
    /// Write what another host needs: `cert mux|peer|admin NAME`.
    Cert(init::CertArgs),
    /// Accounts.
    #[command(subcommand)]
    User(User),
    /// Sessions of clients.
    #[command(subcommand)]
    Session(Session),
    /// Tokens that clients log in with instead of a password.
    #[command(subcommand)]
    Token(Token),
    /// Muxes.
    #[command(subcommand)]
    Mux(Mux),
    /// Numbers of the running server.
    Status,
    /// Send a headline to who is available: everybody, one account, or the members of a group. It is kept for nobody who is away.
    Alert {
        /// `all`, name@domain, or a group of the directory: `name`, or `directory:name`.
        to: String,
        /// What it says.
        text: String,
        /// Its subject.
        #[arg(long)]
        subject: Option<String>,
    },
    /// The message of the day: everybody gets it once, who is available at once, others when they log in next.
    #[command(subcommand)]
    Motd(Motd),
    /// What people get when they are here for the first time.
    #[command(subcommand)]
    Welcome(Welcome),
    /// Who may do what.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What the directories know.
    #[command(subcommand)]
    Directory(DirectoryCommand),
    /// What is kept of what the directories have said.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// The server's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print what a shell needs to complete this command: `imadmin completions bash > /etc/bash_completion.d/imadmin`.
    Completions {
        /// Which.
        shell: Shell,
    },
    /// Write the manual pages.
    Man {
        /// Where to; it must be there.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// A text and its subject.
#[derive(Args)]
struct Said {
    /// What it says.
    text: String,
    /// Its subject.
    #[arg(long)]
    subject: Option<String>,
}

impl Said {
    fn args(self) -> Value {
        json!({"text": self.text, "subject": self.subject})
    }
}

#[derive(Subcommand)]
enum Motd {
    /// Say something new.
    Set(Said),
    /// Say the same in other words: who has got it does not get it again.
    Edit(Said),
    /// Show it.
    Show,
    /// Say it no more.
    Del,
}

#[derive(Subcommand)]
enum Welcome {
    /// Set it.
    Set(Said),
    /// Show it.
    Show,
    /// Say it no more.
    Del,
}

/// How people are.
#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// May not log in.
    Disabled,
    /// Have a session.
    Online,
    /// Are available, and neither away nor extended away.
    Active,
    /// Are online and not active.
    Idle,
}

/// Shells with completions.
#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Say whether an account has a right, and which line of policy.toml decides.
    Test {
        /// name@domain
        jid: String,
        /// The right, as policy.toml calls it.
        right: String,
    },
}

#[derive(Subcommand)]
enum DirectoryCommand {
    /// Say step by step how a name becomes a verdict: which directory, host, filter and entry, attributes, groups, policy.
    Test {
        /// name@domain
        jid: String,
        /// Also whether this password is right: it is the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Entries, hits and misses of each cache since the start.
    Stats,
    /// Forget what is kept of somebody, or everything.
    Flush {
        /// name@domain
        jid: Option<String>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every key that is in force, and whether a line of the file or the default says so.
    Show,
    /// Read the files again, as on SIGHUP, and say what has changed; or every mistake, and nothing has.
    Reload,
}

#[derive(Args)]
struct Password {
    /// Read the password from standard input (its first line). There is no other way: arguments show in process lists.
    #[arg(long, required = true)]
    password_stdin: bool,
}

#[derive(Subcommand)]
enum User {
    /// Create an account.
    Add {
        /// name@domain
        jid: String,
        #[command(flatten)]
        password: Password,
    },
    /// Create accounts from a file: a line each, an address, a space, and a password or SCRAM secrets.
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
    },
    /// Refuse an account the log-in, and end its sessions.
    Disable {
        /// name@domain
        jid: String,
    },
    /// Let it log in again.
    Enable {
        /// name@domain
        jid: String,
    },
    /// Remove an account and everything stored for it.
    Del {
        /// name@domain
        jid: String,
    },
    /// Change a password.
    Passwd {
        /// name@domain
        jid: String,
        #[command(flatten)]
        password: Password,
    },
    /// List accounts, and people of directories as they were found last.
    List {
        /// Only of this domain.
        #[arg(long)]
        domain: Option<String>,
        /// Only who is so.
        #[arg(long)]
        state: Option<State>,
    },
    /// Say how many there are, by domain, and how they are.
    Count {
        /// Only of this domain.
        #[arg(long)]
        domain: Option<String>,
    },
    /// List the contacts somebody has made.
    Roster {
        /// name@domain
        jid: String,
    },
    /// Show one account.
    Show {
        /// name@domain
        jid: String,
    },
}

#[derive(Subcommand)]
enum Session {
    /// List sessions.
    List {
        /// Only of this account.
        jid: Option<String>,
    },
    /// End the sessions of an account, or one of them.
    Kick {
        /// name@domain or name@domain/resource
        jid: String,
    },
}

#[derive(Subcommand)]
enum Token {
    /// List the clients of an account that have one.
    List {
        /// name@domain
        jid: String,
    },
    /// Make them good for nothing: the clients of an account, or one of them, need the password again.
    Revoke {
        /// name@domain
        jid: String,
        /// Only of this client, as `token list` shows it.
        client: Option<String>,
    },
}

#[derive(Subcommand)]
enum Mux {
    /// List muxes.
    List,
}

/// What ends a run.
#[derive(Debug)]
enum Failure {
    /// Exit code 1.
    Refused(String),
    /// Exit code 2.
    Usage(String),
    /// Exit code 3.
    Unreachable(String),
    /// Exit code 4.
    Forbidden(String),
}

impl From<LinkError> for Failure {
    fn from(e: LinkError) -> Self {
        match e {
            LinkError::Refused { code, text } => match code.as_str() {
                "forbidden" | "not-authorized" | "too-many-attempts" => Failure::Forbidden(text),
                _ => Failure::Refused(text),
            },
            LinkError::Unreachable(text) => Failure::Unreachable(text),
            LinkError::NoPassword(text) => Failure::Usage(text),
        }
    }
}

fn main() -> ExitCode {
    // One provider in the whole process, before anything can ask for one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let (code, text) = match run(cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(text)) => (1, text),
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::Unreachable(text)) => (3, text),
        Err(Failure::Forbidden(text)) => (4, text),
    };
    eprintln!("imadmin: {text}");
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<(), Failure> {
    let json = cli.json;
    let mut asks_password = false;
    let connect = || connect(cli.config.clone(), cli.admin_password_stdin);
    let (command, args) = match cli.command {
        Command::Init(args) => return said(init::init(&args), json),
        Command::Cert(args) => return said(init::cert(&args), json),
        Command::Completions { shell } => return completions(shell),
        Command::Man { dir } => return man(&dir, json),
        Command::User(User::Import { file }) => {
            let mut connection = connect()?;
            return users::import(&mut connection, &file, json);
        }
        Command::User(User::Add { jid, .. }) => ("user add", json!({"jid": jid})),
        Command::User(User::Passwd { jid, .. }) => ("user passwd", json!({"jid": jid})),
        Command::User(User::Disable { jid }) => ("user disable", json!({"jid": jid})),
        Command::User(User::Enable { jid }) => ("user enable", json!({"jid": jid})),
        Command::Alert { to, text, subject } => {
            ("alert", json!({"to": to, "text": text, "subject": subject}))
        }
        Command::Policy(PolicyCommand::Test { jid, right }) => {
            ("policy test", json!({"jid": jid, "right": right}))
        }
        Command::Directory(DirectoryCommand::Test {
            jid,
            password_stdin,
        }) => {
            asks_password = password_stdin;
            ("directory test", json!({"jid": jid}))
        }
        Command::Cache(CacheCommand::Stats) => ("cache stats", json!({})),
        Command::Cache(CacheCommand::Flush { jid }) => ("cache flush", json!({"jid": jid})),
        Command::Config(ConfigCommand::Show) => ("config show", json!({})),
        Command::Config(ConfigCommand::Reload) => ("config reload", json!({})),
        Command::User(User::Del { jid }) => ("user del", json!({"jid": jid})),
        Command::User(User::List { domain, state }) => {
            let state = state.map(|state| match state {
                State::Disabled => "disabled",
                State::Online => "online",
                State::Active => "active",
                State::Idle => "idle",
            });
            ("user list", json!({"domain": domain, "state": state}))
        }
        Command::User(User::Count { domain }) => ("user count", json!({"domain": domain})),
        Command::User(User::Roster { jid }) => ("user roster", json!({"jid": jid})),
        Command::Motd(Motd::Set(said)) => ("motd set", said.args()),
        Command::Motd(Motd::Edit(said)) => ("motd edit", said.args()),
        Command::Motd(Motd::Show) => ("motd show", json!({})),
        Command::Motd(Motd::Del) => ("motd del", json!({})),
        Command::Welcome(Welcome::Set(said)) => ("welcome set", said.args()),
        Command::Welcome(Welcome::Show) => ("welcome show", json!({})),
        Command::Welcome(Welcome::Del) => ("welcome del", json!({})),
        Command::User(User::Show { jid }) => ("user show", json!({"jid": jid})),
        Command::Session(Session::List { jid }) => ("session list", json!({"jid": jid})),
        Command::Session(Session::Kick { jid }) => ("session kick", json!({"jid": jid})),
        Command::Token(Token::List { jid }) => ("token list", json!({"jid": jid})),
        Command::Token(Token::Revoke { jid, client }) => {
            ("token revoke", json!({"jid": jid, "client": client}))
        }
        Command::Mux(Mux::List) => ("mux list", json!({})),
        Command::Status => ("status", json!({})),
    };
    let mut args = args;
    let mut connection = None;
    if asks_password || matches!(command, "user add" | "user passwd") {
        // The administrator's own password is the line before it.
        if cli.admin_password_stdin {
            connection = Some(connect()?);
        }
        args["password"] = json!(password_line("Password of the account")?);
    }
    let mut connection = match connection {
        Some(connection) => connection,
        None => connect()?,
    };
    let answer = all_pages(&mut connection, command, args)?;
    output::print(&answer, json);
    // It has found out what was asked, and that is no.
    match answer.get("failed").and_then(Value::as_str) {
        Some(why) => Err(Failure::Refused(why.to_owned())),
        None => Ok(()),
    }
}

/// What a command without a server has done.
fn said(text: anyhow::Result<String>, json: bool) -> Result<(), Failure> {
    let text = text.map_err(|e| Failure::Refused(format!("{e:#}")))?;
    output::print(&json!({"text": text}), json);
    Ok(())
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "imadmin", &mut script);
    match std::io::stdout().write_all(&script) {
        // Who reads it has enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::Refused(format!("standard output: {e}"))),
    }
}

/// One page for `imadmin`, and one for each command under it.
fn man(dir: &Path, json: bool) -> Result<(), Failure> {
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    let text = written
        .map(|()| format!("manual pages written to {}", dir.display()))
        .map_err(|e| anyhow::anyhow!("{}: {e}", dir.display()));
    said(text, json)
}

fn connect(config: Option<PathBuf>, stdin: bool) -> Result<Connection, Failure> {
    let config = config::find(config).map_err(|e| Failure::Usage(format!("{e:#}")))?;
    let password = |user: &str| own_password(user, stdin).map_err(LinkError::NoPassword);
    Ok(Connection::dial(&config, password)?)
}

/// The administrator's own.
fn own_password(user: &str, stdin: bool) -> Result<String, String> {
    if !stdin && let Ok(password) = std::env::var("ISTHMUS_ADMIN_PASSWORD") {
        return Ok(password);
    }
    if !stdin && !std::io::stdin().is_terminal() {
        return Err(format!(
            "no password for {user}: give --admin-password-stdin or set ISTHMUS_ADMIN_PASSWORD"
        ));
    }
    password_line(&format!("Password of {user}")).map_err(|e| match e {
        Failure::Refused(text)
        | Failure::Usage(text)
        | Failure::Unreachable(text)
        | Failure::Forbidden(text) => text,
    })
}

/// Asks until there is no `next`, and joins the rows.
fn all_pages(
    connection: &mut Connection,
    command: &str,
    mut args: Value,
) -> Result<Value, Failure> {
    let mut answer = connection.ask(command, &args)?;
    while let Some(next) = answer.get("next").cloned() {
        args["after"] = next;
        let page = connection.ask(command, &args)?;
        if let (Some(rows), Some(more)) = (answer["rows"].as_array_mut(), page["rows"].as_array()) {
            rows.extend(more.iter().cloned());
        }
        match page.get("next") {
            Some(next) => answer["next"] = next.clone(),
            None => {
                answer.as_object_mut().map(|o| o.remove("next"));
            }
        }
    }
    Ok(answer)
}

/// A line of standard input, or of the terminal, where it does not show.
fn password_line(prompt: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let line = if stdin.is_terminal() {
        rpassword::prompt_password(format!("{prompt}: "))
    } else {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map(|_| line)
    };
    let line = line.map_err(|e| Failure::Usage(format!("the password cannot be read: {e}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::Usage(
            "the password on standard input is empty".into(),
        ));
    }
    Ok(password.to_owned())
}
