//! The stream header as the peer sent it.

use super::namespaces::{Prefix, StreamNamespaces};
use crate::element::{AttrScan, ContentNs, checked_str, unescape};
use crate::error::StreamError;
use crate::ns;

/// The version of XMPP, RFC 6120 §4.7.5.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamVersion {
    /// 1 for every version of XMPP so far.
    pub major: u32,
    /// 0 so far.
    pub minor: u32,
}

impl StreamVersion {
    fn parse(s: &str) -> Option<StreamVersion> {
        let (major, minor) = s.split_once('.')?;
        let number = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| part.parse().ok())
                .flatten()
        };
        Some(StreamVersion {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

/// The opening tag of a stream: `<stream:stream>`, or `<open/>` over WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamHeader {
    /// As written; not checked to be an address.
    pub to: Option<String>,
    /// As written; not checked to be an address.
    pub from: Option<String>,
    /// Only a responding server sends one.
    pub id: Option<String>,
    /// None: no version, which means 0.9 (RFC 6120 §4.7.5).
    pub version: Option<StreamVersion>,
    /// The default language of the stream.
    pub lang: Option<String>,
    /// The default namespace of the stream.
    pub content_ns: ContentNs,
    /// Whether it was `<open/>`.
    pub framed: bool,
    /// What stays in force, to go on in mid-stream with
    /// [`super::StreamParser::resume_after_header`].
    pub namespaces: StreamNamespaces,
}

/// A header's own mistake, with a word for the log.
pub(super) type HeaderError = (StreamError, &'static str);

impl StreamHeader {
    /// Reads the checked start tag of a stream. `ns` is the resolved namespace of its name.
    pub(super) fn read(
        tag: &[u8],
        element_ns: &str,
        framed: bool,
    ) -> Result<StreamHeader, HeaderError> {
        let mut header = StreamHeader {
            to: None,
            from: None,
            id: None,
            version: None,
            lang: None,
            content_ns: ContentNs::Client,
            framed,
            namespaces: StreamNamespaces::default(),
        };
        let mut default_ns = None;
        let mut prefixes: Vec<Prefix> = Vec::new();
        let mut scan = AttrScan::new(tag);
        let name = scan.tag_name();
        for attr in scan.by_ref() {
            let value = unescape(checked_str(attr.value), true).into_owned();
            match attr.name {
                b"to" => header.to = Some(value),
                b"from" => header.from = Some(value),
                b"id" => header.id = Some(value),
                b"xml:lang" => header.lang = Some(value),
                b"version" => {
                    let version = StreamVersion::parse(&value);
                    header.version = Some(
                        version.ok_or((StreamError::UnsupportedVersion, "malformed version"))?,
                    );
                }
                b"xmlns" => default_ns = Some(value),
                b"xmlns:stream" | b"xmlns:xml" => {}
                name => {
                    if let Some(prefix) = name.strip_prefix(b"xmlns:") {
                        prefixes.push((checked_str(prefix).into(), value.into_boxed_str()));
                    }
                }
            }
        }
        if framed {
            check_open(name, element_ns)?;
            prefixes.clear();
        } else {
            check_stream(name, element_ns)?;
            let content = default_ns.as_deref().and_then(ContentNs::from_name);
            header.content_ns =
                content.ok_or((StreamError::InvalidNamespace, "unknown content namespace"))?;
        }
        header.namespaces = StreamNamespaces::from_header(
            header.content_ns,
            framed,
            prefixes,
            header.lang.as_deref(),
        );
        Ok(header)
    }
}

/// RFC 6120 §4.8.1 and §4.8.5.
fn check_stream(name: &[u8], element_ns: &str) -> Result<(), HeaderError> {
    if element_ns != ns::STREAMS {
        return Err((StreamError::InvalidNamespace, "not the stream namespace"));
    }
    match name {
        b"stream:stream" => Ok(()),
        _ if name == b"stream" || name.ends_with(b":stream") => Err((
            StreamError::BadNamespacePrefix,
            "the prefix of a stream is `stream`",
        )),
        _ => Err((StreamError::BadFormat, "not a stream header")),
    }
}

/// RFC 7395 §3.4.
fn check_open(name: &[u8], element_ns: &str) -> Result<(), HeaderError> {
    match (name, element_ns) {
        (b"open", ns::FRAMING) => Ok(()),
        (_, ns::FRAMING) => Err((StreamError::BadFormat, "not an open element")),
        _ => Err((StreamError::InvalidNamespace, "not the framing namespace")),
    }
}
