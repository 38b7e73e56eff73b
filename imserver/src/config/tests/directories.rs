//! Directories and mail servers: their defaults, and every mistake of them.

use super::*;

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
