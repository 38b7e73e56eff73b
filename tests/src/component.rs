//! Components (XEP-0114) of a site or of Prosody: who they are, and what they may do in people's names (XEP-0356).
//!
//! In: what a test or a script says of them. Out: sections of configuration files, and the files with their secrets.

use crate::harness::Site;
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A component that the server is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its domain.
    pub domain: String,
    /// What it and the server know.
    pub secret: String,
    /// What it may do.
    pub grants: Grants,
}

/// Privileges, in the words of XEP-0356.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// `get`, `set` or `both`.
    pub roster: Option<String>,
    /// `outgoing`.
    pub message: Option<String>,
    /// `managed_entity` or `roster`.
    pub presence: Option<String>,
    /// A namespace, and `get`, `set` or `both`.
    pub iq: Vec<(String, String)>,
}

impl Grants {
    /// Takes `roster: both`, `iq: urn:xmpp:ping get, jabber:iq:private both` and so on; `false` if it is none of these.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let one_of = |all: &[&str]| -> Result<Option<String>> {
            ensure!(all.contains(&value), "{key} is one of {all:?}");
            Ok(Some(value.to_owned()))
        };
        match key {
            "roster" => self.roster = one_of(&["get", "set", "both"])?,
            "message" => self.message = one_of(&["outgoing"])?,
            "presence" => self.presence = one_of(&["managed_entity", "roster"])?,
            "iq" => {
                for item in value.split(',') {
                    let item = item.trim().split_once(' ');
                    let (of, access) = item.context("iq: NAMESPACE get, ...")?;
                    if !["get", "set", "both"].contains(&access) {
                        bail!("{of}: get, set or both, not {access}");
                    }
                    self.iq.push((of.into(), access.into()));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// It is told of everybody, whoever it is meant to hear of.
    pub fn hears_of_everybody(&self) -> bool {
        self.presence.is_some() || self.roster.as_ref().is_some_and(|access| access != "set")
    }

    fn toml(&self) -> String {
        let mut out = String::new();
        for (key, value) in [("rosters", &self.roster), ("presence", &self.presence)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{key} = {value:?}");
            }
        }
        if self.message.is_some() {
            out.push_str("send_messages = true\n");
        }
        for (key, access) in [("iq_get", "get"), ("iq_set", "set")] {
            let of = self.iq.iter().filter(|(_, a)| a == access || a == "both");
            let of: Vec<&String> = of.map(|(of, _)| of).collect();
            if !of.is_empty() {
                let _ = writeln!(out, "{key} = {of:?}");
            }
        }
        out
    }
}

impl Component {
    /// Its section of `imserver.toml`.
    pub fn section(&self) -> String {
        format!(
            "\n[[component]]\ndomain = \"{0}\"\nsecret_file = \"{0}.secret\"\n{1}",
            self.domain,
            self.grants.toml()
        )
    }

    /// Its section of Prosody's configuration.
    pub fn prosody_section(&self) -> String {
        format!(
            "Component {:?}\n    component_secret = {:?}\n    modules_enabled = {{ \"privilege\" }}\n",
            self.domain, self.secret
        )
    }

    /// Its entry in `privileged_entities` of Prosody's module for XEP-0356, if it may do anything.
    pub fn prosody_privileges(&self) -> Option<String> {
        let grants = &self.grants;
        let all = [
            ("roster", &grants.roster),
            ("message", &grants.message),
            ("presence", &grants.presence),
        ];
        let all = all
            .iter()
            .filter_map(|(key, value)| Some(format!("{key} = {:?}; ", value.as_ref()?)));
        let iq = grants.iq.iter();
        let iq = iq.map(|(of, access)| format!("[{of:?}] = {access:?}; "));
        let (mut all, iq): (String, String) = (all.collect(), iq.collect());
        if !iq.is_empty() {
            let _ = write!(all, "iq = {{ {iq}}}; ");
        }
        (!all.is_empty()).then(|| format!("[{:?}] = {{ {all}}};\n", self.domain))
    }
}

impl Site {
    /// Makes the first mux listen for components and the server know these. For a site that is not started yet.
    pub fn add_components(&self, components: &[Component]) -> Result<()> {
        let (file, section) = match self.path().join("mux.toml").exists() {
            true => ("mux.toml", "listener"),
            false => ("imserver.toml", "embedded_mux.listener"),
        };
        let address = self.address(5347);
        self.append(
            file,
            &format!("\n[[{section}]]\nkind = \"component\"\ntransport = \"tcp\"\nlisten = [\"{address}\"]\n"),
        )?;
        if file == "mux.toml" {
            let kinds = "[\"c2s\", \"component\"]";
            self.set("imserver.toml", "[[mux]]", "kinds", kinds)?;
        }
        for component in components {
            let file = self.path().join(format!("{}.secret", component.domain));
            fs::write(&file, format!("{}\n", component.secret))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            self.append("imserver.toml", &component.section())?;
        }
        Ok(())
    }

    /// Adds text at the end of a configuration file.
    pub fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path().join(file);
        let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(fs::write(path, before + text)?)
    }
}
