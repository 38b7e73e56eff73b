//! A real OpenLDAP server with a directory of its own, on free ports, with TLS by a CA of its own.
//!
//! The tree: people `u00000`, `u00001`, ... (passwords as [`crate::client::Account::new`] has them) under `ou=people`, groups
//! `g000`, ... of twenty each under `ou=groups`, and some who are odd; `LDIF` lists those. It is loaded with `slapadd`, which takes
//! a second for 10,000 people.

use crate::harness::{Proc, run};
use crate::ports::PortBlock;
use crate::wait;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The suffix of the tree.
pub const BASE: &str = "dc=corp,dc=example";
/// Where people are.
pub const PEOPLE: &str = "ou=people,dc=corp,dc=example";
/// Where groups are.
pub const GROUPS: &str = "ou=groups,dc=corp,dc=example";
/// The service account: reads everything, writes.
pub const SERVICE: &str = "cn=isthmus,dc=corp,dc=example";
/// Its password.
pub const SERVICE_PASSWORD: &str = "service-password";
/// Another one, which gets 100 entries of a search at most.
pub const LIMITED: &str = "cn=limited,dc=corp,dc=example";

const ROOT: &str = "cn=root,dc=corp,dc=example";
const ROOT_PASSWORD: &str = "root-password";

/// Members of each of the many groups.
const MEMBERS: usize = 20;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The odd ones. `@PHOTO@` is a small picture, `@BIG@` one of 5 MB.
const LDIF: &str = "
dn: uid=romeo,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: romeo
cn: Romeo Montague
givenName: Romeo
sn: Montague
mail: romeo@corp.example
telephoneNumber: +39 045 1
title: lover
o: House of Montague
ou: Verona
userPassword: romeo-password
jpegPhoto:: @PHOTO@

dn: uid=juliet,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: juliet
cn: Juliet Capulet
givenName: Juliet
sn: Capulet
mail: juliet@corp.example
title: engineer
userPassword: juliet-password

dn: cn=Capulet\\, Tybalt,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: tybalt
cn: Capulet, Tybalt
sn: Capulet
userPassword: tybalt-password
jpegPhoto:: @BIG@

dn: uid=expired,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
objectClass: shadowAccount
uid: expired
cn: Expired
sn: Expired
shadowExpire: 1
userPassword: expired-password

dn: uid=left,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: left
cn: Left
sn: Left
employeeType: left
userPassword: left-password

dn: uid=bare,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: bare
cn: bare
sn: bare

dn: uid=twin1,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: twin1
cn: Twin
sn: Twin
mail: twin@corp.example
userPassword: twin-password

dn: uid=twin2,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: twin2
cn: Twin
sn: Twin
mail: twin@corp.example
userPassword: twin-password

dn: uid=no address,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: no address
cn: No Address
sn: Address
userPassword: no-password

dn: cn=Sales team,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: Sales team
description: The people who sell
member: UID=Romeo, ou=People,dc=corp,dc=example
member: uid=juliet,ou=people,dc=corp,dc=example

dn: cn=\u{43e}\u{442}\u{434}\u{435}\u{43b} \u{43f}\u{440}\u{43e}\u{434}\u{430}\u{436},ou=groups,dc=corp,dc=example
objectClass: posixGroup
cn: \u{43e}\u{442}\u{434}\u{435}\u{43b} \u{43f}\u{440}\u{43e}\u{434}\u{430}\u{436}
gidNumber: 7
memberUid: juliet
memberUid: tybalt

dn: cn=unique,ou=groups,dc=corp,dc=example
objectClass: groupOfUniqueNames
cn: unique
uniqueMember: cn=Capulet\\, Tybalt,ou=people,dc=corp,dc=example

dn: cn=circle a,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: circle a
member: cn=circle b,ou=groups,dc=corp,dc=example
member: uid=romeo,ou=people,dc=corp,dc=example

dn: cn=circle b,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: circle b
member: cn=circle a,ou=groups,dc=corp,dc=example
member: uid=juliet,ou=people,dc=corp,dc=example

dn: cn=engineers,ou=groups,dc=corp,dc=example
objectClass: groupOfURLs
cn: engineers
memberURL: ldap:///ou=people,dc=corp,dc=example??sub?(title=engineer)
";

/// A running server. It ends, and its directory goes, when this is dropped.
pub struct Slapd {
    process: Option<Proc>,
    ports: PortBlock,
    dir: tempfile::TempDir,
}

/// What is loaded beside the odd ones.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// How many people.
    pub people: usize,
    /// How many groups, of twenty each.
    pub groups: usize,
    /// More entries, as LDIF.
    pub more: String,
}

impl Slapd {
    /// Loads a tree of so many people and groups beside the odd ones, and starts a server on it.
    pub fn start(people: usize, groups: usize) -> Result<Slapd> {
        let more = String::new();
        Self::load(&Tree {
            people,
            groups,
            more,
        })
    }

    /// Loads a tree and starts a server on it.
    pub fn load(tree: &Tree) -> Result<Slapd> {
        let dir = tempfile::Builder::new()
            .prefix("isthmus-slapd-")
            .tempdir()?;
        let slapd = Slapd {
            process: None,
            ports: PortBlock::reserve()?,
            dir,
        };
        fs::create_dir(slapd.path("db"))?;
        certificates(slapd.dir.path())?;
        fs::write(slapd.path("slapd.conf"), configuration(slapd.dir.path()))?;
        let ldif = ldif(tree.people, tree.groups) + &tree.more;
        fs::write(slapd.path("tree.ldif"), ldif)?;
        run(Command::new("/usr/sbin/slapadd")
            .arg("-q")
            .arg("-f")
            .arg(slapd.path("slapd.conf"))
            .arg("-l")
            .arg(slapd.path("tree.ldif")))?;
        let mut slapd = slapd;
        slapd.restart()?;
        Ok(slapd)
    }

    /// A file of this server.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// `ldap://`, with StartTLS.
    pub fn address(&self) -> SocketAddr {
        self.port(5222)
    }

    /// `ldaps://`.
    pub fn tls_address(&self) -> SocketAddr {
        self.port(5223)
    }

    fn port(&self, base: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, base + self.ports.offset()))
    }

    /// `ldap://localhost:PORT`, the name its certificate is for.
    pub fn uri(&self) -> String {
        format!("ldap://localhost:{}", self.address().port())
    }

    /// `ldaps://localhost:PORT`.
    pub fn tls_uri(&self) -> String {
        format!("ldaps://localhost:{}", self.tls_address().port())
    }

    /// Starts it, again if it was killed, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let listeners = format!(
            "ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/",
            self.address().port(),
            self.tls_address().port()
        );
        let mut command = Command::new("/usr/sbin/slapd");
        // 256: a line for each operation.
        command
            .args(["-d", "256", "-h", &listeners])
            .arg("-f")
            .arg(self.path("slapd.conf"));
        self.process = Some(Proc::start("slapd", &mut command, &self.path("slapd.log"))?);
        let mut last = None;
        wait::until(START_PATIENCE, || match run(&mut self.tool("ldapwhoami")) {
            Ok(_) => Some(()),
            Err(error) => {
                last = Some(error);
                None
            }
        })
        .with_context(|| format!("slapd does not answer: {last:?}"))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self
            .process
            .as_ref()
            .context("slapd was killed")?
            .pid()
            .to_string();
        run(Command::new("kill").args([signal, &pid])).map(drop)
    }

    /// It takes connections and says nothing any more.
    pub fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// It goes on.
    pub fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.args([
            "-x",
            "-H",
            &format!("ldap://{}", self.address()),
            "-D",
            ROOT,
            "-w",
            ROOT_PASSWORD,
        ]);
        command
    }

    /// Changes the tree by LDIF.
    pub fn modify(&self, ldif: &str) -> Result<()> {
        let file = self.path("change.ldif");
        fs::write(&file, ldif)?;
        run(self.tool("ldapmodify").arg("-f").arg(file)).map(drop)
    }

    /// Arguments of `imadmin init` for a server whose people are here.
    pub fn init_args(&self) -> Result<Vec<String>> {
        let password = self.path("service.password");
        fs::write(&password, format!("{SERVICE_PASSWORD}\n"))?;
        let text = |path: &Path| path.display().to_string();
        Ok([
            ["--ldap", &self.uri()],
            ["--ldap-base", PEOPLE],
            ["--ldap-group-base", GROUPS],
            ["--ldap-bind-dn", SERVICE],
            ["--ldap-bind-password-file", &text(&password)],
            ["--ldap-ca", &text(&self.ca())],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect())
    }

    /// Adds somebody, with the password that [`crate::client::Account::new`] has.
    pub fn add(&self, uid: &str) -> Result<()> {
        self.modify(&format!(
            "dn: uid={uid},{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\nuserPassword: {uid}-password\n"
        ))
    }

    /// All that the entry of somebody holds, what the server writes of its changes too.
    pub fn entry(&self, uid: &str) -> Result<String> {
        let dn = format!("uid={uid},{PEOPLE}");
        let mut search = self.tool("ldapsearch");
        search.args(["-LLL", "-s", "base", "-b", &dn, "*", "+"]);
        Ok(String::from_utf8(run(&mut search)?.stdout)?)
    }

    /// Gives somebody another password.
    pub fn set_password(&self, uid: &str, password: &str) -> Result<()> {
        self.modify(&format!(
            "dn: uid={uid},{PEOPLE}\nchangetype: modify\nreplace: userPassword\nuserPassword: {password}\n"
        ))
    }

    /// Deletes somebody.
    pub fn delete(&self, uid: &str) -> Result<()> {
        self.modify(&format!("dn: uid={uid},{PEOPLE}\nchangetype: delete\n"))
    }

    /// Searches and binds that have reached it so far.
    pub fn operations(&self) -> (usize, usize) {
        let log = fs::read_to_string(self.path("slapd.log")).unwrap_or_default();
        let count = |words: [&str; 2]| {
            let fits = |l: &&str| words.iter().all(|w| l.contains(w));
            log.lines().filter(fits).count()
        };
        // A bind that succeeds has another line, without its method.
        (count([" SRCH ", "base="]), count([" BIND ", "method="]))
    }

    /// Every search filter and name that has reached it so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("slapd.log")).unwrap_or_default()
    }
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/dyngroup.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
argsfile {dir}/slapd.args
TLSCACertificateFile {dir}/ca.pem
TLSCertificateFile {dir}/server.pem
TLSCertificateKeyFile {dir}/server.key
TLSVerifyClient never
database mdb
maxsize 1073741824
directory {dir}/db
suffix {BASE}
rootdn {ROOT}
rootpw {ROOT_PASSWORD}
index objectClass,memberUid,gidNumber,title eq
index uid,cn,sn,givenName,mail eq,pres,sub
limits dn.exact={SERVICE} size.soft=unlimited size.hard=unlimited
limits dn.exact={LIMITED} size.soft=100 size.hard=100
access to attrs=userPassword by dn.exact={SERVICE} write by anonymous auth by self write by * none
access to * by dn.exact={SERVICE} write by users read by * none
"
    )
}

fn certificates(dir: &Path) -> Result<()> {
    let openssl = |args: &str| {
        run(Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir))
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 3650 -subj /CN=directory-ca"
    ))?;
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=localhost"
    ))?;
    fs::write(
        dir.join("ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n",
    )?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out server.pem",
    )?;
    Ok(())
}

fn ldif(people: usize, groups: usize) -> String {
    let mut out = format!("dn: {BASE}\nobjectClass: domain\ndc: corp\n\n");
    for unit in ["people", "groups"] {
        let _ = write!(
            out,
            "dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\nou: {unit}\n\n"
        );
    }
    for name in [SERVICE, LIMITED] {
        let cn = name
            .trim_start_matches("cn=")
            .split(',')
            .next()
            .unwrap_or_default();
        let _ = write!(
            out,
            "dn: {name}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: {cn}\nuserPassword: {SERVICE_PASSWORD}\n\n"
        );
    }
    let mut picture = vec![0xff, 0xd8, 0xff, 0xe0];
    picture.extend([7; 1_000]);
    let small = BASE64.encode(&picture);
    picture.resize(5_000_000, 7);
    let odd = LDIF
        .replace("@PHOTO@", &small)
        .replace("@BIG@", &BASE64.encode(&picture));
    for line in odd.trim_start().lines() {
        out.push_str(&safe(line));
        out.push('\n');
    }
    out.push('\n');
    for n in 0..people {
        let uid = format!("u{n:05}");
        let _ = write!(
            out,
            "dn: uid={uid},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: Person {n:05}\ngivenName: Person\nsn: Number {n:05}\nmail: {uid}@corp.example\nuserPassword: {uid}-password\n\n"
        );
    }
    for n in 0..groups {
        let _ = write!(
            out,
            "dn: cn=g{n:03},{GROUPS}\nobjectClass: groupOfNames\ncn: g{n:03}\n"
        );
        for m in 0..MEMBERS.min(people) {
            let _ = writeln!(
                out,
                "member: uid=u{:05},{PEOPLE}",
                (n * MEMBERS + m) % people
            );
        }
        out.push('\n');
    }
    out
}

/// LDIF wants base64 for what is not ASCII (RFC 2849).
fn safe(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) if !value.is_ascii() => format!("{name}:: {}", BASE64.encode(value)),
        _ => line.to_owned(),
    }
}
