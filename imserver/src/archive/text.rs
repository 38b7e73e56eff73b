//! What full-text search finds a message by (XEP-0431): its bodies. The store does not parse stanzas, so this does when they are written.
//!
//! In: a stanza. Out: where in it its text stands, or the text. Never: gives what stands in for an encrypted body.

use bytes::Bytes;
use std::borrow::Cow;
use store::Text;
use xmpp::element::Element;
use xmpp::ns;

/// Names of elements that say that the body is not the message (XEP-0380 names what it is; older clients give only this).
const ENCRYPTED: &str = "encrypted";

/// The bodies of a message: usually one, which stands in it as it is to be read.
pub fn of(stanza: &Bytes) -> Option<Text> {
    let element = Element::parse(stanza.clone()).ok()?;
    let secret = |name: &str, of: &str| of == ns::ENCRYPTION || name == ENCRYPTED;
    if element.children().any(|c| secret(c.name(), c.ns())) {
        return None;
    }
    let content = element.content_ns().as_str();
    let mut bodies = element.children().filter(|c| c.is("body", content));
    let first = bodies.next()?.text();
    let rest: Vec<Cow<'_, str>> = bodies.map(|body| body.text()).collect();
    if first.is_empty() && rest.is_empty() {
        return None;
    }
    if let (Cow::Borrowed(text), true) = (&first, rest.is_empty())
        && let Some(start) = offset(stanza, text)
    {
        return Some(Text::Part {
            start: u32::try_from(start).ok()?,
            len: u32::try_from(text.len()).ok()?,
        });
    }
    // In several languages, or with characters that are written otherwise in XML.
    Some(Text::Apart(
        rest.iter()
            .fold(first.into_owned(), |all, body| format!("{all}\n{body}")),
    ))
}

/// Where a part of these bytes begins in them.
fn offset(whole: &Bytes, part: &str) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    whole
        .get(start..start + part.len())
        .is_some_and(|bytes| bytes == part.as_bytes())
        .then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_found_where_they_stand_or_as_they_are_read() {
        for (inside, want, part) in [
            (
                "<body>Wherefore art thou</body>",
                Some("Wherefore art thou"),
                true,
            ),
            (
                "<x xmlns='y'><body>no</body></x><body xml:lang='ru'>Слово</body>",
                Some("Слово"),
                true,
            ),
            ("<body>AT&amp;T &lt;3</body>", Some("AT&T <3"), false),
            ("<body>x<![CDATA[a<b]]></body>", Some("xa<b"), false),
            (
                "<body>one</body><body xml:lang='de'>eins</body>",
                Some("one\neins"),
                false,
            ),
            ("<subject>no</subject>", None, false),
            ("<body/>", None, false),
            (
                "<body>see elsewhere</body><encryption xmlns='urn:xmpp:eme:0' namespace='n'/>",
                None,
                false,
            ),
            (
                "<body>see elsewhere</body><encrypted xmlns='eu.siacs.conversations.axolotl'/>",
                None,
                false,
            ),
        ] {
            let stanza = Bytes::from(format!("<message to='a@x'>{inside}</message>"));
            let got = of(&stanza);
            assert_eq!(got.as_ref().map(|t| t.of(&stanza)), want, "{inside}");
            assert_eq!(matches!(got, Some(Text::Part { .. })), part, "{inside}");
        }
        assert_eq!(of(&Bytes::from("<message")), None);
    }
}
