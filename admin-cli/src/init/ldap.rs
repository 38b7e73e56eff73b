//! `init --ldap`: what is asked about an LDAP directory, looked at before anything is written, and its section of imserver.toml.
//!
//! What is refused here `imserver --check` would refuse (a test of `init` holds the two together).

use super::{Made, check_pem};
use anyhow::{Context as _, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Copies of what an LDAP directory needs.
pub(super) const PASSWORD: &str = "ldap.password";
pub(super) const CA: &str = "ldap-ca.pem";

/// People of an LDAP directory.
#[derive(Args)]
pub(super) struct LdapArgs {
    /// Server of an LDAP directory whose people are served: ldap://HOST (with StartTLS) or ldaps://HOST; may be repeated.
    #[arg(long = "ldap", value_name = "URL", requires = "base")]
    uri: Vec<String>,
    /// Where its people are: ou=people,dc=example,dc=org.
    #[arg(long = "ldap-base", value_name = "DN", requires = "uri")]
    base: Option<String>,
    /// Where its groups are; the same place unless given.
    #[arg(long = "ldap-group-base", value_name = "DN", requires = "uri")]
    group_base: Option<String>,
    /// It is Active Directory, or Samba.
    #[arg(long = "ldap-active-directory", requires = "uri")]
    active_directory: bool,
    /// The account that searches; without, searches are anonymous.
    #[arg(long = "ldap-bind-dn", value_name = "DN", requires = "password_file")]
    bind_dn: Option<String>,
    /// File with its password on the first line; copied.
    #[arg(
        long = "ldap-bind-password-file",
        value_name = "FILE",
        requires = "bind_dn"
    )]
    password_file: Option<PathBuf>,
    /// Certificate of the CA of the servers (PEM), if the system does not trust it; copied.
    #[arg(long = "ldap-ca", value_name = "FILE", requires = "uri")]
    ca: Option<PathBuf>,
}

/// An LDAP directory whose arguments and files are in order.
pub(super) struct Ldap<'a> {
    args: &'a LdapArgs,
    base: &'a str,
    password: Option<String>,
    ca: Option<String>,
}

impl LdapArgs {
    /// Looks at everything that was given. `None`: no directory is wanted.
    pub(super) fn checked(&self) -> anyhow::Result<Option<Ldap<'_>>> {
        let (Some(base), false) = (&self.base, self.uri.is_empty()) else {
            return Ok(None);
        };
        for uri in &self.uri {
            check_uri(uri)?;
        }
        for (option, dn) in [
            ("--ldap-base", Some(base)),
            ("--ldap-group-base", self.group_base.as_ref()),
            ("--ldap-bind-dn", self.bind_dn.as_ref()),
        ] {
            if dn.is_some_and(|dn| dn.trim().is_empty()) {
                bail!("{option} is empty");
            }
        }
        let password = self.password_file.as_deref().map(read).transpose()?;
        if let (Some(text), Some(file)) = (&password, &self.password_file)
            && text.lines().next().is_none_or(str::is_empty)
        {
            // It would make the bind an anonymous one (RFC 4513 §5.1.2).
            bail!("{} has no password on its first line", file.display());
        }
        let ca = self.ca.as_deref().map(read).transpose()?;
        if let (Some(text), Some(file)) = (&ca, &self.ca) {
            check_pem(text, file)?;
        }
        Ok(Some(Ldap {
            args: self,
            base,
            password,
            ca,
        }))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn check_uri(uri: &str) -> anyhow::Result<()> {
    let rest = uri
        .strip_prefix("ldaps://")
        .or_else(|| uri.strip_prefix("ldap://"));
    let rest = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let fine = rest.is_some_and(|rest| {
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().unwrap_or(0)),
            None => (rest, 389),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && port != 0 && host.chars().all(named)
    });
    if !fine {
        bail!(
            "--ldap {uri:?} is no server: say ldap://ldap.example.org or ldaps://ldap.example.org:636"
        );
    }
    Ok(())
}

impl Ldap<'_> {
    /// Writes the copies.
    pub(super) fn write(&self, dir: &Path, made: &mut Made) -> anyhow::Result<()> {
        for (text, name, secret) in [(&self.password, PASSWORD, true), (&self.ca, CA, false)] {
            if let Some(text) = text {
                made.file(dir.join(name), text, secret)?;
            }
        }
        Ok(())
    }

    /// The rest of the section of the domain, and the section of its directory.
    pub(super) fn toml(&self) -> String {
        let args = self.args;
        let text = |value: &str| toml::Value::from(value).to_string();
        let uris: Vec<String> = args.uri.iter().map(|uri| text(uri)).collect();
        let kind = if args.active_directory {
            "active-directory"
        } else {
            "ldap"
        };
        let mut out = format!(
            "directory = [\"ldap\"]\n\n[[directory]]\nname = \"ldap\"\nkind = \"{kind}\"\nuri = [{}]\nbase = [{}]\n",
            uris.join(", "),
            text(self.base)
        );
        if let Some(base) = &args.group_base {
            out.push_str(&format!("group_base = [{}]\n", text(base)));
        }
        if args.active_directory {
            out.push_str("# Names of the groups whose members see each other in their rosters.\ngroup_in_rosters = []\n");
        }
        if let Some(dn) = &args.bind_dn {
            out.push_str(&format!(
                "bind_dn = {}\nbind_password_file = \"{PASSWORD}\"\n",
                text(dn)
            ));
        }
        if args.ca.is_some() {
            out.push_str(&format!("ca = \"{CA}\"\n"));
        }
        out
    }
}
