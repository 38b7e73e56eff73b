//! `imserver.toml`: the example in `etc/`, every mistake at once with its line, and what a reload changes.

use super::file::*;
use super::*;

mod components;
mod directories;
mod example;
mod mistakes;
mod reload;

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
