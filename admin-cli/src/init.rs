//! `init` and `cert`: files for servers, muxes and administrators. The only commands that need no running server.

mod ldap;

use crate::certs;
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use ldap::{Ldap, LdapArgs};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The highest offset: 15234 + 17500 still is a port below the usual ephemeral range.
const OFFSET_MAX: u16 = 17_500;

/// `imadmin init`
#[derive(Args)]
pub struct InitArgs {
    /// The directory to write; it is made. One that holds a set-up is left alone.
    #[arg(long)]
    dir: PathBuf,
    /// The domain to serve.
    #[arg(long)]
    domain: String,
    /// Added to every port: a multiple of 100, at most 17500.
    #[arg(long, default_value_t = 0)]
    port_offset: u16,
    /// One file, with the mux inside imserver.
    #[arg(long)]
    embedded: bool,
    /// Allow PLAIN and SCRAM without TLS. For load tests on loopback.
    #[arg(long)]
    plaintext: bool,
    /// Address to listen on, for clients, muxes and administrators.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    #[command(flatten)]
    ldap: LdapArgs,
}

/// What a certificate is for.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// A multiplexor on another host.
    Mux,
    /// Another core server.
    Peer,
    /// An administrator.
    Admin,
}

/// `imadmin cert`
#[derive(Args)]
pub struct CertArgs {
    /// mux, peer or admin.
    role: Role,
    /// Its name: small letters, digits and hyphens.
    name: String,
    /// The set-up with the CA.
    #[arg(long)]
    dir: PathBuf,
    /// Where to write.
    #[arg(long)]
    out: PathBuf,
}

struct Ports {
    c2s: u16,
    c2s_tls: u16,
    ws: u16,
    wss: u16,
    link: u16,
    admin: u16,
    metrics: u16,
    mux_metrics: u16,
}

impl Ports {
    fn new(offset: u16) -> Self {
        Self {
            c2s: 5_222 + offset,
            c2s_tls: 5_223 + offset,
            ws: 5_280 + offset,
            wss: 5_443 + offset,
            link: 15_230 + offset,
            admin: 15_232 + offset,
            metrics: 15_233 + offset,
            mux_metrics: 15_234 + offset,
        }
    }
}

/// Writes one file, never over another. Secrets are for the owner's eyes.
fn write(path: &Path, text: &str, secret: bool) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if secret { 0o600 } else { 0o644 })
        .open(path)
        .map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => anyhow::anyhow!(
                "{} is there already, and nothing is written over it: take another directory, or move that file away",
                path.display()
            ),
            _ => anyhow::Error::new(e).context(format!("{} cannot be written", path.display())),
        })?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// A file of certificates.
fn check_pem(text: &str, file: &Path) -> anyhow::Result<()> {
    match CertificateDer::from_pem_slice(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => bail!("{} holds no certificate (PEM)", file.display()),
    }
}

/// A domain as its users write it, and as certificates and file names do (A-labels).
struct Domain {
    name: String,
    ascii: String,
}

/// Letters, digits, hyphens and dots, as the configuration will want it.
fn check_domain(domain: &str) -> anyhow::Result<Domain> {
    let name = domain.trim_end_matches('.').to_lowercase();
    let ascii = idna::domain_to_ascii(&name).unwrap_or_default();
    let fine = !ascii.is_empty()
        && ascii.len() <= 253
        && ascii.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    if !fine {
        bail!("`{name}` is no domain name");
    }
    Ok(Domain { name, ascii })
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fine {
        Ok(())
    } else {
        bail!("`{name}` is no name for a certificate: small letters, digits and hyphens")
    }
}

/// What `init` writes, besides the empty directories for data and sockets.
const WRITTEN: [&str; 8] = [
    ldap::PASSWORD,
    ldap::CA,
    "imserver.toml",
    "mux.toml",
    "policy.toml",
    "admin.toml",
    "link",
    "tls",
];

/// Runs `init`. Returns what to tell about it.
pub fn init(args: &InitArgs) -> anyhow::Result<String> {
    let domain = check_domain(&args.domain)?;
    if !args.port_offset.is_multiple_of(100) || args.port_offset > OFFSET_MAX {
        bail!("--port-offset must be a multiple of 100, at most {OFFSET_MAX}");
    }
    for file in WRITTEN {
        let path = args.dir.join(file);
        // Also a link that leads nowhere is somebody's.
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there already: init writes only a new set-up",
                path.display()
            );
        }
    }
    let ldap = args.ldap.checked()?;
    let ports = Ports::new(args.port_offset);
    Made::all_or_nothing(|made| write_all(args, &domain, ldap.as_ref(), &ports, made))?;
    let Domain { name: domain, .. } = domain;
    let dir = args.dir.display();
    let mux = match args.embedded {
        true => String::new(),
        false => format!("\n  mux --config {dir}/mux.toml"),
    };
    let people = match ldap {
        None => format!(
            "  printf 'a password' | imadmin --config {dir}/admin.toml user add alice@{domain} --password-stdin"
        ),
        Some(_) => format!(
            "People log in with the password they have in the directory. Whether somebody can, and why not:\n  \
             imadmin --config {dir}/admin.toml directory test NAME --password-stdin"
        ),
    };
    Ok(format!(
        "{dir} is set up for {domain}. Start:\n  imserver --config {dir}/imserver.toml{mux}\n{people}\n\
         Clients: port {} (STARTTLS), {} (direct TLS), {} (WebSocket over TLS).",
        ports.c2s, ports.c2s_tls, ports.wss
    ))
}

/// Files and directories this run has made, and nobody else: half a set-up would only be in the way of the next try.
struct Made(Vec<PathBuf>);

impl Made {
    /// What has been made goes away again when the rest cannot be.
    fn all_or_nothing<T>(make: impl FnOnce(&mut Made) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut made = Made(Vec::new());
        let result = make(&mut made);
        if result.is_err() {
            made.take_back();
        }
        result
    }

    /// A directory that may be there already; those above it too.
    fn dir_all(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.dir_all(above)?;
        }
        self.dir(path.to_owned())
    }

    fn dir(&mut self, path: PathBuf) -> anyhow::Result<()> {
        std::fs::create_dir(&path).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => anyhow::anyhow!(
                "{} is there already, and nothing is written over it: take another directory, or move that one away",
                path.display()
            ),
            _ => anyhow::Error::new(e).context(format!("{} cannot be made", path.display())),
        })?;
        self.0.push(path);
        Ok(())
    }

    fn file(&mut self, path: PathBuf, text: &str, secret: bool) -> anyhow::Result<()> {
        write(&path, text, secret)?;
        self.0.push(path);
        Ok(())
    }

    fn take_back(self) {
        for path in self.0.iter().rev() {
            // What cannot be removed is named by the next try.
            let _ = if path.is_dir() {
                std::fs::remove_dir(path)
            } else {
                std::fs::remove_file(path)
            };
        }
    }
}

fn write_all(
    args: &InitArgs,
    domain: &Domain,
    ldap: Option<&Ldap<'_>>,
    ports: &Ports,
    made: &mut Made,
) -> anyhow::Result<()> {
    for dir in ["data", "run"] {
        made.dir_all(&args.dir.join(dir))?;
    }
    for dir in ["link", "tls"] {
        made.dir(args.dir.join(dir))?;
    }
    let link = args.dir.join("link");
    let Domain { name, ascii } = domain;
    let ca = certs::ca(&format!("Isthmus link CA of {ascii}"))?;
    made.file(link.join("ca.pem"), &ca.cert, false)?;
    made.file(link.join("ca.key"), &ca.key, true)?;
    let mut pairs = vec![("main", "server"), ("admin", "admin")];
    if !args.embedded {
        pairs.push(("mux1", "mux"));
    }
    for (name, role) in pairs {
        let pair = certs::issue(&link, name, role)?;
        let file = if role == "server" { "server" } else { name };
        made.file(link.join(format!("{file}.pem")), &pair.cert, false)?;
        made.file(link.join(format!("{file}.key")), &pair.key, true)?;
    }
    if let Some(ldap) = ldap {
        ldap.write(&args.dir, made)?;
    }
    let client = certs::self_signed(ascii)?;
    made.file(
        args.dir.join("tls").join(format!("{ascii}.pem")),
        &client.cert,
        false,
    )?;
    made.file(
        args.dir.join("tls").join(format!("{ascii}.key")),
        &client.key,
        true,
    )?;

    made.file(
        args.dir.join("imserver.toml"),
        &server_toml(args, domain, ldap, ports),
        false,
    )?;
    if !args.embedded {
        let server = format!("{}:{}", host(args.listen), ports.link);
        let text = mux_toml(
            "mux1",
            &server,
            "link",
            &listeners("", args.listen, ascii, ports, "tls"),
            ports.mux_metrics,
        );
        made.file(args.dir.join("mux.toml"), &text, false)?;
    }
    made.file(args.dir.join("policy.toml"), &policy_toml(name), false)?;
    let admin = admin_toml(
        &format!("{}:{}", host(args.listen), ports.admin),
        "link/ca.pem",
        "link/admin.pem",
        "link/admin.key",
    );
    made.file(args.dir.join("admin.toml"), &admin, false)?;
    Ok(())
}

/// As it stands before a port.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".into(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".into(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn listen(ip: IpAddr, port: u16) -> String {
    match ip {
        IpAddr::V4(ip) => format!("\"{ip}:{port}\""),
        IpAddr::V6(ip) => format!("\"[{ip}]:{port}\""),
    }
}

/// Listeners and certificate of a mux; `prefix` is the section of an embedded one.
fn listeners(prefix: &str, ip: IpAddr, domain: &str, ports: &Ports, tls_dir: &str) -> String {
    let listener = |transport: &str, ip: IpAddr, port: u16| {
        format!(
            "[[{prefix}listener]]\nkind = \"c2s\"\ntransport = \"{transport}\"\nlisten = [{}]\n\n",
            listen(ip, port)
        )
    };
    let loopback = match ip.is_loopback() {
        true => ip,
        false => IpAddr::from([127, 0, 0, 1]),
    };
    format!(
        "# Clients: plain TCP with STARTTLS, and TLS from the first byte.\n{}{}\
         # Web clients: WebSocket over TLS, and without TLS for a reverse proxy on this host.\n{}{}\
         # Shown to clients. Put the site's own certificate here; it is taken up when the file changes.\n\
         [[{prefix}certificate]]\ndomains = [\"{domain}\"]\nchain = \"{tls_dir}/{domain}.pem\"\nkey = \"{tls_dir}/{domain}.key\"\n\n\
         # host_meta: where web clients are sent to (XEP-0156). origins: sites beside {domain} whose pages may connect.\n\
         [{prefix}websocket]\nhost_meta = [\"wss://{domain}:{}/xmpp-websocket\"]\norigins = []\n",
        listener("tcp", ip, ports.c2s),
        listener("tls", ip, ports.c2s_tls),
        listener("wss", ip, ports.wss),
        listener("ws", loopback, ports.ws),
        ports.wss,
    )
}

fn server_toml(args: &InitArgs, domain: &Domain, ldap: Option<&Ldap<'_>>, ports: &Ports) -> String {
    let mut text = format!(
        "# Isthmus core server. etc/imserver.toml of the distribution documents every key.\n\n\
         name = \"main\"\ndata_dir = \"data\"\npolicy = \"policy.toml\"\n\n\
         [[domain]]\nname = \"{}\"\n{}\n",
        domain.name,
        ldap.map(Ldap::toml).unwrap_or_default()
    );
    if args.embedded {
        text.push_str("# A mux on another host may join later: give its door here, and a [[mux]] with its name.\n");
    } else {
        text.push_str("# Where muxes dial in.\n");
    }
    text.push_str(&format!(
        "[link]\nlisten = [{}]\nca = \"link/ca.pem\"\ncert = \"link/server.pem\"\nkey = \"link/server.key\"\n\n",
        listen(args.listen, ports.link)
    ));
    if !args.embedded {
        text.push_str("[[mux]]\nname = \"mux1\"\nkinds = [\"c2s\"]\n\n");
    }
    text.push_str(&format!(
        "# Where imadmin dials in; the socket is for root on this host.\n\
         [admin]\nlisten = [{}]\nsocket = \"run/admin.sock\"\n\n\
         [metrics]\nlisten = [\"127.0.0.1:{}\"]\n\n",
        listen(args.listen, ports.admin),
        ports.metrics
    ));
    if args.plaintext {
        text.push_str("# Passwords may cross the network in the clear: only for tests on loopback.\n[auth]\nplaintext = true\n\n");
    }
    text.push_str("# true: messages are kept in their owners' archives after delivery.\n[archive]\nenabled = false\n\n[log]\nfilter = \"info\"\n");
    if args.embedded {
        text.push_str(&format!(
            "\n# The mux inside this process.\n[embedded_mux]\nname = \"embedded\"\n\n{}",
            listeners("embedded_mux.", args.listen, &domain.ascii, ports, "tls")
        ));
    }
    text
}

fn mux_toml(name: &str, server: &str, link_dir: &str, listeners: &str, metrics: u16) -> String {
    format!(
        "# Isthmus multiplexor. etc/mux.toml of the distribution documents every key.\n\n\
         name = \"{name}\"\n\n\
         [[server]]\nname = \"main\"\naddress = \"{server}\"\nca = \"{link_dir}/ca.pem\"\ncert = \"{link_dir}/{name}.pem\"\nkey = \"{link_dir}/{name}.key\"\n\n\
         {listeners}\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n\n[log]\nfilter = \"info\"\n"
    )
}

fn policy_toml(domain: &str) -> String {
    format!(
        "# Who may do what. The first rule that names the right and the user decides; what no rule allows is denied.\n\
         # etc/policy.toml of the distribution lists the rights.\n\
         # For: users = [\"name@domain\"], groups = [\"of a directory\"], domains = [\"domain\"], everyone = true.\n\n\
         # [[rule]]\n# deny = \"login\"\n# users = [\"mallory@{domain}\"]\n\n\
         [[rule]]\nallow = [\"login\", \"save-settings\", \"search\", \"register\"]\neveryone = true\n"
    )
}

fn admin_toml(address: &str, ca: &str, cert: &str, key: &str) -> String {
    format!(
        "# How imadmin reaches its server. On the server's own host also: address = \"unix:run/admin.sock\"\n\
         # In the place of cert and key: user = \"name@domain\", an account that the policy gives a right of an administrator.\n\n\
         server = \"main\"\naddress = \"{address}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n"
    )
}

/// Runs `cert`. Returns what to tell about it.
pub fn cert(args: &CertArgs) -> anyhow::Result<String> {
    check_name(&args.name)?;
    Made::all_or_nothing(|made| cert_files(args, made))
}

fn cert_files(args: &CertArgs, made: &mut Made) -> anyhow::Result<String> {
    let link = args.dir.join("link");
    let role = match args.role {
        Role::Mux => "mux",
        Role::Peer => "peer",
        Role::Admin => "admin",
    };
    let pair = certs::issue(&link, &args.name, role)?;
    let ca = std::fs::read_to_string(link.join("ca.pem")).context("the CA cannot be read")?;
    made.dir_all(&args.out)?;
    let name = &args.name;
    made.file(args.out.join("ca.pem"), &ca, false)?;
    made.file(args.out.join(format!("{name}.pem")), &pair.cert, false)?;
    made.file(args.out.join(format!("{name}.key")), &pair.key, true)?;
    let out = args.out.display();
    match args.role {
        Role::Mux => mux_files(args, made),
        Role::Admin => {
            let address = ServerConfig::read(&args.dir)?.address("admin")?;
            let text = admin_toml(
                &address.dialled(),
                "ca.pem",
                &format!("{name}.pem"),
                &format!("{name}.key"),
            );
            made.file(args.out.join("admin.toml"), &text, false)?;
            Ok(format!(
                "{out} holds what administrator {name} needs on another host.\n\
                 Check in admin.toml: the server's address ({}) as seen from there.{}\n\
                 Then: imadmin --config admin.toml status",
                address.dialled(),
                address.warning("admin")
            ))
        }
        Role::Peer => Ok(format!("{out} holds the certificate of peer {name}")),
    }
}

/// A mux needs a certificate for clients too: the one of the set-up, and its listeners.
fn mux_files(args: &CertArgs, made: &mut Made) -> anyhow::Result<String> {
    let name = &args.name;
    let config = ServerConfig::read(&args.dir)?;
    let domain = config.names("domain").next();
    let domain = check_domain(domain.context("imserver.toml names no domain")?)?.ascii;
    made.dir(args.out.join("tls"))?;
    for (end, secret) in [("pem", false), ("key", true)] {
        let from = args.dir.join("tls").join(format!("{domain}.{end}"));
        let text = std::fs::read_to_string(&from)
            .with_context(|| format!("{} cannot be read", from.display()))?;
        let to = args.out.join("tls").join(format!("{domain}.{end}"));
        made.file(to, &text, secret)?;
    }
    let server = config.address("link")?;
    let offset = server.0.port().saturating_sub(15_230);
    let ports = Ports::new(offset);
    let listeners = listeners("", IpAddr::from([127, 0, 0, 1]), &domain, &ports, "tls");
    let text = mux_toml(name, &server.dialled(), ".", &listeners, ports.mux_metrics);
    made.file(args.out.join("mux.toml"), &text, false)?;
    let out = args.out.display();
    let section = match config.names("mux").any(|listed| listed == name) {
        true => format!(
            "imserver.toml lists a mux {name} already, so there is nothing to add: this is a new certificate for that one.\n\
             For one more mux take another name; of two under one name each would end the clients of the other."
        ),
        false => format!(
            "Add to imserver.toml and reload:\n\n[[mux]]\nname = \"{name}\"\nkinds = [\"c2s\"]\n"
        ),
    };
    Ok(format!(
        "{out} holds what mux {name} needs on another host: mux --config mux.toml\n{section}\n\
         Check in mux.toml: the server's address ({}) as seen from there, and the addresses to listen on.{}\n\
         The key of {domain} is in it too: whoever steals it can pass for {domain} until that certificate is replaced.",
        server.dialled(),
        server.warning("link")
    ))
}

/// The imserver.toml of a set-up, as far as `cert` has to know it.
struct ServerConfig {
    file: PathBuf,
    table: toml::Table,
}

/// Where a door of the server is.
struct Address(std::net::SocketAddr);

impl ServerConfig {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("imserver.toml");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let table = text
            .parse()
            .with_context(|| format!("{} is not right", file.display()))?;
        Ok(Self { file, table })
    }

    /// The names of all sections of a kind.
    fn names(&self, kind: &str) -> impl Iterator<Item = &str> {
        let sections = self.table.get(kind).and_then(|s| s.as_array());
        let sections = sections.into_iter().flatten();
        sections.filter_map(|section| section.get("name")?.as_str())
    }

    /// The first address of `[section] listen`.
    fn address(&self, section: &str) -> anyhow::Result<Address> {
        let address = self
            .table
            .get(section)
            .and_then(|s| s.get("listen"))
            .and_then(|l| l.as_array())
            .and_then(|l| l.first())
            .and_then(|a| a.as_str())
            .with_context(|| format!("{} has no [{section}] listen", self.file.display()))?;
        let socket = address.parse();
        socket
            .map(Address)
            .with_context(|| format!("{address} is no address"))
    }
}

impl Address {
    /// As it is dialled on the server's own host.
    fn dialled(&self) -> String {
        format!("{}:{}", host(self.0.ip()), self.0.port())
    }

    /// What must change before anybody can come from another host.
    fn warning(&self, section: &str) -> String {
        match self.0.ip().is_loopback() {
            true => format!(
                "\nNobody reaches it from there yet: [{section}] listen of imserver.toml is a loopback address."
            ),
            false => String::new(),
        }
    }
}
