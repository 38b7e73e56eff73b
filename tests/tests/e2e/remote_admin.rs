//! `imadmin` from another host (a network namespace), while every mux is down.

use super::recovery::Namespace;
use isthmus_tests::client::{Account, Client, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, binary, edit, run};
use isthmus_tests::wait;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const INDEX: u8 = 42;

struct Remote<'a> {
    namespace: &'a Namespace,
    config: &'a Path,
}

impl Remote<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command(binary("imadmin"));
        command.arg("--config").arg(self.config).args(args);
        command
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = run(&mut self.command(args)).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }
}

#[test]
fn everything_works_from_another_host_with_every_mux_down() {
    let namespace = Namespace::new(INDEX).unwrap();
    let everywhere = Plan {
        listen: Some("0.0.0.0".into()),
        ..Plan::default()
    };
    let mut site = Site::init(&everywhere).unwrap();
    let kit = site.scratch("kit");
    let mut cert = Command::new(binary("imadmin"));
    cert.args(["cert", "admin", "alice", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(&kit);
    run(&mut cert).unwrap();
    let config = kit.join("admin.toml");
    let port = site.address(15232).port();
    edit(
        &config,
        &format!("127.0.0.1:{port}"),
        &format!("{}:{port}", namespace.host_address()),
    )
    .unwrap();
    site.start_server().unwrap();
    let remote = Remote {
        namespace: &namespace,
        config: &config,
    };

    let status = remote.ok(&["status"]);
    assert!(!status.trim().is_empty());

    let added = remote.with_input(
        &["user", "add", "romeo@localhost", "--password-stdin"],
        "first password\n",
    );
    assert!(
        added.status.success(),
        "{}",
        String::from_utf8_lossy(&added.stderr)
    );
    let again = remote.with_input(
        &["user", "add", "romeo@localhost", "--password-stdin"],
        "x\n",
    );
    assert!(!again.status.success(), "an account was added twice");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("exists") && !said.contains("panicked"),
        "{said}"
    );

    let file = site.scratch("people.txt");
    let people: String = (0..1000)
        .map(|n| format!("person{n}@localhost password{n}\n"))
        .collect();
    std::fs::write(&file, people).unwrap();
    remote.ok(&["user", "import", file.to_str().unwrap()]);
    let list = remote.ok(&["user", "list"]);
    for jid in [
        "romeo@localhost",
        "person0@localhost",
        "person999@localhost",
    ] {
        assert!(list.contains(jid), "{jid} is not listed");
    }
    assert!(
        remote
            .ok(&["user", "show", "romeo@localhost"])
            .contains("romeo@localhost")
    );
    let json: serde_json::Value =
        serde_json::from_str(&remote.ok(&["--json", "user", "list"])).unwrap();
    assert!(json.to_string().contains("person500@localhost"));

    let changed = remote.with_input(
        &["user", "passwd", "romeo@localhost", "--password-stdin"],
        "second password\n",
    );
    assert!(
        changed.status.success(),
        "{}",
        String::from_utf8_lossy(&changed.stderr)
    );
    remote.ok(&["user", "del", "person1@localhost"]);
    assert!(!remote.ok(&["user", "list"]).contains("person1@localhost"));
    assert!(
        !remote
            .command(&["user", "show", "person1@localhost"])
            .output()
            .unwrap()
            .status
            .success()
    );
    remote.ok(&["session", "list"]);
    remote.ok(&["mux", "list"]);

    // With the mux up: sessions are listed and kicked, passwords are those that were set.
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    let old = Account {
        user: "romeo".into(),
        password: "first password".into(),
    };
    assert!(site.login(Transport::Plain, &old).is_err());
    let new = Account {
        user: "romeo".into(),
        password: "second password".into(),
    };
    let endpoint = site.endpoint(Transport::Plain);
    let plain = Sasl::Mechanism("PLAIN".into());
    let mut romeo =
        isthmus_tests::client::Client::login_with(&endpoint, &new, Some("balcony"), &plain)
            .unwrap();
    assert!(
        remote
            .ok(&["session", "list"])
            .contains("romeo@localhost/balcony")
    );
    remote.ok(&["session", "kick", "romeo@localhost/balcony"]);
    romeo.until_closed().unwrap();
    assert!(
        !remote
            .ok(&["session", "list"])
            .contains("romeo@localhost/balcony")
    );
}

/// No mux can speak for an administrator: its certificate opens nothing on the admin port.
#[test]
fn a_mux_certificate_is_no_administrator() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.start_server().unwrap();
    let kit = site.scratch("kit");
    let mut cert = Command::new(binary("imadmin"));
    cert.args(["cert", "mux", "mallory", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(&kit);
    run(&mut cert).unwrap();
    let mut admin = Command::new(binary("imadmin"));
    admin
        .args(["cert", "admin", "alice", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(site.scratch("alice"));
    run(&mut admin).unwrap();
    // The administrator's files, with the mux's certificate and key in the place of theirs.
    let config = site.scratch("alice").join("admin.toml");
    let of = |dir: &Path, what: &str| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                std::fs::read_to_string(p).is_ok_and(|t| t.contains(what)) && !p.ends_with("ca.pem")
            })
            .collect()
    };
    for what in ["PRIVATE KEY", "BEGIN CERTIFICATE"] {
        let theirs = of(&kit, what);
        for place in of(&site.scratch("alice"), what) {
            std::fs::copy(&theirs[0], place).unwrap();
        }
    }
    let mut command = Command::new(binary("imadmin"));
    command.arg("--config").arg(&config).arg("status");
    let output = command.output().unwrap();
    assert!(
        !output.status.success(),
        "a mux certificate administers: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Writes `admin.toml` for an account in the place of a certificate.
fn account_config(site: &Site, user: &str) -> std::path::PathBuf {
    let path = site.path().join(format!("{user}.toml"));
    let text = format!(
        "server = \"main\"\naddress = \"{}\"\nca = \"link/ca.pem\"\nuser = \"{user}\"\n",
        site.address(15232)
    );
    std::fs::write(&path, text).unwrap();
    path
}

pub fn by_account(site: &Site, user: &str, password: &str, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary("imadmin"));
    command
        .arg("--config")
        .arg(account_config(site, user))
        .args(args)
        .env("ISTHMUS_ADMIN_PASSWORD", password)
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

const ADMINISTRATORS: &str = "
[[rule]]
allow = \"admin\"
users = [\"root@localhost\"]
[[rule]]
allow = \"admin-read\"
users = [\"reader@localhost\"]
[[rule]]
allow = \"admin-users\"
users = [\"carol@localhost\", \"gone@localhost\"]
[[rule]]
allow = \"send-alert\"
users = [\"crier@localhost\"]
[[rule]]
deny = \"login\"
users = [\"gone@localhost\"]
[[rule]]
allow = [\"login\", \"save-settings\"]
everyone = true
";

#[test]
fn accounts_administer_as_far_as_the_policy_says_and_everything_is_written_down() {
    let names = ["root", "reader", "carol", "gone", "crier", "romeo"];
    let accounts: Vec<Account> = names.iter().map(|n| Account::new(n)).collect();
    let mut site = Site::start(&Plan::default(), &accounts).unwrap();
    std::fs::write(site.path().join("policy.toml"), ADMINISTRATORS).unwrap();
    site.reload().unwrap();
    let right = "";
    // Exit codes: 0 done, 1 refused, 4 not allowed.
    for (user, password, command, code, says) in [
        ("root", right, &["status"][..], 0, "sessions"),
        ("root", right, &["mux", "list"], 0, "mux1"),
        (
            "root",
            right,
            &["user", "del", "nobody@localhost"],
            1,
            "no such account",
        ),
        ("reader", right, &["user", "list"], 0, "carol@localhost"),
        (
            "reader",
            right,
            &["user", "del", "romeo@localhost"],
            4,
            "admin or admin-users",
        ),
        (
            "carol",
            right,
            &["user", "show", "romeo@localhost"],
            0,
            "romeo",
        ),
        (
            "carol",
            right,
            &["session", "kick", "romeo@localhost"],
            1,
            "no such session",
        ),
        ("carol", right, &["mux", "list"], 4, "admin or admin-read"),
        ("crier", right, &["alert", "all", "Fire"], 0, "sent to"),
        ("crier", right, &["user", "list"], 4, "admin or admin-"),
        ("carol", right, &["alert", "all", "Fire"], 4, "send-alert"),
        (
            "romeo",
            right,
            &["status"],
            4,
            "no right of an administrator",
        ),
        (
            "gone",
            right,
            &["status"],
            4,
            "no right of an administrator",
        ),
        ("root", "wrong", &["status"], 4, "wrong account or password"),
        ("nobody", right, &["status"], 4, "wrong account or password"),
    ] {
        let own = Account::new(user).password;
        let password = if password.is_empty() { &own } else { password };
        let (found, said) = by_account(&site, &format!("{user}@localhost"), password, command);
        assert_eq!(found, code, "{user} {command:?}: {said}");
        assert!(said.contains(says), "{user} {command:?}: {said}");
    }
    // A certificate that is listed may do what is listed.
    let listed = "\n[[administrator]]\nname = \"admin\"\nrights = [\"admin-read\"]\n";
    let file = site.path().join("imserver.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{listed}")).unwrap();
    site.reload().unwrap();
    let refused = site
        .imadmin(["user", "del", "romeo@localhost"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(4));
    run(&mut site.imadmin(["user", "show", "romeo@localhost"])).unwrap();

    let log = std::fs::read_to_string(site.path().join("data/audit.log")).unwrap();
    assert!(!log.contains("-password"), "a password is in the audit log");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let has = |who: &str, command: &str, result: &str| {
        lines
            .iter()
            .any(|l| l["who"] == who && l["command"] == command && l["result"] == result)
    };
    for (who, command, result) in [
        ("certificate:admin", "user import", "begun"),
        ("certificate:admin", "user import", "done"),
        ("certificate:admin", "user del", "forbidden"),
        ("account:root@localhost", "status", "done"),
        ("account:root@localhost", "user del", "begun"),
        ("account:root@localhost", "user del", "not-found"),
        ("account:reader@localhost", "user del", "forbidden"),
    ] {
        assert!(
            has(who, command, result),
            "{who} {command} {result}:\n{log}"
        );
    }
    assert!(!has("account:reader@localhost", "user del", "begun"));
}

/// The log cannot be written: what would change something is refused, what only looks is answered.
#[test]
fn without_an_audit_log_nothing_is_changed() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.start_server().unwrap();
    site.set("imserver.toml", "[admin]", "audit_log", "\"/dev/full\"")
        .unwrap();
    site.reload().unwrap();
    let mut add = site.imadmin(["user", "add", "romeo@localhost", "--password-stdin"]);
    let mut child = add
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was done"), "{said}");
    let list = run(&mut site.imadmin(["user", "list"])).unwrap();
    assert!(!String::from_utf8_lossy(&list.stdout).contains("romeo"));
}

/// Guessing ends soon, whether the account is there or not.
#[test]
fn guessing_an_administrators_password_is_bounded() {
    let carol = Account::new("carol");
    let mut site = Site::start(&Plan::default(), std::slice::from_ref(&carol)).unwrap();
    std::fs::write(site.path().join("policy.toml"), ADMINISTRATORS).unwrap();
    site.reload().unwrap();
    let mut said = String::new();
    for _ in 0..11 {
        said = by_account(&site, "nobody@localhost", "guess", &["status"]).1;
    }
    assert!(said.contains("too many failed attempts"), "{said}");
    let (code, said) = by_account(&site, "carol@localhost", &carol.password, &["status"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("too many failed attempts"), "{said}");
    // Certificates are not concerned.
    run(&mut site.imadmin(["status"])).unwrap();
}

/// What an administrator does to people: disable, enable, alert; and to the server: reload, with what has changed or what is wrong.
#[test]
fn disabling_alerts_and_reloads() {
    let accounts: Vec<Account> = ["romeo", "juliet"]
        .iter()
        .map(|n| Account::new(n))
        .collect();
    let site = Site::start(&Plan::default(), &accounts).unwrap();
    let text = |args: &[&str]| {
        let output = site.imadmin(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    };
    let mut romeo = site.login(Transport::Plain, &accounts[0]).unwrap();
    let mut juliet = site.login(Transport::Plain, &accounts[1]).unwrap();
    romeo.available().unwrap();
    juliet
        .send("<presence><priority>-1</priority></presence>")
        .unwrap();
    juliet.ping().unwrap();

    // Juliet's resource is negative: it gets no headline.
    let (code, said) = text(&["alert", "all", "Save your work", "--subject", "Power cut"]);
    assert_eq!((code, said.trim()), (0, "sent to 1 resource"));
    let headline = romeo
        .element_where("the headline", |e| e.name == "message")
        .unwrap();
    assert_eq!(headline.attr("type"), Some("headline"));
    assert_eq!(headline.attr("from"), Some("localhost"));
    assert_eq!(headline.attr("to"), Some(&*romeo.jid));
    assert_eq!(headline.child("subject").unwrap().text(), "Power cut");
    assert_eq!(headline.body().as_deref(), Some("Save your work"));
    assert_eq!(
        text(&["alert", "juliet@localhost", "x"]).1.trim(),
        "sent to nobody: none of them is online and available"
    );
    assert_eq!(text(&["alert", "staff", "x"]).0, 1);

    let (code, said) = text(&["user", "disable", "romeo@localhost"]);
    assert_eq!(code, 0, "{said}");
    let condition = romeo.until_closed().unwrap();
    assert_eq!(condition.as_deref(), Some("not-authorized"));
    let error = site
        .login(Transport::Plain, &accounts[0])
        .map(drop)
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("account-disabled"),
        "{error:#}"
    );
    juliet.ping().unwrap();
    assert_eq!(text(&["user", "enable", "romeo@localhost"]).0, 0);
    site.login(Transport::Plain, &accounts[0]).unwrap();
    assert_eq!(text(&["user", "disable", "nobody@localhost"]).0, 1);

    let (_, said) = text(&["policy", "test", "romeo@localhost", "login"]);
    assert!(said.contains("yes"), "{said}");
    let (_, said) = text(&["config", "show"]);
    let key = |key: &str| {
        said.lines()
            .find(|l| l.trim_start().starts_with(key))
            .unwrap()
            .to_owned()
    };
    assert!(key("limits.login_attempts_max").contains("default"));
    assert!(key("name").contains("imserver.toml:"));
    assert_eq!(
        text(&["config", "reload"]),
        (
            0,
            "nothing has changed in the configuration; files that it names (passwords, certificates) were read again\n".into()
        )
    );
    site.set("imserver.toml", "[limits]", "login_attempts_max", "5")
        .unwrap();
    let (code, said) = text(&["config", "reload"]);
    assert_eq!(
        (code, said.trim()),
        (0, "limits.login_attempts_max: (default) -> 5")
    );
    site.set("imserver.toml", "[limits]", "login_attempts_max", "1")
        .unwrap();
    site.set("imserver.toml", "[limits]", "lgin_s", "1")
        .unwrap();
    let (code, said) = text(&["config", "reload"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("login_attempts_max") && said.contains("lgin_s"),
        "{said}"
    );
    let (_, said) = text(&["config", "show"]);
    let row = said
        .lines()
        .find(|l| l.contains("limits.login_attempts_max"));
    assert!(
        row.unwrap().contains(" 5 "),
        "the old configuration stays: {said}"
    );
}

/// The same commands in any client (XEP-0133), with the form in the middle, a listing before, and a line of the audit log after.
#[test]
fn an_administrator_adds_a_user_from_a_client() {
    let root = Account::new("root");
    let mut site = Site::start(&Plan::default(), std::slice::from_ref(&root)).unwrap();
    std::fs::write(site.path().join("policy.toml"), ADMINISTRATORS).unwrap();
    site.reload().unwrap();
    let mut client = site.login(Transport::Plain, &root).unwrap();
    let node = "http://jabber.org/protocol/commands";
    let query = format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{node}'/>");
    let items = client
        .request("get", "items", Some("localhost"), &query)
        .unwrap();
    let items = items.child("query").unwrap().clone();
    let add = "http://jabber.org/protocol/admin#add-user";
    assert!(
        items.elements().any(|i| i.attr("node") == Some(add)),
        "{items}"
    );

    let command = |attributes: &str, form: &str| {
        format!("<command xmlns='{node}' node='{add}' {attributes}>{form}</command>")
    };
    let first = command("action='execute'", "");
    let form = client
        .request("set", "form", Some("localhost"), &first)
        .unwrap();
    let session = form
        .child("command")
        .unwrap()
        .attr("sessionid")
        .unwrap()
        .to_owned();
    let field =
        |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let filled = format!(
        "<x xmlns='jabber:x:data' type='submit'>{}{}{}</x>",
        field("accountjid", "newcomer@localhost"),
        field("password", "newcomer-password"),
        field("password-verify", "newcomer-password"),
    );
    let second = command(&format!("sessionid='{session}'"), &filled);
    let done = client
        .request("set", "done", Some("localhost"), &second)
        .unwrap();
    let done = done.child("command").unwrap();
    assert_eq!(done.attr("status"), Some("completed"), "{done}");
    site.login(Transport::Plain, &Account::new("newcomer"))
        .unwrap();
    let log = std::fs::read_to_string(site.path().join("data/audit.log")).unwrap();
    assert!(log.contains("newcomer@localhost") && !log.contains("newcomer-password"));
    assert!(
        log.contains(&format!("\"from\":\"{}\"", client.jid)),
        "{log}"
    );
}

const HIGH: &str = "
[[rule]]
allow = \"admin\"
users = [\"root@localhost\", \"ghost@localhost\"]
[[rule]]
allow = \"admin-users\"
users = [\"carol@localhost\"]
[[rule]]
allow = [\"login\", \"save-settings\", \"register\"]
everyone = true
";

/// An administrator of accounts does not become one of everything, and neither does a stranger.
#[test]
fn nobody_gets_the_rights_of_an_administrator_by_way_of_the_account() {
    let names = ["root", "carol", "romeo"];
    let accounts: Vec<Account> = names.iter().map(|n| Account::new(n)).collect();
    let mut site = Site::start(&Plan::default(), &accounts).unwrap();
    std::fs::write(site.path().join("policy.toml"), HIGH).unwrap();
    site.set("imserver.toml", "[[domain]]", "registration", "true")
        .unwrap();
    site.reload().unwrap();
    for args in [
        &["user", "passwd", "root@localhost", "--password-stdin"][..],
        &["user", "add", "ghost@localhost", "--password-stdin"],
        &["user", "disable", "root@localhost"],
        &["user", "del", "root@localhost"],
        &["session", "kick", "root@localhost"],
    ] {
        let mut command = Command::new(binary("imadmin"));
        command
            .arg("--config")
            .arg(account_config(&site, "carol@localhost"))
            .args(args)
            .env("ISTHMUS_ADMIN_PASSWORD", "carol-password")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"stolen-password\n").unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{args:?}: {said}");
        assert!(said.contains("the right admin"), "{args:?}: {said}");
    }
    let register = |name: &str| {
        let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
        let payload = format!(
            "<query xmlns='jabber:iq:register'><username>{name}</username><password>stolen-password</password></query>"
        );
        let answer = client.request("set", "r", None, &payload).unwrap();
        let error = answer.child("error");
        error.and_then(|e| e.elements().next().map(|c| c.name.clone()))
    };
    assert_eq!(register("ghost").as_deref(), Some("conflict"));
    assert_eq!(register("newcomer"), None);
}

/// Whoever came in with the password of an account is out when the account is disabled, also on a link that is up.
#[test]
fn an_administrator_who_is_disabled_goes_no_further() {
    let accounts = [Account::new("root"), Account::new("carol")];
    let mut site = Site::start(&Plan::default(), &accounts).unwrap();
    std::fs::write(site.path().join("policy.toml"), HIGH).unwrap();
    site.reload().unwrap();
    let mut command = Command::new(binary("imadmin"));
    command
        .arg("--config")
        .arg(account_config(&site, "carol@localhost"))
        .args(["user", "import", "-"])
        .env("ISTHMUS_ADMIN_PASSWORD", "carol-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A file of any length goes in several requests; lines that cannot be loaded cost nothing.
    input
        .write_all("nobody@elsewhere x\n".repeat(1_200).as_bytes())
        .unwrap();
    input.flush().unwrap();
    let audit = site.path().join("data/audit.log");
    wait::until_true(wait::PATIENCE, "the first request", || {
        let log = std::fs::read_to_string(&audit).unwrap_or_default();
        let by_carol = |l: &&str| l.contains("account:carol@localhost") && l.contains("\"done\"");
        log.lines().filter(by_carol).count() >= 2
    });
    run(&mut site.imadmin(["user", "disable", "carol@localhost"])).unwrap();
    input
        .write_all("late@localhost password\n".repeat(900).as_bytes())
        .unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    let late = run(&mut site.imadmin(["user", "show", "late@localhost"]));
    assert!(late.is_err(), "it was done all the same");
}

/// ^Z and `fg` while the server thinks: signal(7) has the kernel interrupt a socket that has a timeout, without any handler.
#[test]
fn imadmin_may_be_stopped_and_continued_while_it_waits() {
    let mut site = Site::start(&Plan::default(), &[]).unwrap();
    let server = site.server().pid();
    // No TLS: its library forgives a signal during the handshake, and that is where it would wait.
    let config = site.scratch("local.toml");
    std::fs::write(
        &config,
        format!(
            "server = \"main\"\naddress = \"unix:{}/run/admin.sock\"\n",
            site.path().display()
        ),
    )
    .unwrap();
    let signal = |what: &str, pid: u32| run(Command::new("kill").args([what, &pid.to_string()]));
    let state = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        text.split(") ").nth(1).and_then(|s| s.chars().next())
    };
    signal("-STOP", server).unwrap();
    let child = Command::new(binary("imadmin"))
        .arg("--config")
        .arg(&config)
        .arg("status")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The kernel has taken its connection; it sleeps until there is an answer.
    let waits = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", child.id())).ok()?;
        let names = files.flatten().flat_map(|f| std::fs::read_link(f.path()));
        let connected = names
            .into_iter()
            .any(|n| n.to_string_lossy().starts_with("socket:"));
        (connected && state(child.id()) == Some('S')).then_some(())
    };
    wait::until(wait::PATIENCE, waits).expect("it waits");
    signal("-STOP", child.id()).unwrap();
    wait::until(wait::PATIENCE, || {
        (state(child.id()) == Some('T')).then_some(())
    })
    .expect("it stops");
    signal("-CONT", child.id()).unwrap();
    signal("-CONT", server).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
