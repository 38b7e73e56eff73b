//! `admin.toml`: how `imadmin` reaches its server.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// The server's name: it must show a certificate for `NAME.server.isthmus`.
    pub server: String,
    /// `host:port` of the admin door, or `unix:PATH` of its socket.
    pub address: String,
    /// An account with a right of an administrator, in the place of a certificate.
    pub user: Option<String>,
    /// The private CA.
    pub ca: Option<PathBuf>,
    /// The administrator's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Where it is looked for when nobody says.
const PLACES: [&str; 3] = ["admin.toml", "var/admin.toml", "/etc/isthmus/admin.toml"];

/// Finds and reads the file. Paths in it are made relative to it.
pub fn find(given: Option<PathBuf>) -> anyhow::Result<AdminConfig> {
    let given = given.or_else(|| std::env::var_os("ISTHMUS_ADMIN").map(PathBuf::from));
    let file = match given {
        Some(file) => file,
        None => match PLACES.iter().map(PathBuf::from).find(|p| p.exists()) {
            Some(file) => file,
            None => bail!(
                "no admin.toml: give --config FILE (looked for {})",
                PLACES.join(", ")
            ),
        },
    };
    read(&file)
}

fn read(file: &Path) -> anyhow::Result<AdminConfig> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let mut config: AdminConfig = toml::from_str(&text).map_err(|e| {
        let before = e
            .span()
            .map_or("", |span| &text[..span.start.min(text.len())]);
        let line = before.matches('\n').count() + 1;
        anyhow::anyhow!("{}:{line}: {}", file.display(), e.message())
    })?;
    if config.user.is_some() && (config.cert.is_some() || config.key.is_some()) {
        bail!(
            "{}: either `user`, or `cert` and `key`, not both",
            file.display()
        );
    }
    let base = file.parent().unwrap_or(Path::new("."));
    for path in [&mut config.ca, &mut config.cert, &mut config.key]
        .into_iter()
        .flatten()
    {
        *path = base.join(&*path);
    }
    if let Some(path) = config.address.strip_prefix("unix:") {
        config.address = format!("unix:{}", base.join(path).display());
    }
    Ok(config)
}
