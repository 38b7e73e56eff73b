//! `imserver.toml`: the example in `etc/`, every mistake at once with its line, and what a reload changes.

use super::file::*;
use super::*;
use crate::policy::{Right, no_groups};

/// What every configuration here refers to: a certificate with its key, and a policy.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site {
            dir: tempfile::tempdir().expect("a directory"),
        };
        std::fs::create_dir(site.path("link")).expect("a directory");
        let signed = rcgen::generate_simple_self_signed(["main.server.isthmus".to_owned()]);
        let signed = signed.expect("a certificate");
        for (file, pem) in [
            ("ca.pem", signed.cert.pem()),
            ("server.pem", signed.cert.pem()),
            ("server.key", signed.signing_key.serialize_pem()),
        ] {
            site.write(&format!("link/{file}"), &pem);
        }
        site.write("ldap-ca.pem", &signed.cert.pem());
        site.write("ldap.password", "a secret\n");
        site.protect("ldap.password", 0o640);
        site.write("bots.secret", "a third secret\n");
        site.protect("bots.secret", 0o600);
        site.write("turn.secret", "another secret\n");
        site.protect("turn.secret", 0o640);
        site.write(
            "policy.toml",
            "[[rule]]\nallow = \"login\"\neveryone = true\n",
        );
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn protect(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).expect("a mode");
    }

    fn parse(&self, text: &str) -> Result<Config, Mistakes> {
        parse(text, &self.path("imserver.toml"))
    }

    fn good(&self, text: &str) -> Config {
        self.parse(text)
            .unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// Mistakes as `FILE:LINE: KEY: TEXT`, without the directory.
    fn mistakes(&self, text: &str) -> Vec<String> {
        let Err(mistakes) = self.parse(text) else {
            return Vec::new();
        };
        let dir = format!("{}/", self.dir.path().display());
        mistakes
            .to_string()
            .lines()
            .map(|line| line.replace(&dir, ""))
            .collect()
    }
}

/// The least there can be.
const SMALL: &str = r#"
name = "main"
data_dir = "data"
policy = "policy.toml"
[[domain]]
name = "example.org"
[link]
socket = "run/link.sock"
"#;

fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../etc")
        .join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[test]
fn a_small_file_is_enough() {
    let site = Site::new();
    let config = site.good(SMALL);
    assert_eq!(config.name, "main");
    assert_eq!(config.domains, ["example.org"]);
    assert_eq!(config.data_dir, site.path("data"), "relative to the file");
    assert_eq!(config.link.socket, Some(site.path("run/link.sock")));
    assert_eq!(config.link.tls, None, "a socket needs no certificate");
    assert_eq!(config.auth.mechanisms, Mechanism::DEFAULT);
    assert!(!config.auth.plaintext && !config.archive);
    assert_eq!(config.limits, LimitsConfig::default());
    assert!(config.embedded_mux.is_none());
}

/// A section of the example: its name as in brackets (empty for the top), and its lines.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            sections.push((name.trim_start_matches('[').to_owned(), Vec::new()));
        } else {
            sections.last_mut().expect("the top is there").1.push(line);
        }
    }
    sections
}

/// The key a line gives, also when it is commented out with a single `# `.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    key.bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_')
        .then_some(key)
}

/// A key, one entry, and when a change of it takes effect: on its line, or in the comment above it.
#[test]
fn the_example_documents_every_key_and_no_other() {
    let text = example("imserver.toml");
    let known: &[(&str, &[&str])] = &[
        ("", Top::KEYS),
        ("domain", DomainFile::KEYS),
        ("link", LinkFile::KEYS),
        ("mux", MuxFile::KEYS),
        ("admin", AdminFile::KEYS),
        ("administrator", AdministratorFile::KEYS),
        ("metrics", MetricsFile::KEYS),
        ("auth", AuthFile::KEYS),
        ("directory", DirectoryFile::KEYS),
        ("directory_cache", DirectoryCacheFile::KEYS),
        ("search", SearchFile::KEYS),
        ("external_service", ExternalServiceFile::KEYS),
        ("component", ComponentFile::KEYS),
        ("limits", LimitsFile::KEYS),
        ("session", SessionFile::KEYS),
        ("archive", ArchiveFile::KEYS),
        ("shards", ShardsFile::KEYS),
        ("log", LogFile::KEYS),
    ];
    let named: Vec<&str> = known
        .iter()
        .map(|(name, _)| *name)
        .filter(|n| !n.is_empty())
        .collect();
    let all: Vec<&str> = SECTIONS
        .iter()
        .copied()
        .filter(|s| *s != EMBEDDED_MUX)
        .collect();
    assert_eq!(named, all, "a new section belongs into this test");
    let found = sections(&text);
    let site = Site::new();
    let shown = site.good(&all_on(&text)).shown;
    for (section, keys) in known {
        let (_, lines) = found
            .iter()
            .find(|(name, _)| name == section)
            .unwrap_or_else(|| panic!("etc/imserver.toml has no [{section}]"));
        let written: Vec<&str> = lines.iter().filter_map(|line| key_of(line)).collect();
        assert_eq!(
            &written, keys,
            "keys of [{section}], in the order of `config::file`"
        );
        for entry in entries(lines) {
            let line = entry.lines().last().expect("the key's line");
            let key = key_of(line).expect("a key");
            if OF_GSSAPI.contains(&key) {
                assert!(entry.contains("(reload)"), "{entry}");
                continue;
            }
            let dot = if section.is_empty() { "" } else { "." };
            let end = format!("{dot}{key}");
            let (_, shown) = shown
                .iter()
                .find(|(key, _)| match section.is_empty() {
                    true => **key == end,
                    false => key.starts_with(&format!("{section}.")) && key.ends_with(&end),
                })
                .unwrap_or_else(|| panic!("{section}{end} is not read"));
            let marks = (entry.contains("(reload)"), entry.contains("(restart)"));
            let want = (shown.takes == Takes::Reload, shown.takes == Takes::Restart);
            assert_eq!(
                marks, want,
                "[{section}] says when a change takes effect: {entry}"
            );
        }
    }
    assert!(text.contains(&format!("[{EMBEDDED_MUX}]")));
}

/// Keys that must be there with their mechanism, and not without (see `gssapi_wants_a_keytab_and_realms_of_domains_served`).
const OF_GSSAPI: [&str; 2] = ["gssapi_keytab", "gssapi_realms"];

/// The example with the keys that are shown but off.
fn all_on(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let shown = key_of(line).filter(|key| !OF_GSSAPI.contains(key));
        shown.map_or(line, |_| line.trim_start_matches("# "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Each key's line with the comment right above it.
fn entries(lines: &[&str]) -> Vec<String> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    for line in lines {
        if line.is_empty() {
            entry.clear();
            continue;
        }
        entry.push('\n');
        entry.push_str(line);
        if key_of(line).is_some() {
            entries.push(std::mem::take(&mut entry));
        }
    }
    entries
}

#[test]
fn the_example_is_right_and_states_the_defaults() {
    let site = Site::new();
    site.write("policy.toml", &example("policy.toml"));
    let text = example("imserver.toml");
    let config = site.good(&text);
    let small = site.good(SMALL);
    assert_eq!(config.limits, LimitsConfig::default());
    assert_eq!(config.auth, small.auth);
    assert_eq!(config.search, small.search);
    assert_eq!(
        (&config.registration, &small.registration),
        (&vec![], &vec![])
    );
    assert_eq!(config.session, small.session);
    assert_eq!(config.log, small.log);
    assert_eq!(
        (config.archive, config.shards),
        (small.archive, small.shards)
    );
    assert_eq!(config.muxes[0].kinds, [ListenerKind::C2s]);
    assert_eq!(
        (PORT_LINK, PORT_ADMIN, PORT_METRICS),
        (
            config.link.listen[0].port(),
            config.admin.listen[0].port(),
            config.metrics[0].port(),
        )
    );
    // The keys that are shown but off are right too.
    let config = site.good(&all_on(&text));
    assert_eq!(config.link.socket, Some(site.path("run/link.sock")));
    assert_eq!(
        config.muxes[0].domains.as_deref(),
        Some(&["example.org".to_owned()][..])
    );
}

#[test]
fn the_embedded_mux_of_the_example_is_right() {
    let site = Site::new();
    let text = example("imserver.toml");
    let (_, shown) = text
        .split_once("#     [embedded_mux]")
        .expect("it is shown");
    let section: Vec<&str> = shown
        .lines()
        .map(|line| line.trim_start_matches('#').trim_start())
        .collect();
    let config = site.good(&format!("{SMALL}\n[embedded_mux]\n{}", section.join("\n")));
    let mux = config.embedded_mux.expect("it is written");
    assert_eq!(mux.name, "embedded");
    assert_eq!(mux.listeners[0].listen[0].port(), 5222);
}

#[test]
fn the_example_of_a_policy_does_what_it_says() {
    let policy =
        Policy::parse(&example("policy.toml"), Path::new("policy.toml")).expect("it is right");
    for (user, may) in [
        ("alice@example.org", true),
        ("mallory@example.org", false),
        ("alice@example.net", false),
    ] {
        let user = xmpp::jid::BareJid::parse(user).expect("a JID");
        assert_eq!(
            policy.allows(&user, Right::Login, &no_groups),
            may,
            "{user}"
        );
    }
    assert_eq!(policy.forgotten().count(), 0);
    for right in Right::ALL {
        let text = example("policy.toml");
        assert!(
            text.contains(&format!("#   {:?}", right.name())),
            "etc/policy.toml says nothing of {}",
            right.name()
        );
    }
}

/// Sections that are there once, with their keys.
const SINGLE: &[(&str, &[&str])] = &[
    ("", Top::KEYS),
    ("link.", LinkFile::KEYS),
    ("admin.", AdminFile::KEYS),
    ("metrics.", MetricsFile::KEYS),
    ("auth.", AuthFile::KEYS),
    ("directory_cache.", DirectoryCacheFile::KEYS),
    ("search.", SearchFile::KEYS),
    ("limits.", LimitsFile::KEYS),
    ("session.", SessionFile::KEYS),
    ("archive.", ArchiveFile::KEYS),
    ("shards.", ShardsFile::KEYS),
    ("log.", LogFile::KEYS),
];

#[test]
fn what_is_in_force_is_shown_with_its_line_or_as_the_default() {
    let site = Site::new();
    let text = format!("{SMALL}\n[limits]\nlogin_s = 7\n");
    let line = text.lines().count();
    let config = site.good(&text);
    let rows = config.effective();
    let row = |key: &str| {
        let row = rows.iter().find(|r| r.key == key);
        let row = row.unwrap_or_else(|| panic!("{key} is not shown"));
        (row.value.as_str(), row.line)
    };
    assert_eq!(row("limits.login_s"), ("7", Some(line)));
    assert_eq!(row("limits.login_attempts_max"), ("3", None));
    assert_eq!(row("name"), ("\"main\"", Some(2)));
    assert_eq!(row("session.conflict"), ("\"replace\"", None));
    // Every key that may be left out has its default.
    let defaults = config.defaults();
    for (section, keys) in SINGLE {
        for key in keys
            .iter()
            .filter(|k| !["name", "data_dir", "policy"].contains(k) && !OF_GSSAPI.contains(k))
        {
            let key = format!("{section}{key}");
            assert!(
                defaults.iter().any(|(k, _)| *k == key),
                "{key} has no default"
            );
        }
    }
    // A default is shown as one would write it: the example, which states the defaults, shows the same.
    let defaults = site.good(SMALL).defaults();
    let example = site.good(&example("imserver.toml"));
    for written in example.effective() {
        if [
            "limits.",
            "session.",
            "directory_cache.",
            "auth.",
            "search.",
        ]
        .iter()
        .any(|s| written.key.starts_with(s))
        {
            let default = defaults.iter().find(|(k, _)| *k == written.key);
            assert_eq!(
                default.map(|(_, v)| v),
                Some(&written.value),
                "{}",
                written.key
            );
        }
    }
    // What waits for a restart is shown as it is in force.
    let new = text
        .replace("\"main\"", "\"other\"")
        .replace("login_s = 7", "login_s = 8");
    let config = config.reloaded(site.good(&new));
    let value = |key: &str| {
        config
            .effective()
            .into_iter()
            .find(|r| r.key == key)
            .map(|r| r.value)
    };
    assert_eq!(value("name").as_deref(), Some("\"main\""));
    assert_eq!(value("limits.login_s").as_deref(), Some("8"));
}

#[test]
fn a_group_that_nobody_can_be_in_is_a_mistake() {
    let site = Site::new();
    site.write(
        "policy.toml",
        "[[rule]]\nallow = \"login\"\neveryone = true\nexcept_groups = [\"staff\"]\n",
    );
    let found = site.mistakes(SMALL);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("policy.toml:1: rule: ") && found[0].contains("\"staff\""));
}

#[test]
fn every_mistake_is_reported_at_once_with_file_and_line() {
    let site = Site::new();
    site.write(
        "policy.toml",
        "[[rule]]\nallow = \"fly\"\neveryone = true\n\n[[rule]]\nallow = \"login\"\n",
    );
    let text = r#"name = "Main Server"
data_dri = "data"
policy = "policy.toml"
[[domain]]
name = "exa mple"
[link]
listen = ["127.0.0.1:99999"]
ca = "link/none.pem"
cert = "policy.toml"
[[mux]]
kinds = ["c3s"]
domains = "example.net"
[auth]
mechanisms = ["SCRAM-MD5"]
scram_iterations = 1
certificate_mapping = "dn"
[limits]
element_bytes_max = -1
login_s = "soon"
[session]
conflict = "fight"
[log]
format = "xml"
[colours]
red = 1
"#;
    let found = site.mistakes(text);
    let want = [
        ("imserver.toml:1: name: ", "is no name"),
        ("imserver.toml:1: data_dir: ", "is missing"),
        ("imserver.toml:2: data_dri: ", "did you mean `data_dir`?"),
        ("imserver.toml:5: domain.name: ", "is no domain"),
        ("imserver.toml:6: link.key: ", "is missing"),
        ("imserver.toml:7: link.listen: ", "no address with port"),
        ("imserver.toml:8: link.ca: ", "none.pem cannot be read"),
        ("imserver.toml:9: link.cert: ", "holds no certificate"),
        ("imserver.toml:10: mux.name: ", "is missing"),
        ("imserver.toml:11: mux.kinds: ", "no kind of listener"),
        ("imserver.toml:14: auth.mechanisms: ", "no mechanism"),
        (
            "imserver.toml:15: auth.scram_iterations: ",
            "must be from 4096 to 1000000, not 1",
        ),
        (
            "imserver.toml:16: auth.certificate_mapping: ",
            "is no kind of name: \"xmpp_addr\", \"mail\", \"cn\" are",
        ),
        ("imserver.toml:18: limits.element_bytes_max: ", "-1"),
        (
            "imserver.toml:19: limits.login_s: ",
            "a whole number is wanted here, not a string",
        ),
        ("imserver.toml:21: session.conflict: ", "no policy"),
        ("imserver.toml:23: log.format: ", "no format"),
        ("imserver.toml:24: colours: ", "unknown key"),
        ("policy.toml:2: rule.allow: ", "is no right"),
        ("policy.toml:5: rule: ", "for nobody"),
    ];
    for (place, says) in want {
        let hit = found
            .iter()
            .any(|line| line.starts_with(place) && line.contains(says));
        assert!(
            hit,
            "no line begins with {place:?} and has {says:?}:\n{}",
            found.join("\n")
        );
    }
    assert_eq!(found.len(), want.len(), "{}", found.join("\n"));
}

/// What the link may grant bounds what an operator may allow, or no client could speak after log-in.
#[test]
fn an_element_that_the_link_cannot_carry_is_a_mistake() {
    let site = Site::new();
    let most = crate::settings::ELEMENT_BYTES_CEILING;
    let text = |n: usize| format!("{SMALL}[limits]\nelement_bytes_max = {n}\n");
    let found = site.mistakes(&text(most + 1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(&format!(
        "limits.element_bytes_max: must be from 10240 to {most}"
    )));
    let config = site.good(&text(most));
    let settings = crate::settings::Settings {
        element_bytes_max: config.limits.element_bytes_max,
        ..crate::settings::Settings::default()
    };
    assert_eq!(settings.input_window(), proto::limits::INPUT_WINDOW_MAX);
    let documented = format!("At most {most}: what a mux may hold");
    assert!(example("imserver.toml").contains(&documented));
}

#[test]
fn a_socket_takes_the_place_of_no_file() {
    let site = Site::new();
    let long = "s".repeat(120);
    for (keys, says) in [
        (
            "[admin]\nsocket = \"policy.toml\"\n".to_owned(),
            "admin.socket: policy.toml: is there already and is no socket",
        ),
        (
            format!("[admin]\nsocket = \"{long}\"\n"),
            "is too long for a socket",
        ),
    ] {
        let found = site.mistakes(&format!("{SMALL}{keys}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(says), "{found:?}");
    }
    let found = site.mistakes(&format!("{SMALL}[admin]\nsocket = \"run/link.sock\"\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("link.socket: is that of admin.socket"),
        "{found:?}"
    );
}

/// Where it can be checked: GSSAPI is a feature of the build.
#[test]
fn gssapi_wants_a_keytab_and_realms_of_domains_served() {
    let site = Site::new();
    site.write("krb5.keytab", "");
    let built = ::directory::gssapi::BUILT;
    let absent = "imserver.toml:10: auth.mechanisms: GSSAPI is not in this imserver";
    for (keys, mistakes) in [
        ("gssapi_keytab = \"krb5.keytab\"", vec![]),
        ("", vec!["auth.gssapi_keytab: is missing"]),
        (
            "gssapi_keytab = \"none.keytab\"",
            vec!["none.keytab: cannot be read"],
        ),
        (
            "gssapi_keytab = \"krb5.keytab\"\ngssapi_realms = { \"A\" = \"nowhere.example\", \"B\" = \"exa mple\" }",
            vec!["nowhere.example is not among", "\"exa mple\" is no domain"],
        ),
        (
            "gssapi_keytab = \"krb5.keytab\"\ngssapi_realms = {}",
            vec!["auth.gssapi_realms: is empty"],
        ),
    ] {
        let text = format!("{SMALL}[auth]\nmechanisms = [\"GSSAPI\"]\n{keys}\n");
        let found = site.mistakes(&text);
        if found.is_empty() {
            let gssapi = site.good(&text).auth.gssapi.expect("it is configured");
            assert!(gssapi.keytab.is_absolute());
        }
        let text = found.join("\n");
        for mistake in &mistakes {
            assert!(text.contains(mistake), "{keys}: {text}");
        }
        assert_eq!(text.contains(absent), !built, "{keys}: {text}");
        assert_eq!(found.len(), mistakes.len() + usize::from(!built), "{text}");
    }
    // Keys that nothing looks at are no keys.
    let text = format!(
        "{SMALL}[auth]\ngssapi_keytab = \"krb5.keytab\"\ngssapi_realms = {{ \"A\" = \"x.example\" }}\n"
    );
    let found = site.mistakes(&text).join("\n");
    for key in [":10: auth.gssapi_keytab", ":11: auth.gssapi_realms"] {
        let mistake = format!("{key}: is of no use: \"GSSAPI\" is not among");
        assert!(found.contains(&mistake), "{found}");
    }
}

/// One line wrong: one mistake, and it says what would be right.
#[test]
fn one_wrong_line_is_one_mistake() {
    for (line, want) in [
        ("[linc]", "linc: unknown key; did you mean `link`?"),
        (
            "[archive]\nenable = true",
            "archive.enable: unknown key; did you mean `enabled`?",
        ),
        (
            "[archive]\nenabled = \"yes\"",
            "archive.enabled: true or false is wanted here, not a string",
        ),
        (
            "[[domain]]\nname = \"other.example\"\nabuse_addresses = [\"abuse@other.example\"]",
            "domain.abuse_addresses: \"abuse@other.example\" is no URI: mailto:",
        ),
        (
            "[[domain]]\nname = \"other.example\"\nreports_to = [\"admin@nowhere.example\"]",
            "domain.reports_to: \"admin@nowhere.example\" is no account of this server",
        ),
        (
            "[[external_service]]\nkind = \"trun\"\nhost = \"h\"\nport = 1",
            "external_service.kind: \"trun\" is no kind of service: \"stun\", \"stuns\", \"turn\", \"turns\" are; did you mean `turn`?",
        ),
        (
            "[[external_service]]\nkind = \"turn\"\nport = 3478",
            "external_service.host: is missing",
        ),
        (
            "[[external_service]]\nkind = \"stun\"\nhost = \"h\"\nport = 70000",
            "external_service.port: must be from 1 to 65535, not 70000",
        ),
        (
            "[[external_service]]\nkind = \"stun\"\nhost = \"h:1\"\nport = 1",
            "external_service.host: must be a host name or an address, without a port",
        ),
        (
            "[[external_service]]\nkind = \"stun\"\nhost = \"h\"\nport = 1\ntransport = \"sctp\"",
            "external_service.transport: must be \"udp\" or \"tcp\"",
        ),
        (
            "[[external_service]]\nkind = \"stun\"\nhost = \"h\"\nport = 1\ncredentials_s = 60",
            "external_service.credentials_s: is of no use without secret_file",
        ),
        (
            "[[external_service]]\nkind = \"turn\"\nhost = \"h\"\nport = 1\nsecret_file = \"no.secret\"",
            "no.secret cannot be read: ",
        ),
        (
            "[shards]\ncount = 1000",
            "shards.count: must be from 0 to 256, not 1000",
        ),
        (
            "[[domain]]\nname = \"EXAMPLE.org\"",
            "domain.name: example.org is listed twice",
        ),
        (
            "[search]\nresults_max = 0",
            "search.results_max: must be from 1 to 500, not 0",
        ),
        (
            "[[domain]]\nnom = \"a.b\"",
            "domain.nom: unknown key; did you mean `name`?",
        ),
        (
            "[[mux]]\nname = \"m\"\ndomains = [\"a.b\"]",
            "mux.domains: a.b is not among the [[domain]] and [[component]] sections",
        ),
        (
            "[[mux]]\nname = \"m\"\n[[mux]]\nname = \"m\"",
            "mux.name: \"m\" is listed twice",
        ),
        (
            "[mux]\nname = \"m\"",
            "mux: sections [[mux]] are wanted here, not a table",
        ),
        (
            "[auth]\nmechanisms = []",
            "auth.mechanisms: is empty: nobody could log in",
        ),
        (
            "[metrics]\nlisten = [\"1.2.3.4:5\", \"1.2.3.4:5\"]",
            "metrics.listen: 1.2.3.4:5 is already taken by metrics.listen",
        ),
        (
            "[log]\nfilter = \"info,a=loudly\"",
            "log.filter: is no filter",
        ),
    ] {
        let site = Site::new();
        let found = site.mistakes(&format!("{SMALL}{line}\n"));
        assert!(found.iter().any(|f| f.contains(want)), "{line}: {found:?}");
        // `nom` for `name` is also a name that is missing.
        let also = usize::from(line.contains("nom"));
        assert_eq!(found.len(), 1 + also, "{line}: {found:?}");
    }
}

/// What a component may do in other people's names is nothing to be guessed.
#[test]
fn privileges_of_components_are_said_clearly() {
    use crate::privileges::{Access, Presence};
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    site.write("bots.secret", "secret\n");
    let secret = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(site.path("bots.secret"), secret).expect("its mode can be set");
    let text = |keys: &str| {
        format!(
            "{SMALL}[[component]]\ndomain = \"bots.example.org\"\nsecret_file = \"bots.secret\"\n{keys}\n"
        )
    };
    let of = |keys: &str| {
        let mut components = site.good(&text(keys)).components;
        components.remove(0).privileges
    };
    assert_eq!(of(""), Default::default());
    let all = of(
        "rosters = \"both\"\nsend_messages = true\npresence = \"roster\"\niq_get = [\"urn:b\", \"urn:a\"]\niq_set = \"urn:b\"",
    );
    assert_eq!((all.roster, all.roster_pushes), (Access::Both, true));
    assert_eq!((all.message, all.presence), (true, Presence::Roster));
    let iq = [
        ("urn:a".to_owned(), Access::Get),
        ("urn:b".to_owned(), Access::Both),
    ];
    assert_eq!(all.iq, iq);
    assert!(!of("rosters = \"get\"\nroster_pushes = false").roster_pushes);
    assert!(!of("rosters = \"set\"").roster_pushes);
    for (keys, want) in [
        (
            "rosters = \"all\"",
            "component.rosters: must be one of \"none\", \"get\", \"set\", \"both\"",
        ),
        (
            "rosters = true",
            "component.rosters: a string is wanted here, not a boolean",
        ),
        (
            "presence = \"managed\"",
            "component.presence: must be one of \"none\", \"managed_entity\", \"roster\"",
        ),
        (
            "presence = \"roster\"",
            "component.presence: \"roster\" needs rosters = \"get\" or \"both\"",
        ),
        (
            "rosters = \"set\"\npresence = \"roster\"",
            "component.presence: \"roster\" needs rosters",
        ),
        (
            "roster_pushes = true",
            "component.roster_pushes: only who may read rosters is told of changes",
        ),
        ("iq_get = [\"\"]", "component.iq_get: \"\" is no namespace"),
        (
            "iq_set = [\"urn:a b\"]",
            "component.iq_set: \"urn:a b\" is no namespace",
        ),
        ("read_rosters = true", "component.read_rosters: unknown key"),
    ] {
        let found = site.mistakes(&text(keys));
        assert!(
            found.len() == 1 && found[0].contains(want),
            "{keys}: {found:?}"
        );
    }
}

#[test]
fn a_server_that_nobody_could_reach_is_a_mistake() {
    let site = Site::new();
    let found = site.mistakes("name = \"main\"\ndata_dir = \"data\"\npolicy = \"policy.toml\"\n");
    assert!(
        found
            .iter()
            .any(|f| f.contains("domain: there is no [[domain]]")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|f| f.contains("link.listen: is missing")),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_said_so() {
    let site = Site::new();
    let found = site.mistakes(&format!("{SMALL}this is no TOML\n"));
    assert!(
        found[0].starts_with("imserver.toml:9: not valid TOML"),
        "{found:?}"
    );
    let error = load(&site.path("nowhere.toml"))
        .expect_err("there is none")
        .to_string();
    assert!(
        error.ends_with("nowhere.toml: cannot be read: No such file or directory (os error 2)"),
        "{error}"
    );
    let found = site.mistakes(&SMALL.replace("policy.toml", "rules.toml"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("imserver.toml:4: policy: "),
        "{found:?}"
    );
}

#[test]
fn a_reload_says_what_changes_and_when() {
    let site = Site::new();
    let old = site.good(SMALL);
    let changed = SMALL.replace("\"data\"", "\"elsewhere\"")
        + "[limits]\nroster_items_max = 100\n[shards]\ncount = 3\n";
    let new = site.good(&changed);
    let said: Vec<String> = old.changes(&new).iter().map(Change::to_string).collect();
    assert_eq!(
        said,
        [
            "data_dir: \"data\" -> \"elsewhere\" (waits for a restart)",
            "limits.roster_items_max: (default) -> 100",
            "shards.count: (default) -> 3 (waits for a restart)",
        ]
    );
    let running = old.reloaded(new.clone());
    assert_eq!(running.limits.roster_items_max, 100);
    assert_eq!(running.data_dir, old.data_dir);
    assert_eq!(running.shards, old.shards);
    assert!(old.changes(&old).is_empty());
}

#[test]
fn a_reload_sees_sections_come_and_go() {
    let site = Site::new();
    let one = site.good(&format!("{SMALL}[[mux]]\nname = \"mux1\"\n"));
    let two = site.good(&format!(
        "{SMALL}[[mux]]\nname = \"mux2\"\ntrust_client_certificates = true\n"
    ));
    let said: Vec<String> = one.changes(&two).iter().map(Change::to_string).collect();
    assert_eq!(
        said,
        [
            "mux.mux1.name: \"mux1\" -> (default)",
            "mux.mux2.name: (default) -> \"mux2\"",
            "mux.mux2.trust_client_certificates: (default) -> true",
        ]
    );
    assert_eq!(one.reloaded(two).muxes[0].name, "mux2");
}

#[test]
fn a_small_directory_has_the_usual_defaults() {
    use ::directory::ldap::config::{JidForm, Product, Tls};
    let site = Site::new();
    let with = |kind: &str, more: &str| {
        let text = format!(
            "{SMALL}\n[[directory]]\nname = \"corp\"\nkind = {kind:?}\nuri = \"ldap://a.example\"\nbase = \"dc=x\"\n{more}"
        );
        site.good(&text.replace(
            "name = \"example.org\"",
            "name = \"example.org\"\ndirectory = [\"corp\", \"local\"]",
        ))
    };
    let config = with("ldap", "");
    assert_eq!(config.chain("example.org"), ["corp", "local"]);
    let ldap = &config.directories[0];
    assert_eq!(ldap.domains, ["example.org"]);
    assert_eq!(
        (ldap.hosts[0].port, ldap.hosts[0].tls),
        (389, Tls::StartTls)
    );
    assert_eq!(
        (ldap.jid.as_str(), ldap.jid_form),
        ("uid", JidForm::Localpart)
    );
    let groups = ldap.groups.as_ref().expect("groups are on");
    assert_eq!(
        (&groups.bases, &groups.in_rosters),
        (&vec!["dc=x".to_owned()], &vec!["*".to_owned()])
    );
    assert_eq!(
        with("ldap", "jid = \"mail\"").directories[0].jid_form,
        JidForm::Address
    );
    assert_eq!(with("ldap", "group_base = []").directories[0].groups, None);
    let active = with(
        "active-directory",
        "bind_dn = \"cn=a\"\nbind_password_file = \"ldap.password\"",
    );
    let active = &active.directories[0];
    assert_eq!(
        (active.product, active.jid.as_str()),
        (Product::ActiveDirectory, "sAMAccountName")
    );
    assert_eq!(active.bind_password.0, "a secret");
    assert!(!format!("{active:?}").contains("a secret"));
    let rosters = active.groups.as_ref().map(|g| g.in_rosters.clone());
    assert_eq!(rosters, Some(Vec::new()));
}

#[test]
fn mail_servers_are_directories_too() {
    use ::directory::imap::{LoginForm, Tls};
    let site = Site::new();
    let with = |chain: &str, more: &str| {
        let text = SMALL.replace(
            "name = \"example.org\"",
            &format!("name = \"example.org\"\ndirectory = {chain}"),
        );
        format!("{text}\n[[directory]]\nname = \"mail\"\nkind = \"imap\"\n{more}")
    };
    let config = site.good(&with(
        "[\"local\", \"mail\"]",
        "uri = [\"imaps://a.example\", \"imap://b.example\"]\nlogin = \"address\"",
    ));
    assert_eq!(config.chain("example.org"), ["local", "mail"]);
    let mail = &config.mail_directories[0];
    let servers: Vec<_> = mail.servers.iter().map(|s| (s.port, s.tls)).collect();
    assert_eq!(servers, [(993, Tls::Direct), (143, Tls::StartTls)]);
    assert_eq!(mail.login, LoginForm::Address);
    assert_eq!(mail.timeout.as_secs(), 10);
    for (chain, more, words) in [
        ("\"mail\"", "", "directory.uri: is missing"),
        ("\"mail\"", "uri = []", "there is no server"),
        (
            "\"mail\"",
            "uri = \"ldap://a.example\"",
            "is no mail server",
        ),
        (
            "[\"mail\", \"local\"]",
            "uri = \"imaps://a.example\"",
            "must be the last",
        ),
        (
            "\"mail\"",
            "uri = \"imaps://a.example\"\ntls = \"starttls\"",
            "every uri is imaps://",
        ),
        (
            "\"mail\"",
            "uri = \"imap://a.example\"\ntls = \"none\"",
            "imap://a.example:143 is elsewhere",
        ),
        (
            "\"mail\"",
            "uri = \"imap://localhost\"\ntls = \"direct\"",
            "is no protection",
        ),
        (
            "\"mail\"",
            "uri = \"imaps://a.example\"\nlogin = \"uid\"",
            "\"localpart\" or \"address\"",
        ),
        (
            "\"mail\"",
            "uri = \"imaps://a.example\"\nbase = \"dc=x\"",
            "directory.base: is not for kind = \"imap\"",
        ),
        (
            "\"mail\"",
            "uri = \"imaps://a.example\"\nca = \"policy.toml\"",
            "holds no certificate",
        ),
        (
            "\"mail\"",
            "uri = \"imaps://a.example\"\noperation_timeout_s = 0",
            "must be from 1 to 120",
        ),
    ] {
        let mistakes = site.mistakes(&with(chain, more));
        assert!(
            mistakes.len() == 1 && mistakes[0].contains(words),
            "{words}: {mistakes:#?}"
        );
    }
    site.good(&with(
        "\"mail\"",
        "uri = \"imap://[::1]:143\"\ntls = \"none\"",
    ));
}

#[test]
fn every_mistake_of_a_directory_is_found_at_once() {
    let site = Site::new();
    site.protect("ldap.password", 0o644);
    site.write("empty.password", "\n");
    site.protect("empty.password", 0o600);
    let text = r#"
name = "main"
data_dir = "data"
policy = "policy.toml"
[[domain]]
name = "example.org"
directory = ["corp", "crop"]
[link]
socket = "run/link.sock"
[[directory]]
name = "corp"
kind = "nis"
uri = ["ldap://a.example", "http://b.example", "ldap://[::1]"]
tls = "maybe"
ca = "policy.toml"
bind_dn = "cn=a"
bind_password_file = "ldap.password"
base = []
user_filter = "(objectClass=person"
login = ["uid", "e mail"]
jid = "*"
jid_form = "whole"
attr_name = "c n"
photo_bytes_max = 100000000
disabled_filter = "left"
group_in_chain = true
register_rdn = "cn"
page_size = 1
pagesize = 1
[[directory]]
name = "local"
kind = "active-directory"
uri = "ldaps://a.example"
tls = "none"
base = "dc=x"
bind_password_file = "empty.password"
register_base = "dc=x"
[[directory]]
name = "corp"
kind = "ldap"
bind_dn = "cn=b"
"#;
    let mistakes = site.mistakes(text);
    let expected = [
        (
            "imserver.toml:7: domain.directory: ",
            "there is no directory \"crop\": corp, local are",
        ),
        (
            "imserver.toml:12: directory.kind: ",
            "is no kind of directory",
        ),
        (
            "imserver.toml:13: directory.uri: ",
            "\"http://b.example\" is no server",
        ),
        ("imserver.toml:13: directory.uri: ", "IPv6"),
        ("imserver.toml:14: directory.tls: ", "is no protection"),
        (
            "imserver.toml:15: directory.ca: ",
            "policy.toml holds no certificate",
        ),
        (
            "imserver.toml:17: directory.bind_password_file: ",
            "can be read by everybody (mode 644)",
        ),
        ("imserver.toml:18: directory.base: ", "is empty"),
        (
            "imserver.toml:19: directory.user_filter: ",
            "is no LDAP filter",
        ),
        (
            "imserver.toml:20: directory.login: ",
            "\"e mail\" cannot be the name of an attribute",
        ),
        (
            "imserver.toml:21: directory.jid: ",
            "cannot be the name of an attribute",
        ),
        ("imserver.toml:22: directory.jid_form: ", "is no form"),
        (
            "imserver.toml:23: directory.attr_name: ",
            "cannot be the name of an attribute",
        ),
        (
            "imserver.toml:24: directory.photo_bytes_max: ",
            "must be from 0 to 1048576",
        ),
        (
            "imserver.toml:25: directory.disabled_filter: ",
            "is no LDAP filter",
        ),
        (
            "imserver.toml:26: directory.group_in_chain: ",
            "active-directory",
        ),
        (
            "imserver.toml:27: directory.register_rdn: ",
            "without register_base",
        ),
        (
            "imserver.toml:28: directory.page_size: ",
            "must be from 10 to 10000",
        ),
        (
            "imserver.toml:29: directory.pagesize: ",
            "did you mean `page_size`?",
        ),
        (
            "imserver.toml:31: directory.name: ",
            "\"local\" are the accounts in the store",
        ),
        ("imserver.toml:34: directory.tls: ", "every uri is ldaps://"),
        (
            "imserver.toml:36: directory.bind_password_file: ",
            "without bind_dn",
        ),
        (
            "imserver.toml:36: directory.bind_password_file: ",
            "empty.password is empty",
        ),
        (
            "imserver.toml:37: directory.register_base: ",
            "not for kind",
        ),
        (
            "imserver.toml:37: directory.register_base: ",
            "needs bind_dn",
        ),
        ("imserver.toml:39: directory.name: ", "listed twice"),
        ("imserver.toml:38: directory.uri: ", "is missing"),
        ("imserver.toml:38: directory.base: ", "is missing"),
        (
            "imserver.toml:41: directory.bind_dn: ",
            "needs a bind_password_file",
        ),
    ];
    for (start, words) in expected {
        assert!(
            mistakes
                .iter()
                .any(|m| m.starts_with(start) && m.contains(words)),
            "no {start}...{words} in\n{}",
            mistakes.join("\n")
        );
    }
    assert_eq!(mistakes.len(), expected.len(), "{}", mistakes.join("\n"));
}
