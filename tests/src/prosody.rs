//! Prosody from Debian, configured like a site of ours, so that a script can be tried against a server
//! that the world uses: if both fail, the script is wrong.

use crate::client::{Account, Client, Endpoint, Transport};
use crate::component::Component;
use crate::harness::{Proc, START_PATIENCE, run};
use crate::wait;
use anyhow::{Context as _, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

/// A running Prosody with accounts.
pub struct Prosody {
    _process: Proc,
    endpoint: Endpoint,
    _dir: tempfile::TempDir,
}

/// The domain it serves.
const DOMAIN: &str = "localhost";

impl Prosody {
    /// Starts it, with these accounts and components, in a temporary directory on free ports.
    pub fn start(accounts: &[Account], components: &[Component]) -> Result<Prosody> {
        let dir = tempfile::Builder::new()
            .prefix("isthmus-prosody-")
            .tempdir()?;
        let path = dir.path().display();
        let sections: String = components.iter().map(Component::prosody_section).collect();
        let privileges: String = components
            .iter()
            .filter_map(Component::prosody_privileges)
            .collect();
        let module = if privileges.is_empty() {
            ""
        } else {
            ", \"privilege\""
        };
        // Reserved for a moment by binding port 0; Prosody itself cannot bind 0 and tell.
        let free = || -> Result<SocketAddr> {
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
        };
        let (starttls, direct, component) = (free()?, free()?, free()?);
        let names: Vec<String> = accounts.iter().map(|a| a.user.clone()).collect();
        let people = dir.path().join("data").join(DOMAIN).join("accounts");
        fs::create_dir_all(&people)?;
        for account in accounts {
            let text = format!("return {{ [\"password\"] = {:?}; }};\n", account.password);
            fs::write(people.join(format!("{}.dat", encode(&account.user))), text)
                .with_context(|| format!("{names:?}"))?;
        }
        run(Command::new("openssl").args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &format!("{path}/key.pem"),
            "-out",
            &format!("{path}/cert.pem"),
        ]))?;
        let config = dir.path().join("prosody.cfg.lua");
        fs::write(
            &config,
            format!(
                r#"
run_as_root = true
data_path = "{path}/data"
certificates = "{path}"
pidfile = "{path}/prosody.pid"
log = {{ info = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {} }}
c2s_direct_tls_ports = {{ {} }}
s2s_ports = {{}}
component_ports = {{ {} }}
ssl = {{ key = "{path}/key.pem"; certificate = "{path}/cert.pem" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
conflict_resolve = "kick_old"
smacks_hibernation_time = 1
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping", "version", "vcard", "private", "server_contact_info", "offline", "smacks", "presence", "message", "iq"{module} }}
modules_disabled = {{ "s2s" }}
contact_info = {{ abuse = {{ "mailto:abuse@localhost", "xmpp:abuse@localhost" }} }}
VirtualHost "{DOMAIN}"
    privileged_entities = {{ {privileges} }}
{sections}"#,
                starttls.port(),
                direct.port(),
                component.port(),
            ),
        )?;
        let mut command = Command::new("prosody");
        command
            .arg("-F")
            .arg("--config")
            .arg(&config)
            .current_dir("/");
        let process = Proc::start("prosody", &mut command, &dir.path().join("prosody.log"))?;
        let endpoint = Endpoint {
            domain: DOMAIN.into(),
            starttls,
            direct,
            // Its WebSocket is not used.
            ws: starttls,
            wss: direct,
            component,
            transport: Transport::Plain,
            tls: None,
            identity: None,
            from: None,
        };
        let prosody = Prosody {
            _process: process,
            endpoint,
            _dir: dir,
        };
        wait::until(START_PATIENCE, || {
            let mut client = Client::dial(&prosody.endpoint(Transport::Plain)).ok()?;
            client.open_stream().ok()
        })
        .with_context(|| format!("Prosody does not start:\n{}", prosody._process.log()))?;
        Ok(prosody)
    }

    /// How to reach it.
    pub fn endpoint(&self, transport: Transport) -> Endpoint {
        Endpoint {
            transport,
            ..self.endpoint.clone()
        }
    }
}

/// Prosody's file names: everything but letters and digits as %xx.
fn encode(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (b as char).to_string(),
            b => format!("%{b:02x}"),
        })
        .collect()
}
