//! The names a client's certificate gives its owner, for SASL EXTERNAL.
//!
//! In: a certificate that a mux has verified. Out: names of the kind the site has chosen. A decision, without I/O.
//! Never: judges whether the certificate is good; takes one kind of name for want of another; gives a name with a NUL in it.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use xmpp::sasl::CertificateName;

/// Names looked at in one certificate. They are the site's CA's own; this bounds what a strange one can make us keep.
pub const NAMES_MAX: usize = 64;

/// `id-on-xmppAddr` (RFC 6120 §13.7.1.4): 1.3.6.1.5.5.7.8.5, as in DER.
const ID_ON_XMPP_ADDR: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 8, 5];

/// Which name of a certificate says who its owner is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CertificateMapping {
    /// The XMPP addresses of the subjectAltName.
    #[default]
    XmppAddr,
    /// Its e-mail addresses (`rfc822Name`), as login names.
    Mail,
    /// The common name of the subject, as login name. Only if there is exactly one.
    CommonName,
}

impl CertificateMapping {
    /// All, as configurations call them.
    pub const ALL: [(&'static str, Self); 3] = [
        ("xmpp_addr", Self::XmppAddr),
        ("mail", Self::Mail),
        ("cn", Self::CommonName),
    ];
}

/// The names of a certificate (DER). What is no certificate has none.
pub fn names(der: &[u8], mapping: CertificateMapping) -> Vec<CertificateName> {
    let Ok((rest, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    if !rest.is_empty() {
        return Vec::new();
    }
    let names: Vec<CertificateName> = match mapping {
        CertificateMapping::CommonName => {
            let mut all = certificate.subject().iter_common_name();
            match (all.next().and_then(|cn| cn.as_str().ok()), all.next()) {
                (Some(name), None) => vec![CertificateName::Login(name.to_owned())],
                _ => Vec::new(),
            }
        }
        CertificateMapping::XmppAddr | CertificateMapping::Mail => {
            // Two such extensions are an error (RFC 5280 §4.2), and then there are no names.
            let Ok(Some(extension)) = certificate.subject_alternative_name() else {
                return Vec::new();
            };
            let all = extension.value.general_names.iter();
            all.filter_map(|name| alternative_name(name, mapping))
                .take(NAMES_MAX)
                .collect()
        }
    };
    names.into_iter().filter(is_clean).collect()
}

fn alternative_name(
    name: &GeneralName<'_>,
    mapping: CertificateMapping,
) -> Option<CertificateName> {
    match (name, mapping) {
        (GeneralName::OtherName(oid, value), CertificateMapping::XmppAddr)
            if oid.as_bytes() == ID_ON_XMPP_ADDR =>
        {
            Some(CertificateName::XmppAddr(utf8_string(value)?.to_owned()))
        }
        (GeneralName::RFC822Name(mail), CertificateMapping::Mail) => {
            Some(CertificateName::Login((*mail).to_owned()))
        }
        _ => None,
    }
}

/// A name that ends early for a C program is a trap; nobody's name has one.
fn is_clean(name: &CertificateName) -> bool {
    let (CertificateName::XmppAddr(text) | CertificateName::Login(text)) = name;
    !text.is_empty() && !text.contains('\0')
}

/// `[0] EXPLICIT UTF8String`, and nothing else.
fn utf8_string(value: &[u8]) -> Option<&str> {
    let string = der_content(value, 0xa0)?;
    std::str::from_utf8(der_content(string, 0x0c)?).ok()
}

/// The content of the one DER element with this tag that `bytes` is.
fn der_content(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&first, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Two bytes of length are longer than any address; DER has no padded lengths.
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (Some(usize::from(length)).filter(|l| *l >= 0x80)?, rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            (Some(length).filter(|l| *l >= 0x100)?, rest)
        }
        _ => return None,
    };
    (first == tag && rest.len() == length).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};

    fn xmpp(text: &str) -> SanType {
        SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], text.to_owned().into()))
    }

    fn mail(text: &str) -> SanType {
        SanType::Rfc822Name(text.try_into().unwrap())
    }

    fn certificate(
        common_names: &[&str],
        sans: Vec<SanType>,
        extra: Vec<CustomExtension>,
    ) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = sans;
        params.custom_extensions = extra;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_by_kind() {
        let der = certificate(
            &["Romeo Montague"],
            vec![
                xmpp("romeo@verona.lit"),
                mail("romeo@mail.verona.lit"),
                SanType::DnsName("verona.lit".try_into().unwrap()),
                SanType::OtherName((
                    vec![1, 3, 6, 1, 5, 5, 7, 8, 7],
                    "other@verona.lit".to_owned().into(),
                )),
                xmpp("romeo@mantua.lit"),
            ],
            vec![],
        );
        let login = |text: &str| CertificateName::Login(text.to_owned());
        let address = |text: &str| CertificateName::XmppAddr(text.to_owned());
        for (mapping, expected) in [
            (
                CertificateMapping::XmppAddr,
                vec![address("romeo@verona.lit"), address("romeo@mantua.lit")],
            ),
            (
                CertificateMapping::Mail,
                vec![login("romeo@mail.verona.lit")],
            ),
            (
                CertificateMapping::CommonName,
                vec![login("Romeo Montague")],
            ),
        ] {
            assert_eq!(names(&der, mapping), expected, "{mapping:?}");
        }
    }

    #[test]
    fn one_kind_of_name_is_never_taken_for_want_of_another() {
        let only_cn = certificate(&["romeo@verona.lit"], vec![], vec![]);
        let only_mail = certificate(&[], vec![mail("romeo@verona.lit")], vec![]);
        for (der, mapping) in [
            (&only_cn, CertificateMapping::XmppAddr),
            (&only_cn, CertificateMapping::Mail),
            (&only_mail, CertificateMapping::XmppAddr),
            (&only_mail, CertificateMapping::CommonName),
        ] {
            assert_eq!(names(der, mapping), []);
        }
    }

    #[test]
    fn hostile_certificates_have_no_names() {
        let none: Vec<CertificateName> = Vec::new();
        let nul = certificate(
            &["romeo\0.evil"],
            vec![xmpp("romeo@verona.lit\0.evil.lit"), xmpp(""), mail("a\0b")],
            vec![],
        );
        for (_, mapping) in CertificateMapping::ALL {
            assert_eq!(names(&nul, mapping), none);
            assert_eq!(names(b"", mapping), none);
            assert_eq!(names(b"\x30\x82\xff\xff", mapping), none);
            assert_eq!(names(&nul[..nul.len() - 1], mapping), none);
            let mut longer = nul.clone();
            longer.push(0);
            assert_eq!(names(&longer, mapping), none);
        }
        // The second of two subjectAltNames, by hand: SEQUENCE { [1] "romeo@verona.lit" }.
        let mut value = vec![0x30, 18, 0x81, 16];
        value.extend_from_slice(b"romeo@verona.lit");
        let second = CustomExtension::from_oid_content(&[2, 5, 29, 17], value);
        let twice = certificate(&[], vec![xmpp("romeo@verona.lit")], vec![second]);
        assert_eq!(names(&twice, CertificateMapping::XmppAddr), none);
        assert_eq!(names(&twice, CertificateMapping::Mail), none);
    }

    #[test]
    fn many_names_are_cut() {
        let sans = (0..5_000)
            .map(|n| xmpp(&format!("u{n}@verona.lit")))
            .collect();
        let der = certificate(&[], sans, vec![]);
        assert_eq!(names(&der, CertificateMapping::XmppAddr).len(), NAMES_MAX);
    }

    #[test]
    fn the_value_of_an_other_name_is_one_utf8_string() {
        for (value, text) in [
            (&b"\xa0\x03\x0c\x01a"[..], Some("a")),
            (b"\xa0\x02\x0c\x00", Some("")),
            // An IA5String, a primitive tag, bytes behind, too short, padded lengths, indefinite length, no UTF-8.
            (b"\xa0\x03\x16\x01a", None),
            (b"\x80\x03\x0c\x01a", None),
            (b"\xa0\x03\x0c\x01ab", None),
            (b"\xa0\x04\x0c\x01ab", None),
            (b"\xa0\x03\x0c\x02a", None),
            (b"\xa0\x81\x03\x0c\x01a", None),
            (b"\xa0\x80\x0c\x01a\0\0", None),
            (b"\xa0\x03\x0c\x01\xff", None),
            (b"\xa0", None),
            (b"", None),
        ] {
            assert_eq!(utf8_string(value), text, "{value:?}");
        }
        let long = "x".repeat(0x90);
        let value = [b"\xa0\x81\x93\x0c\x81\x90", long.as_bytes()].concat();
        assert_eq!(utf8_string(&value), Some(long.as_str()));
    }
}
