//! The examples in `etc/`: every key with its default, and when a change of it takes effect.

use super::*;
use crate::policy::{Right, no_groups};

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
