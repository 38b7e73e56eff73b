//! ejabberd from Debian: Mnesia, SCRAM storage, the modules that match what Isthmus does. It runs without Erlang
//! distribution (no node name, no epmd), so it can meet no other Erlang node of the machine.

use super::{
    DOMAIN, Running, Server, Setup, answers, certificate, debian_version, free_port, rows,
    temporary, wait_until,
};
use crate::client::PASSWORD;
use anyhow::{Context as _, ensure};
use isthmus_tests::slapd::{PEOPLE, SERVICE, SERVICE_PASSWORD};
use std::fs;
use std::process::Command;

/// Its tables in SQLite.
const SCHEMA: &str = "/usr/share/ejabberd/sql/lite.sql";

/// Sets it up and starts it.
pub fn start(setup: &Setup) -> anyhow::Result<Server> {
    let dir = temporary(setup, "ejabberd")?;
    let path = dir.path().display();
    let (plain, direct) = (free_port()?, free_port()?);
    let certificate = certificate(dir.path())?;
    let sql = setup.archive && setup.archive_in_sql;
    let mut mam = String::new();
    if setup.archive {
        mam.push_str("  mod_mam:\n    default: always\n    assume_mam_usage: true\n    request_activates_archiving: false\n");
    }
    let mut database = String::new();
    if sql {
        mam.push_str("    db_type: sql\n");
        database = format!("sql_type: sqlite\nsql_database: \"{path}/archive.db\"\n");
    }
    if setup.stored > 0 {
        ensure!(sql, "only an archive in SQLite can be filled before");
        let schema = fs::read_to_string(SCHEMA).with_context(|| SCHEMA.to_owned())?;
        rows::ejabberd(
            &dir.path().join("archive.db"),
            &rows::of_table(&schema, "archive")?,
            setup,
        )?;
    }
    let auth = match &setup.ldap {
        None => "auth_method: [internal]\nauth_password_format: scram".to_owned(),
        Some(ldap) => format!(
            "auth_method: [ldap]\nldap_servers: [\"{}\"]\nldap_port: {}\nldap_encrypt: none\nldap_rootdn: \"{SERVICE}\"\nldap_password: \"{SERVICE_PASSWORD}\"\nldap_base: \"{PEOPLE}\"\nldap_uids:\n  uid: \"%u\"",
            ldap.address.ip(),
            ldap.address.port()
        ),
    };
    let config = dir.path().join("ejabberd.yml");
    fs::write(
        &config,
        format!(
            r#"hosts:
  - {DOMAIN}
loglevel: warning
certfiles:
  - {}
acme:
  auto: false
{auth}
{database}disable_sasl_mechanisms: ["digest-md5", "X-OAUTH2"]
listen:
  -
    port: {}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    backlog: 1024
    shaper: none
    starttls: true
  -
    port: {}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    backlog: 1024
    shaper: none
    tls: true
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: 10000
modules:
  mod_disco: {{}}
  mod_offline:
    access_max_user_messages: max_user_offline_messages
  mod_ping: {{}}
  mod_roster:
    versioning: true
  mod_stream_mgmt: {{}}
  mod_vcard: {{}}
  mod_version: {{}}
{mam}"#,
            certificate.display(),
            plain.port(),
            direct.port()
        ),
    )?;
    let (seed, seeded) = (dir.path().join("seed.erl"), dir.path().join("seeded"));
    fs::write(&seed, seed_script(setup, &seeded.display().to_string()))?;
    let log = dir.path().join("console.log");
    let mut command = Command::new("erl");
    // As Debian's ejabberdctl calls it: kernel poll, process limit.
    command.args(["-noinput", "-noshell", "+K", "true", "+P", "250000"]);
    command.args([
        "-mnesia",
        "dir",
        &format!("\"{path}/spool\""),
        "-ejabberd",
        "quiet",
        "true",
        "-s",
        "ejabberd",
    ]);
    command.args(["-eval", &format!("case file:script(\"{}\") of {{ok, _}} -> ok; Wrong -> io:format(\"~p~n\", [Wrong]), halt(1) end.", seed.display())]);
    command
        .env("HOME", dir.path())
        .env("ERL_LIBS", libraries())
        .env("EJABBERD_CONFIG_PATH", &config)
        .env("EJABBERD_LOG_PATH", dir.path().join("ejabberd.log"))
        .env("ERL_CRASH_DUMP", dir.path().join("crash.dump"))
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .env("ERL_MAX_PORTS", "65536")
        .env("ERL_MAX_ETS_TABLES", "1400");
    let mut running = Running::start("ejabberd", &mut command, setup.core, &log)?;
    wait_until(&mut running, &log, || seeded.exists() && answers(plain))?;
    Ok(Server {
        name: "ejabberd",
        version: debian_version("ejabberd"),
        plain,
        direct,
        children: vec![running],
        _dir: dir,
    })
}

/// Where Debian keeps Erlang libraries beside OTP.
fn libraries() -> String {
    let multiarch =
        super::run(Command::new("dpkg").args(["--print-architecture"])).unwrap_or_default();
    let triple = match multiarch.trim() {
        "arm64" => "aarch64-linux-gnu",
        _ => "x86_64-linux-gnu",
    };
    format!("/usr/lib/{triple}")
}

/// One account is registered in the usual way; its record is then copied for all others, so that all share salt and keys
/// and 20,000 of them take a second.
fn seed_script(setup: &Setup, seeded: &str) -> String {
    if setup.ldap.is_some() {
        return format!("ok = file:write_file(\"{seeded}\", <<\"done\">>).\n");
    }
    let (accounts, half) = (setup.accounts, setup.contacts / 2);
    format!(
        r#"
Host = <<"{DOMAIN}">>,
ok = ejabberd_auth:try_register(<<"u0">>, Host, <<"{PASSWORD}">>),
[Template] = mnesia:dirty_read(passwd, {{<<"u0">>, Host}}),
Name = fun(N) -> iolist_to_binary(["u", integer_to_list(N)]) end,
mnesia:async_dirty(fun() ->
    [mnesia:write(setelement(2, Template, {{Name(N), Host}})) || N <- lists:seq(1, {accounts} - 1)],
    [begin
        User = Name(N), Contact = Name((N + D + {accounts}) rem {accounts}), Address = {{Contact, Host, <<>>}},
        mnesia:write({{roster, {{User, Host, Address}}, {{User, Host}}, Address, <<>>, both, none, [], <<>>, []}})
     end || N <- lists:seq(0, {accounts} - 1), D <- lists:seq(-{half}, {half}), D =/= 0]
end),
ok = file:write_file("{seeded}", <<"done">>).
"#
    )
}
