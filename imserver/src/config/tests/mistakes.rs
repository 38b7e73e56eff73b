//! Every mistake at once, each with its file, line and key, and what would be right.

use super::*;

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
