//! Every stream error (RFC 6120 §4.9.3) and stanza error (§8.3.3), with their bytes.
//!
//! A stream error ends the stream of the one who caused it; a stanza error answers one stanza.

use crate::element::Element;
use crate::node::escape_into;
use crate::ns;
use crate::stanza::StanzaKind;
use bytes::Bytes;
use std::fmt;

/// Declares an enum whose variants each stand for one element name.
macro_rules! conditions {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every condition, in the order of the RFC.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The element name, as in `not-well-formed`.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The condition of that element name.
            pub fn from_name(name: &str) -> Option<$name> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::error::Error for $name {}
    };
}

conditions! {
    /// Condition of a stream error, RFC 6120 §4.9.3. The stream is closed after it.
    StreamError {
        /// §4.9.3.1: XML that cannot be processed and that no other condition fits.
        BadFormat = "bad-format",
        /// §4.9.3.2: a prefix that is not supported, or none where one is needed.
        BadNamespacePrefix = "bad-namespace-prefix",
        /// §4.9.3.3: another stream replaced this one.
        Conflict = "conflict",
        /// §4.9.3.4: the peer was silent for too long.
        ConnectionTimeout = "connection-timeout",
        /// §4.9.3.5: the domain is no longer served here.
        HostGone = "host-gone",
        /// §4.9.3.6: the domain is not served here.
        HostUnknown = "host-unknown",
        /// §4.9.3.7: a stanza between servers lacks `to` or `from`, or they are wrong.
        ImproperAddressing = "improper-addressing",
        /// §4.9.3.8: we are wrong.
        InternalServerError = "internal-server-error",
        /// §4.9.3.9: `from` is not what was authenticated.
        InvalidFrom = "invalid-from",
        /// §4.9.3.10: a wrong stream or content namespace.
        InvalidNamespace = "invalid-namespace",
        /// §4.9.3.11: XML that does not fit a schema.
        InvalidXml = "invalid-xml",
        /// §4.9.3.12: data before authentication, or beyond what was authorised.
        NotAuthorized = "not-authorized",
        /// §4.9.3.13: violates XML or Namespaces in XML.
        NotWellFormed = "not-well-formed",
        /// §4.9.3.14: a limit or a local rule.
        PolicyViolation = "policy-violation",
        /// §4.9.3.15: a server we need cannot be reached.
        RemoteConnectionFailed = "remote-connection-failed",
        /// §4.9.3.16: the stream must be negotiated anew.
        Reset = "reset",
        /// §4.9.3.17: no resources to serve the stream.
        ResourceConstraint = "resource-constraint",
        /// §4.9.3.18: comment, processing instruction, DTD or entity reference.
        RestrictedXml = "restricted-xml",
        /// §4.9.3.19: go elsewhere; see [`StreamError::see_other_host`].
        SeeOtherHost = "see-other-host",
        /// §4.9.3.20: the server is being shut down.
        SystemShutdown = "system-shutdown",
        /// §4.9.3.21: something not listed here.
        UndefinedCondition = "undefined-condition",
        /// §4.9.3.22: an encoding other than UTF-8, or wrong UTF-8.
        UnsupportedEncoding = "unsupported-encoding",
        /// §4.9.3.23: a mandatory feature is not supported.
        UnsupportedFeature = "unsupported-feature",
        /// §4.9.3.24: a first-level element that is not understood.
        UnsupportedStanzaType = "unsupported-stanza-type",
        /// §4.9.3.25: a version of XMPP that is not supported.
        UnsupportedVersion = "unsupported-version",
    }
}

impl StreamError {
    /// The whole `<stream:error>` element, for a stream whose header declared the prefix `stream`.
    pub fn to_bytes(self, text: Option<&str>) -> Bytes {
        self.encode("", text)
    }

    /// `<see-other-host/>` with the address to go to: a domain or address, optionally `:port`
    /// (RFC 6120 §4.9.3.19).
    pub fn see_other_host(host: &str) -> Bytes {
        StreamError::SeeOtherHost.encode(host, None)
    }

    fn encode(self, content: &str, text: Option<&str>) -> Bytes {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(b"<stream:error>");
        condition_into(&mut out, self.as_str(), ns::STREAM_ERRORS, content);
        if let Some(text) = text {
            text_into(&mut out, ns::STREAM_ERRORS, text);
        }
        out.extend_from_slice(b"</stream:error>");
        Bytes::from(out)
    }
}

/// What the one who gets a stanza error may do about it, RFC 6120 §8.3.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// A warning only.
    Continue,
    /// Retry after changing the data.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    /// The value of the attribute `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorType::Auth => "auth",
            ErrorType::Cancel => "cancel",
            ErrorType::Continue => "continue",
            ErrorType::Modify => "modify",
            ErrorType::Wait => "wait",
        }
    }
}

conditions! {
    /// Condition of a stanza error, RFC 6120 §8.3.3.
    StanzaError {
        /// §8.3.3.1: not processable, malformed as a stanza.
        BadRequest = "bad-request",
        /// §8.3.3.2: a resource or session of that name exists.
        Conflict = "conflict",
        /// §8.3.3.3: understood, not implemented.
        FeatureNotImplemented = "feature-not-implemented",
        /// §8.3.3.4: not permitted, and authenticating would not help.
        Forbidden = "forbidden",
        /// §8.3.3.5: the recipient is gone.
        Gone = "gone",
        /// §8.3.3.6: we are wrong.
        InternalServerError = "internal-server-error",
        /// §8.3.3.7: no such JID or item.
        ItemNotFound = "item-not-found",
        /// §8.3.3.8: not a JID.
        JidMalformed = "jid-malformed",
        /// §8.3.3.9: violates a criterion or a limit.
        NotAcceptable = "not-acceptable",
        /// §8.3.3.10: nobody may do this.
        NotAllowed = "not-allowed",
        /// §8.3.3.11: authenticate first.
        NotAuthorized = "not-authorized",
        /// §8.3.3.12: a local rule.
        PolicyViolation = "policy-violation",
        /// §8.3.3.13: the recipient is not there for now.
        RecipientUnavailable = "recipient-unavailable",
        /// §8.3.3.14: go elsewhere for now.
        Redirect = "redirect",
        /// §8.3.3.15: register first.
        RegistrationRequired = "registration-required",
        /// §8.3.3.16: the domain does not exist or does not answer.
        RemoteServerNotFound = "remote-server-not-found",
        /// §8.3.3.17: the domain exists and could not be reached in time.
        RemoteServerTimeout = "remote-server-timeout",
        /// §8.3.3.18: no resources.
        ResourceConstraint = "resource-constraint",
        /// §8.3.3.19: the service is not provided.
        ServiceUnavailable = "service-unavailable",
        /// §8.3.3.20: subscribe first.
        SubscriptionRequired = "subscription-required",
        /// §8.3.3.21: something not listed here.
        UndefinedCondition = "undefined-condition",
        /// §8.3.3.22: not expected at this time.
        UnexpectedRequest = "unexpected-request",
    }
}

impl StanzaError {
    /// The error type the RFC gives for the condition (the first, where it names two).
    pub const fn error_type(self) -> ErrorType {
        use StanzaError as E;
        match self {
            E::BadRequest
            | E::JidMalformed
            | E::NotAcceptable
            | E::PolicyViolation
            | E::Redirect => ErrorType::Modify,
            E::Conflict
            | E::FeatureNotImplemented
            | E::Gone
            | E::InternalServerError
            | E::ItemNotFound
            | E::NotAllowed
            | E::RemoteServerNotFound
            | E::ServiceUnavailable
            | E::UndefinedCondition => ErrorType::Cancel,
            E::Forbidden | E::NotAuthorized | E::RegistrationRequired | E::SubscriptionRequired => {
                ErrorType::Auth
            }
            E::RecipientUnavailable
            | E::RemoteServerTimeout
            | E::ResourceConstraint
            | E::UnexpectedRequest => ErrorType::Wait,
        }
    }

    /// The `<error/>` child of a stanza, to be appended to one of type `error`.
    pub fn child_bytes(self, error_type: ErrorType, text: Option<&str>) -> Bytes {
        let mut out = Vec::with_capacity(160);
        self.child_into(&mut out, error_type, text, None, None);
        Bytes::from(out)
    }

    fn child_into(
        self,
        out: &mut Vec<u8>,
        error_type: ErrorType,
        text: Option<&str>,
        application: Option<(&str, &str)>,
        application_attr: Option<(&str, &str)>,
    ) {
        out.extend_from_slice(b"<error type='");
        out.extend_from_slice(error_type.as_str().as_bytes());
        out.extend_from_slice(b"'>");
        condition_into(out, self.as_str(), ns::STANZA_ERRORS, "");
        if let Some(text) = text {
            text_into(out, ns::STANZA_ERRORS, text);
        }
        if let Some((name, namespace)) = application {
            condition_into(out, name, namespace, "");
            if let Some((attr, value)) = application_attr {
                out.truncate(out.len() - b"/>".len());
                out.push(b' ');
                out.extend_from_slice(attr.as_bytes());
                out.extend_from_slice(b"='");
                escape_into(out, value);
                out.extend_from_slice(b"'/>");
            }
        }
        out.extend_from_slice(b"</error>");
    }
}

/// How an error reply differs from the plain one of [`stanza_error`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorReply<'a> {
    /// `from` of the reply; None: the `to` of the stanza, if it had one.
    pub from: Option<&'a str>,
    /// `to` of the reply; None: the `from` of the stanza, if it had one.
    pub to: Option<&'a str>,
    /// None: [`StanzaError::error_type`].
    pub error_type: Option<ErrorType>,
    /// Human-readable text in English.
    pub text: Option<&'a str>,
    /// Name and namespace of an application's own condition (RFC 6120 §8.3.4).
    pub application: Option<(&'static str, &'static str)>,
    /// An attribute of that condition.
    pub application_attr: Option<(&'static str, &'static str)>,
    /// What of the stanza is repeated, before the error (§8.3.1).
    pub about: &'a [u8],
}

/// The error that answers a stanza: kind and id as sent, addresses exchanged (RFC 6120 §8.3.1).
///
/// None if nothing may be answered: an error, the result of an IQ, or no stanza at all.
pub fn stanza_error(
    element: &Element,
    condition: StanzaError,
    text: Option<&str>,
) -> Option<Bytes> {
    stanza_error_with(
        element,
        condition,
        ErrorReply {
            text,
            ..ErrorReply::default()
        },
    )
}

/// [`stanza_error`] with other addresses or another error type.
pub fn stanza_error_with(
    element: &Element,
    condition: StanzaError,
    reply: ErrorReply<'_>,
) -> Option<Bytes> {
    let kind = element.stanza_kind()?;
    let stanza_type = element.attr("type");
    match (kind, stanza_type.as_deref()) {
        (_, Some("error")) | (StanzaKind::Iq, Some("result")) => return None,
        _ => {}
    }
    let mut out = Vec::with_capacity(320);
    out.push(b'<');
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b" type='error'");
    let mut attr = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"='");
            escape_into(&mut out, value);
            out.push(b'\'');
        }
    };
    attr("id", element.attr("id").as_deref());
    let (from, to) = (element.attr("to"), element.attr("from"));
    attr("from", reply.from.or(from.as_deref()));
    attr("to", reply.to.or(to.as_deref()));
    out.push(b'>');
    out.extend_from_slice(reply.about);
    condition.child_into(
        &mut out,
        reply.error_type.unwrap_or(condition.error_type()),
        reply.text,
        reply.application,
        reply.application_attr,
    );
    out.extend_from_slice(b"</");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.push(b'>');
    Some(Bytes::from(out))
}

fn condition_into(out: &mut Vec<u8>, name: &str, namespace: &str, content: &str) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b" xmlns='");
    out.extend_from_slice(namespace.as_bytes());
    if content.is_empty() {
        out.extend_from_slice(b"'/>");
        return;
    }
    out.extend_from_slice(b"'>");
    escape_into(out, content);
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

fn text_into(out: &mut Vec<u8>, namespace: &str, text: &str) {
    out.extend_from_slice(b"<text xmlns='");
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(b"' xml:lang='en'>");
    escape_into(out, text);
    out.extend_from_slice(b"</text>");
}
