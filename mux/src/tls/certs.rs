//! Certificates for clients: read, checked, chosen by SNI, taken anew when their content changes.
//!
//! In: files. Out: [`ServerConfigs`], one immutable set per content. Owns: the current set.
//! Never: touches a connection that has its TLS; drops a good certificate for a bad file.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use bytes::Bytes;
use proto::frame::ListenerKind;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::*;

use super::capture::{self, ExporterLog};
use super::verify::{RecordClient, RecordServer};
use crate::config::{CertificateConfig, TlsConfig};

/// The one crypto provider of this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A certificate with its key and what is computed from it once.
#[derive(Debug)]
pub struct Certified {
    key: Arc<CertifiedKey>,
    end_point: Option<Bytes>,
    not_after: i64,
    digest: [u8; 32],
}

impl Certified {
    /// Last second it is valid, as Unix time.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Hash of the files it came from.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

fn digest_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// Reads a PEM chain with its key and checks that they belong together. Errors are one sentence with the file.
pub fn load(chain: &Path, key: &Path) -> Result<Certified, String> {
    let chain_pem = read(chain)?;
    let key_pem = read(key)?;
    let digest = digest_of(&[&chain_pem, &key_pem]);
    let certs = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("{} is no PEM certificate chain: {e:?}", chain.display()))?;
    let Some(leaf) = certs.first() else {
        return Err(format!("{} holds no certificate", chain.display()));
    };
    let end_point = end_point(leaf);
    let not_after = match X509Certificate::from_der(leaf) {
        Ok((_, parsed)) => parsed.validity().not_after.timestamp(),
        Err(e) => {
            return Err(format!(
                "{}: the first certificate cannot be read: {e}",
                chain.display()
            ));
        }
    };
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|e| format!("{} holds no PEM private key: {e:?}", key.display()))?;
    let certified = CertifiedKey::from_der(certs, private, &provider()).map_err(|e| {
        format!(
            "{} and {} do not belong together: {e}",
            chain.display(),
            key.display()
        )
    })?;
    Ok(Certified {
        key: Arc::new(certified),
        end_point,
        not_after,
        digest,
    })
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate's hash by the hash of its signature, SHA-256 for MD5
/// and SHA-1. `None` where the signature has no single hash (Ed25519): then it is undefined.
pub fn end_point(leaf: &[u8]) -> Option<Bytes> {
    let (_, cert) = X509Certificate::from_der(leaf).ok()?;
    let hash = match x509_parser::signature_algorithm::SignatureAlgorithm::try_from(
        &cert.signature_algorithm,
    )
    .ok()?
    {
        x509_parser::signature_algorithm::SignatureAlgorithm::RSASSA_PSS(params) => {
            params.hash_algorithm_oid().to_id_string()
        }
        _ => cert.signature_algorithm.algorithm.to_id_string(),
    };
    let algorithm = match hash.as_str() {
        // MD5, SHA-1 with RSA, ECDSA; SHA-1 alone (RSASSA-PSS default)
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.3.14.3.2.26" => {
            &digest::SHA256
        }
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.2.1" => {
            &digest::SHA256
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            &digest::SHA384
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            &digest::SHA512
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.2.4" => {
            &digest::SHA224
        }
        _ => return None,
    };
    Some(Bytes::copy_from_slice(
        digest::digest(algorithm, leaf).as_ref(),
    ))
}

struct BySni {
    names: HashMap<String, Arc<Certified>>,
    default: Arc<Certified>,
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names.keys()).finish()
    }
}

impl BySni {
    fn choose(&self, sni: Option<&str>) -> &Arc<Certified> {
        let Some(sni) = sni else { return &self.default };
        let sni = sni.trim_end_matches('.').to_ascii_lowercase();
        if let Some(found) = self.names.get(&sni) {
            return found;
        }
        let wild = sni
            .split_once('.')
            .and_then(|(_, rest)| self.names.get(&format!("*.{rest}")));
        wild.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name());
        capture::note(|c| {
            c.sni = hello.server_name().map(str::to_owned);
            c.server_end_point = chosen.end_point.clone();
        });
        Some(chosen.key.clone())
    }
}

/// Which of the configurations a connection needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Kind of stream.
    pub kind: ListenerKind,
    /// TLS from the first byte: then a wrong ALPN is refused (XEP-0368); absent is fine.
    pub direct: bool,
    /// HTTP comes first: WebSocket.
    pub http: bool,
    /// Ask for a client certificate.
    pub request_certificate: bool,
}

/// Everything TLS needs, made from one state of the files. Tickets are sealed by keys of this set, so a session of an
/// old certificate is never resumed under a new one (its `tls-server-end-point` would lie).
pub struct ServerConfigs {
    /// STARTTLS, c2s direct, s2s direct, HTTP; each without and with a request for a certificate.
    server: [Arc<ServerConfig>; 8],
    /// Dialled: plain (STARTTLS), s2s direct.
    client: [Arc<ClientConfig>; 2],
}

impl fmt::Debug for ServerConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerConfigs")
    }
}

impl ServerConfigs {
    fn new(
        names: HashMap<String, Arc<Certified>>,
        default: Arc<Certified>,
        roots: Option<&Arc<RootCertStore>>,
    ) -> Result<Self, String> {
        let provider = provider();
        let resolver = Arc::new(BySni { names, default });
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|e| format!("no ticket key: {e}"))?;
        let inner = match roots {
            Some(roots) => Some(
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| format!("client CAs: {e}"))?,
            ),
            None => None,
        };
        let record = Arc::new(RecordClient {
            inner,
            provider: provider.clone(),
        });
        let make = |alpn: Option<&[u8]>, ask: bool| -> Result<Arc<ServerConfig>, String> {
            let builder = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?;
            let mut config = if ask {
                builder
                    .with_client_cert_verifier(record.clone())
                    .with_cert_resolver(resolver.clone())
            } else {
                builder
                    .with_no_client_auth()
                    .with_cert_resolver(resolver.clone())
            };
            config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
            config.key_log = Arc::new(ExporterLog);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.max_early_data_size = 0;
            if ask {
                // A resumed session is not verified again, so there are none with certificates.
                config.send_tls13_tickets = 0;
            } else {
                config.ticketer = ticketer.clone();
                config.send_tls13_tickets = 1;
            }
            Ok(Arc::new(config))
        };
        let c2s: Option<&[u8]> = Some(b"xmpp-client");
        let s2s: Option<&[u8]> = Some(b"xmpp-server");
        // No h2: WebSocket over HTTP/2 (RFC 8441) is another protocol.
        let http: Option<&[u8]> = Some(b"http/1.1");
        let server = [
            make(None, false)?,
            make(None, true)?,
            make(c2s, false)?,
            make(c2s, true)?,
            make(s2s, false)?,
            make(s2s, true)?,
            make(http, false)?,
            make(http, true)?,
        ];
        let client = [client_config(None, roots)?, client_config(s2s, roots)?];
        Ok(Self { server, client })
    }

    /// The configuration for a connection we accepted.
    pub fn server(&self, wanted: Wanted) -> Arc<ServerConfig> {
        let row = match (wanted.direct, wanted.kind) {
            _ if wanted.http => 6,
            (false, _) | (true, ListenerKind::Component) => 0,
            (true, ListenerKind::C2s) => 2,
            (true, ListenerKind::S2s) => 4,
        };
        self.server[row + usize::from(wanted.request_certificate)].clone()
    }

    /// The configuration for a connection we dialled.
    pub fn client(&self, direct: bool) -> Arc<ClientConfig> {
        self.client[usize::from(direct)].clone()
    }
}

fn client_config(
    alpn: Option<&[u8]>,
    roots: Option<&Arc<RootCertStore>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let inner = match roots {
        Some(roots) => Some(
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|e| format!("CAs: {e}"))?,
        ),
        None => None,
    };
    let verifier = Arc::new(RecordServer {
        inner,
        provider: provider.clone(),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    config.key_log = Arc::new(ExporterLog);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Reads PEM files of CA certificates.
pub fn load_roots(paths: &[PathBuf]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        let pem = read(path)?;
        let before = roots.len();
        for cert in CertificateDer::pem_slice_iter(&pem) {
            let cert =
                cert.map_err(|e| format!("{} is no PEM certificate file: {e:?}", path.display()))?;
            roots
                .add(cert)
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        if roots.len() == before {
            return Err(format!("{} holds no certificate", path.display()));
        }
    }
    Ok(Arc::new(roots))
}

/// The current set, shared by all threads; replaced whole.
#[derive(Debug, Default)]
pub struct Certs {
    current: RwLock<Option<Arc<ServerConfigs>>>,
}

/// The loader's memory: what each entry of the configuration last gave.
#[derive(Debug, Default)]
pub struct Loader {
    loaded: Vec<(CertificateConfig, Arc<Certified>)>,
    /// Digest of every file seen last time, good or bad, so that each bad content is reported once.
    seen: HashMap<FilePair, [u8; 32]>,
    roots: Option<Arc<RootCertStore>>,
    /// The CA files seen last time, good or bad, and the digest of what was in them.
    roots_seen: Option<(Vec<PathBuf>, [u8; 32])>,
}

type FilePair = (PathBuf, PathBuf);

/// What a load changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Something is different: a new set is in use.
    pub changed: bool,
    /// One line for each certificate taken.
    pub taken: Vec<String>,
    /// One line for each file that is bad (and was not reported before with the same content).
    pub bad: Vec<String>,
}

impl Certs {
    /// The set in use; `None`: no certificate at all.
    pub fn current(&self) -> Option<Arc<ServerConfigs>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn replace(&self, set: Option<Arc<ServerConfigs>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = set;
    }
}

impl Loader {
    /// Looks at all files; if any content is new, loads it and replaces the set in `certs`. A bad file keeps the
    /// certificate the entry had.
    pub fn refresh(
        &mut self,
        certs: &Certs,
        wanted: &[CertificateConfig],
        tls: &TlsConfig,
    ) -> Loaded {
        let mut report = Loaded::default();
        let mut next: Vec<(CertificateConfig, Arc<Certified>)> = Vec::new();
        for entry in wanted {
            let files = (entry.chain.clone(), entry.key.clone());
            let old = self
                .loaded
                .iter()
                .find(|(e, _)| e.chain == entry.chain && e.key == entry.key);
            let old = old.map(|(_, certified)| certified.clone());
            let digest = content(&[&entry.chain, &entry.key]);
            let same = self.seen.get(&files) == Some(&digest);
            self.seen.insert(files, digest);
            if same {
                next.extend(old.map(|c| (entry.clone(), c)));
                continue;
            }
            match load(&entry.chain, &entry.key) {
                Ok(certified) => {
                    report.taken.push(format!(
                        "{} for {}",
                        entry.chain.display(),
                        entry.domains.join(", ")
                    ));
                    next.push((entry.clone(), Arc::new(certified)));
                }
                Err(text) => {
                    report.bad.push(text);
                    next.extend(old.map(|c| (entry.clone(), c)));
                }
            }
        }
        let roots_changed = self.refresh_roots(tls, &mut report);
        report.changed = roots_changed || !same_set(&self.loaded, &next);
        if !report.changed {
            return report;
        }
        let mut names = HashMap::new();
        for (entry, certified) in &next {
            for domain in &entry.domains {
                names
                    .entry(domain.clone())
                    .or_insert_with(|| certified.clone());
            }
        }
        let roots = self.roots.as_ref();
        match next
            .first()
            .map(|(_, default)| ServerConfigs::new(names, default.clone(), roots))
        {
            Some(Ok(set)) => certs.replace(Some(Arc::new(set))),
            Some(Err(text)) => {
                report.bad.push(text);
                report.changed = false;
                return report;
            }
            None => certs.replace(None),
        }
        self.loaded = next;
        report
    }

    fn refresh_roots(&mut self, tls: &TlsConfig, report: &mut Loaded) -> bool {
        let paths = &tls.client_ca;
        if paths.is_empty() {
            self.roots_seen = None;
            return self.roots.take().is_some();
        }
        let files: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let now = Some((paths.clone(), content(&files)));
        if self.roots_seen == now {
            return false;
        }
        self.roots_seen = now;
        match load_roots(paths) {
            Ok(roots) => {
                let names: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
                report
                    .taken
                    .push(format!("{} CAs of {}", roots.len(), names.join(", ")));
                self.roots = Some(roots);
                true
            }
            Err(text) => {
                report.bad.push(text);
                false
            }
        }
    }

    /// Last valid second of the certificate that ends first, as Unix time.
    pub fn first_expiry(&self) -> Option<i64> {
        self.loaded.iter().map(|(_, c)| c.not_after()).min()
    }
}

fn same_set(
    a: &[(CertificateConfig, Arc<Certified>)],
    b: &[(CertificateConfig, Arc<Certified>)],
) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(x, y)| x.0 == y.0 && x.1.digest() == y.1.digest())
}

/// Digest of what files hold now; a file that cannot be read counts by its error.
fn content(files: &[&Path]) -> [u8; 32] {
    let held: Vec<Vec<u8>> = files
        .iter()
        .map(|p| std::fs::read(p).unwrap_or_else(|e| format!("unreadable: {e}").into_bytes()))
        .collect();
    let held: Vec<&[u8]> = held.iter().map(Vec::as_slice).collect();
    digest_of(&held)
}
