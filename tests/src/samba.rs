//! A real Active Directory domain controller: Samba, with a domain of its own and TLS by a CA of its own.
//!
//! Its ports are constants (389, 636, 88), so each has a loopback address of its own. It is made by `samba-tool` and filled
//! before it starts; all of that takes half a minute, so tests share one.
//!
//! The domain: people with names as in `LDIF`, passwords as [`crate::client::Account::new`] has them; [`CROWD`] more without
//! passwords, `u0000`, ... All of the crowd and romeo are in the group `everybody`.

mod range;

pub use range::RangeProxy;

use crate::harness::{Proc, run};
use crate::wait;
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The Kerberos realm.
pub const REALM: &str = "AD.EXAMPLE";
/// The whole domain.
pub const BASE: &str = "DC=ad,DC=example";
/// Where people are.
pub const PEOPLE: &str = "OU=people,DC=ad,DC=example";
/// Where groups are.
pub const GROUPS: &str = "OU=groups,DC=ad,DC=example";
/// The service account.
pub const SERVICE: &str = "CN=isthmus,CN=Users,DC=ad,DC=example";
/// Its password.
pub const SERVICE_PASSWORD: &str = "service-password";
/// juliet's password: not ASCII, as two kinds of letters.
pub const JULIET_PASSWORD: &str = "пароль für Ärger €";
/// People beside those of `LDIF`: more than a page has (1,000), and more than Active Directory gives of a group at a time (1,500).
pub const CROWD: usize = 1_700;

/// Loopback addresses to choose from: 127.77.0.1 and following.
const ADDRESSES: u8 = 200;
/// Ports of its services.
const PORTS: [u16; 6] = [88, 389, 464, 636, 3268, 3269];

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// `NAME: PASSWORD` of those who have one.
const PASSWORDS: &[&str] = &[
    "romeo", "tybalt", "disabled", "expired", "change", "stale", "locked",
];

/// The odd ones. `@PHOTO@` is a small picture; `@PASSWORD name@` a password.
const LDIF: &str = "
dn: OU=people,DC=ad,DC=example
objectClass: organizationalUnit

dn: OU=groups,DC=ad,DC=example
objectClass: organizationalUnit

dn: CN=isthmus,CN=Users,DC=ad,DC=example
objectClass: user
sAMAccountName: isthmus
userAccountControl: 512
@PASSWORD isthmus@

dn: CN=Romeo Montague,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: romeo
userPrincipalName: romeo.montague@corp.example
userAccountControl: 512
displayName: Romeo Montague
givenName: Romeo
sn: Montague
mail: romeo@corp.example
telephoneNumber: +39 045 1
title: lover
company: House of Montague
department: Verona
thumbnailPhoto:: @PHOTO@
@PASSWORD romeo@

dn: CN=Juliet Capulet,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: Juliet
userPrincipalName: juliet.capulet@corp.example
userAccountControl: 512
displayName: Juliet Capulet
sn: Capulet
@PASSWORD juliet@

dn: CN=Capulet\\, Tybalt (guest),OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: tybalt
userPrincipalName: tybalt@ad.example
userAccountControl: 512
displayName: Capulet, Tybalt
sn: Capulet
@PASSWORD tybalt@

dn: CN=disabled,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: disabled
userAccountControl: 514
@PASSWORD disabled@

dn: CN=expired,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: expired
userAccountControl: 512
accountExpires: 125911584000000000
@PASSWORD expired@

dn: CN=change,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: change
userAccountControl: 512
pwdLastSet: 0
@PASSWORD change@

dn: CN=stale,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: stale
userAccountControl: 512
@PASSWORD stale@

dn: CN=locked,OU=people,DC=ad,DC=example
objectClass: user
sAMAccountName: locked
userAccountControl: 512
@PASSWORD locked@

dn: CN=A password lives two days,CN=Password Settings Container,CN=System,DC=ad,DC=example
objectClass: msDS-PasswordSettings
msDS-PasswordSettingsPrecedence: 1
msDS-PasswordReversibleEncryptionEnabled: FALSE
msDS-PasswordHistoryLength: 0
msDS-PasswordComplexityEnabled: FALSE
msDS-MinimumPasswordLength: 0
msDS-MinimumPasswordAge: 0
msDS-MaximumPasswordAge: -1728000000000
msDS-LockoutThreshold: 0
msDS-LockoutObservationWindow: 0
msDS-LockoutDuration: 0
msDS-PSOAppliesTo: CN=stale,OU=people,DC=ad,DC=example

dn: CN=Three guesses,CN=Password Settings Container,CN=System,DC=ad,DC=example
objectClass: msDS-PasswordSettings
msDS-PasswordSettingsPrecedence: 2
msDS-PasswordReversibleEncryptionEnabled: FALSE
msDS-PasswordHistoryLength: 0
msDS-PasswordComplexityEnabled: FALSE
msDS-MinimumPasswordLength: 0
msDS-MinimumPasswordAge: 0
msDS-MaximumPasswordAge: -9223372036854775808
msDS-LockoutThreshold: 3
msDS-LockoutObservationWindow: -18000000000
msDS-LockoutDuration: -18000000000
msDS-PSOAppliesTo: CN=locked,OU=people,DC=ad,DC=example
";

/// Nobody can be given an old password but in the database itself: `pwdLastSet` of the year 2000.
const STALE: &str = "dn: CN=stale,OU=people,DC=ad,DC=example
changetype: modify
replace: pwdLastSet
pwdLastSet: 125911584000000000
";

/// Samba's control for that.
const BYPASS_LAST_SET: &str = "--controls=local_oid:1.3.6.1.4.1.7165.4.3.20:0";

/// After the crowd: they name it.
const GROUPS_LDIF: &str = "
dn: CN=leads,OU=groups,DC=ad,DC=example
objectClass: group
sAMAccountName: leads
member: CN=Romeo Montague,OU=people,DC=ad,DC=example

dn: CN=Sales team,OU=groups,DC=ad,DC=example
objectClass: group
sAMAccountName: Sales team
member: CN=leads,OU=groups,DC=ad,DC=example
member: CN=Juliet Capulet,OU=people,DC=ad,DC=example

dn: CN=отдел продаж,OU=groups,DC=ad,DC=example
objectClass: group
sAMAccountName: отдел продаж
member: CN=Sales team,OU=groups,DC=ad,DC=example
member: CN=Capulet\\, Tybalt (guest),OU=people,DC=ad,DC=example

dn: CN=everybody,OU=groups,DC=ad,DC=example
objectClass: group
sAMAccountName: everybody
member: CN=Romeo Montague,OU=people,DC=ad,DC=example
";

/// A running domain controller. It ends, and its directory goes, when this is dropped.
pub struct Samba {
    process: Option<Proc>,
    address: Ipv4Addr,
    _lock: File,
    dir: tempfile::TempDir,
}

impl Samba {
    /// Makes a domain, fills it and starts the server.
    pub fn start() -> Result<Samba> {
        let dir = tempfile::Builder::new()
            .prefix("isthmus-samba-")
            .tempdir()?;
        let (address, lock) = reserve()?;
        let mut samba = Samba {
            process: None,
            address,
            _lock: lock,
            dir,
        };
        for part in PARTS {
            fs::create_dir(samba.path(part))?;
        }
        certificates(samba.dir.path(), address)?;
        fs::write(
            samba.path("smb.conf"),
            configuration(samba.dir.path(), address),
        )?;
        fs::write(
            samba.path("krb5.conf"),
            format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n rdns = false\n\
                 dns_canonicalize_hostname = false\n udp_preference_limit = 1\n\
                 [realms]\n {REALM} = {{\n  kdc = {address}\n }}\n[domain_realm]\n localhost = {REALM}\n"
            ),
        )?;
        samba.tool(
            &["domain", "provision"],
            &[
                "--realm",
                REALM,
                "--domain",
                "ADX",
                "--adminpass",
                "Admin-passw0rd!",
                "--server-role",
                "dc",
                "--dns-backend",
                "NONE",
                "--host-name",
                "dc1",
                "--host-ip",
                &address.to_string(),
            ],
        )?;
        samba.tool(
            &["domain", "passwordsettings", "set"],
            &[
                "--complexity=off",
                "--min-pwd-length=0",
                "--history-length=0",
                "--min-pwd-age=0",
                "--max-pwd-age=0",
            ],
        )?;
        samba.load("ldbadd", &people(), &[])?;
        samba.load("ldbadd", &groups(), &[])?;
        samba.load("ldbmodify", STALE, &[BYPASS_LAST_SET])?;
        samba.restart()?;
        Ok(samba)
    }

    /// A file of this server.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory with `krb5.conf`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Where all its services are.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn configured(&self, option: &str) -> String {
        format!("{option}={}", self.path("smb.conf").display())
    }

    /// Runs `samba-tool`.
    pub fn tool(&self, command: &[&str], arguments: &[&str]) -> Result<()> {
        let mut tool = Command::new("samba-tool");
        tool.args(command)
            .arg(self.configured("--configfile"))
            .env("KRB5_CONFIG", self.path("krb5.conf"));
        run(tool.args(arguments)).map(drop)
    }

    /// Fills the database; the server does not run yet.
    fn load(&self, program: &str, ldif: &str, options: &[&str]) -> Result<()> {
        let file = self.path("load.ldif");
        fs::write(&file, ldif)?;
        let mut command = Command::new(program);
        command.arg("-H").arg(self.path("private/sam.ldb"));
        command
            .arg(self.configured("--configfile"))
            .args(options)
            .arg(file);
        run(&mut command).map(drop)
    }

    /// Starts it, again if it was killed, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let mut command = Command::new("samba");
        command
            .arg(self.configured("--configfile"))
            .args(["-F", "--no-process-group", "--debug-stdout", "-M", "single"])
            .env("KRB5_CONFIG", self.path("krb5.conf"));
        self.process = Some(Proc::start("samba", &mut command, &self.path("samba.out"))?);
        let mut last = None;
        wait::until(START_PATIENCE, || {
            // It knows no "Who am I?".
            match run(self
                .client("ldapsearch")
                .args(["-ZZ", "-s", "base", "-b", BASE, "dn"]))
            {
                Ok(_) => Some(()),
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        })
        .with_context(|| format!("samba does not answer: {last:?}"))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("LDAPTLS_CACERT", self.ca())
            .args(["-x", "-H", &format!("ldap://{}", self.address)])
            .args(["-D", "Administrator@ad.example", "-w", "Admin-passw0rd!"]);
        command
    }

    /// Changes the domain by LDIF, as its administrator.
    pub fn modify(&self, ldif: &str) -> Result<()> {
        let file = self.path("change.ldif");
        fs::write(&file, ldif)?;
        run(self.client("ldapmodify").arg("-ZZ").arg("-f").arg(file)).map(drop)
    }

    /// Arguments of `imadmin init` for a server whose people are here, asked over this scheme.
    pub fn init_args(&self, scheme: &str) -> Result<Vec<String>> {
        let password = self.path("service.password");
        fs::write(&password, format!("{SERVICE_PASSWORD}\n"))?;
        let text = |path: &Path| path.display().to_string();
        let mut args: Vec<String> = [
            ["--ldap", &format!("{scheme}://{}", self.address)],
            ["--ldap-base", PEOPLE],
            ["--ldap-group-base", GROUPS],
            ["--ldap-bind-dn", SERVICE],
            ["--ldap-bind-password-file", &text(&password)],
            ["--ldap-ca", &text(&self.ca())],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        args.push("--ldap-active-directory".to_owned());
        Ok(args)
    }
}

/// An address whose ports are free, and the lock that keeps it ours.
fn reserve() -> Result<(Ipv4Addr, File)> {
    let dir = std::env::temp_dir().join("isthmus-test-addresses");
    fs::create_dir_all(&dir)?;
    for n in 1..=ADDRESSES {
        let address = Ipv4Addr::new(127, 77, 0, n);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(address.to_string()))
            .context("address lock file")?;
        let free = || {
            PORTS
                .iter()
                .all(|port| TcpListener::bind((address, *port)).is_ok())
        };
        if lock.try_lock().is_ok() && free() {
            return Ok((address, lock));
        }
    }
    bail!("no loopback address is free");
}

/// Directories Samba wants.
const PARTS: [&str; 8] = [
    "private", "lock", "state", "cache", "pid", "ncalrpc", "binddns", "sysvol",
];

/// LDAP and Kerberos, nothing else. The netmask makes it count as a network; nothing but the address is bound. Binds without TLS
/// are for [`RangeProxy`].
fn configuration(dir: &Path, address: Ipv4Addr) -> String {
    let dir = dir.display();
    format!(
        "[global]
netbios name = DC1
realm = {REALM}
workgroup = ADX
server role = active directory domain controller
server services = ldap, kdc
dcerpc endpoint servers =
interfaces = {address}/8
ldap server require strong auth = no
bind interfaces only = yes
private dir = {dir}/private
lock directory = {dir}/lock
state directory = {dir}/state
cache directory = {dir}/cache
pid directory = {dir}/pid
ncalrpc dir = {dir}/ncalrpc
binddns dir = {dir}/binddns
posix:eadb = {dir}/eadb.tdb
tls keyfile = {dir}/server.key
tls certfile = {dir}/server.pem
tls cafile = {dir}/ca.pem
logging = file
log file = {dir}/samba.log
[sysvol]
path = {dir}/sysvol
[netlogon]
path = {dir}/sysvol/ad.example/scripts
"
    )
}

fn certificates(dir: &Path, address: Ipv4Addr) -> Result<()> {
    let openssl = |args: &str| {
        run(Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir))
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 3650 -subj /CN=domain-ca"
    ))?;
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=dc1.ad.example"
    ))?;
    fs::write(
        dir.join("ext"),
        format!("subjectAltName=DNS:dc1.ad.example,IP:{address}\n"),
    )?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out server.pem",
    )?;
    // Samba refuses a key that others can read.
    run(Command::new("chmod")
        .args(["600", "server.key"])
        .current_dir(dir))?;
    Ok(())
}

/// A password as a line of LDIF: in quotes, UTF-16 ([MS-ADTS] §3.1.1.3.1.5).
pub fn unicode_password(password: &str) -> String {
    let utf16: Vec<u8> = format!("\"{password}\"")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    format!("unicodePwd:: {}", BASE64.encode(utf16))
}

fn member(n: usize) -> String {
    format!("CN=Member {n:04},{PEOPLE}")
}

fn people() -> String {
    let mut picture = vec![0xff, 0xd8, 0xff, 0xe0];
    picture.extend([7; 1_000]);
    let mut out = LDIF
        .trim_start()
        .replace("@PHOTO@", &BASE64.encode(picture));
    let mut set = |name: &str, password: &str| {
        out = out.replace(&format!("@PASSWORD {name}@"), &unicode_password(password));
    };
    for name in PASSWORDS {
        set(name, &format!("{name}-password"));
    }
    set("isthmus", SERVICE_PASSWORD);
    set("juliet", JULIET_PASSWORD);
    for n in 0..CROWD {
        // 544: no password is needed to be an account; nobody logs in as one of them.
        let _ = write!(
            out,
            "\ndn: {}\nobjectClass: user\nsAMAccountName: u{n:04}\nuserAccountControl: 544\ndisplayName: Member {n:04}\n",
            member(n)
        );
    }
    out
}

fn groups() -> String {
    let mut out = String::new();
    for line in GROUPS_LDIF.trim_start().lines() {
        // LDIF wants base64 for what is not ASCII (RFC 2849).
        match line.split_once(": ") {
            Some((name, value)) if !value.is_ascii() => {
                let _ = writeln!(out, "{name}:: {}", BASE64.encode(value));
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    for n in 0..CROWD {
        let _ = writeln!(out, "member: {}", member(n));
    }
    out
}
