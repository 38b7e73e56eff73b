//! What a stream header leaves in force for every element of the stream.

use crate::element::ContentNs;
use std::sync::Arc;

/// A prefix that the stream header declared, and its namespace name.
pub(crate) type Prefix = (Box<str>, Box<str>);

/// The namespaces and the language of a stream header: all that a parser needs to go on in
/// mid-stream after a restart. The usual header costs no heap but its language.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamNamespaces {
    content_ns: ContentNs,
    framed: bool,
    /// Declared beside the default and `stream`; nearly always none.
    prefixes: Option<Arc<[Prefix]>>,
    lang: Option<Arc<str>>,
}

/// First byte of the serialised form.
const FORMAT: u8 = 1;

impl StreamNamespaces {
    /// Those of a header that declares the content namespace and `stream`, nothing else.
    pub fn new(content_ns: ContentNs) -> StreamNamespaces {
        StreamNamespaces {
            content_ns,
            ..StreamNamespaces::default()
        }
    }

    /// Those of a WebSocket stream: every frame declares its own (RFC 7395 §3.3.3).
    pub fn framed() -> StreamNamespaces {
        StreamNamespaces {
            framed: true,
            ..StreamNamespaces::default()
        }
    }

    pub(crate) fn from_header(
        content_ns: ContentNs,
        framed: bool,
        prefixes: Vec<Prefix>,
        lang: Option<&str>,
    ) -> StreamNamespaces {
        StreamNamespaces {
            content_ns,
            framed,
            prefixes: (!prefixes.is_empty()).then(|| Arc::from(prefixes)),
            lang: lang.filter(|l| !l.is_empty()).map(Arc::from),
        }
    }

    /// The content namespace.
    pub fn content_ns(&self) -> ContentNs {
        self.content_ns
    }

    /// Whether the stream is made of WebSocket frames.
    pub fn is_framed(&self) -> bool {
        self.framed
    }

    /// The language of the stream (RFC 6120 §4.7.4).
    pub fn lang(&self) -> Option<&str> {
        self.lang.as_deref()
    }

    pub(crate) fn shared_lang(&self) -> Option<Arc<str>> {
        self.lang.clone()
    }

    pub(crate) fn prefixes(&self) -> &[Prefix] {
        self.prefixes.as_deref().unwrap_or(&[])
    }

    /// A form for the session store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let content = match self.content_ns {
            ContentNs::Client => 0,
            ContentNs::Server => 1,
            ContentNs::Component => 2,
        };
        let mut out = vec![FORMAT, content, u8::from(self.framed)];
        let mut put = |s: &str| {
            out.extend_from_slice(&(s.len() as u32).to_le_bytes());
            out.extend_from_slice(s.as_bytes());
        };
        put(self.lang().unwrap_or(""));
        for (prefix, namespace) in self.prefixes() {
            put(prefix);
            put(namespace);
        }
        out
    }

    /// Reads what [`StreamNamespaces::to_bytes`] wrote. None: it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<StreamNamespaces> {
        let [FORMAT, content, framed @ (0 | 1), rest @ ..] = bytes else {
            return None;
        };
        let mut rest = rest;
        let content_ns = match content {
            0 => ContentNs::Client,
            1 => ContentNs::Server,
            2 => ContentNs::Component,
            _ => return None,
        };
        let lang = take_str(&mut rest)?;
        let mut prefixes = Vec::new();
        while !rest.is_empty() {
            prefixes.push((take_str(&mut rest)?.into(), take_str(&mut rest)?.into()));
        }
        Some(StreamNamespaces::from_header(
            content_ns,
            *framed == 1,
            prefixes,
            Some(lang),
        ))
    }
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}
