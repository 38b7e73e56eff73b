//! An entry as a search has returned it.
//!
//! Never: trusts the encoding; an entry that makes no sense is `None`, not a panic.

use ldap3::ResultEntry;
use ldap3::asn1::{PL, StructureTag};

/// Longest text taken from an attribute, in bytes. Names and titles are shorter; a description that is longer has no place in a
/// list of contacts.
const TEXT_BYTES_MAX: usize = 1_024;

/// Most values of one attribute taken as texts.
const TEXTS_MAX: usize = 50;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    pub dn: String,
    /// Names in lower case, with their options.
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// From the protocol.
    pub(super) fn read(found: ResultEntry) -> Option<Entry> {
        let mut parts = constructed(found.0)?.into_iter();
        let dn = String::from_utf8(primitive(parts.next()?)?).ok()?;
        let mut attributes = Vec::new();
        for attribute in constructed(parts.next()?)? {
            let mut parts = constructed(attribute)?.into_iter();
            let name = String::from_utf8(primitive(parts.next()?)?).ok()?;
            let values: Option<Vec<_>> = constructed(parts.next()?)?
                .into_iter()
                .map(primitive)
                .collect();
            attributes.push((name.to_ascii_lowercase(), values?));
        }
        Some(Entry { dn, attributes })
    }

    /// For tests.
    #[cfg(test)]
    pub(super) fn new<'a>(
        dn: &str,
        attributes: impl IntoIterator<Item = (&'a str, Vec<Vec<u8>>)>,
    ) -> Entry {
        let lower = |(name, values): (&str, _)| (name.to_ascii_lowercase(), values);
        Entry {
            dn: dn.to_owned(),
            attributes: attributes.into_iter().map(lower).collect(),
        }
    }

    /// Adds values to an attribute.
    pub(super) fn extend(&mut self, attribute: &str, values: impl IntoIterator<Item = Vec<u8>>) {
        let name = attribute.to_ascii_lowercase();
        match self.attributes.iter_mut().find(|(n, _)| *n == name) {
            Some((_, known)) => known.extend(values),
            None => self.attributes.push((name, values.into_iter().collect())),
        }
    }

    /// The values of an attribute as they are.
    pub(super) fn values(&self, attribute: &str) -> &[Vec<u8>] {
        self.attributes
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(attribute))
            .map_or(&[], |(_, values)| values)
    }

    /// The values that are texts, cleaned of what no XML stream can carry; empty and very long ones left out.
    pub(super) fn texts(&self, attribute: &str) -> impl Iterator<Item = String> + '_ {
        let texts = self
            .values(attribute)
            .iter()
            .filter_map(|value| text(value));
        texts.take(TEXTS_MAX)
    }

    /// The first text of the first of these attributes that has one.
    pub(super) fn first(&self, attributes: &[String]) -> Option<String> {
        attributes.iter().find_map(|a| self.texts(a).next())
    }

    /// Values that are names of entries or other long texts, as they are.
    pub(super) fn strings(&self, attribute: &str) -> impl Iterator<Item = &str> + '_ {
        let values = self.values(attribute).iter();
        values.filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Where a server has given only a part of an attribute's values (`member;range=0-1499`, [MS-ADTS] §3.1.1.3.1.3.3): the part,
    /// and the number the next part begins with, unless this was the last.
    pub(super) fn range(&self, attribute: &str) -> Option<(&[Vec<u8>], Option<u64>)> {
        self.attributes.iter().find_map(|(name, values)| {
            let (base, range) = name.split_once(";range=")?;
            if !base.eq_ignore_ascii_case(attribute) {
                return None;
            }
            let (_, end) = range.split_once('-')?;
            let next = match end {
                "*" => None,
                end => Some(end.parse::<u64>().ok()?.checked_add(1)?),
            };
            Some((values.as_slice(), next))
        })
    }
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn primitive(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(bytes) => Some(bytes),
        PL::C(_) => None,
    }
}

fn text(value: &[u8]) -> Option<String> {
    if value.len() > TEXT_BYTES_MAX {
        return None;
    }
    clean(std::str::from_utf8(value).ok()?)
}

/// Without control characters and what XML 1.0 §2.2 has no way to write; `None` if nothing is left.
pub(super) fn clean(text: &str) -> Option<String> {
    let carried = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text: String = text
        .chars()
        .map(|c| {
            if matches!(c, '\n' | '\r' | '\t') {
                ' '
            } else {
                c
            }
        })
        .filter(carried)
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
pub(super) fn entry(dn: &str, attributes: &[(&str, &[&str])]) -> Entry {
    let bytes = |values: &[&str]| values.iter().map(|v| v.as_bytes().to_vec()).collect();
    Entry::new(dn, attributes.iter().map(|(n, v)| (*n, bytes(v))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldap3::asn1::TagClass;

    fn octets(text: &[u8]) -> StructureTag {
        StructureTag {
            class: TagClass::Universal,
            id: 4,
            payload: PL::P(text.to_vec()),
        }
    }

    fn sequence(parts: Vec<StructureTag>) -> StructureTag {
        StructureTag {
            class: TagClass::Universal,
            id: 16,
            payload: PL::C(parts),
        }
    }

    #[test]
    fn an_entry_of_the_protocol_is_read_and_nonsense_is_none() {
        let good = sequence(vec![
            octets(b"cn=a"),
            sequence(vec![sequence(vec![
                octets(b"CN"),
                sequence(vec![octets(b"a")]),
            ])]),
        ]);
        let entry = Entry::read(ResultEntry::new(good)).unwrap();
        assert_eq!(entry.values("cn"), [b"a".to_vec()]);
        for bad in [
            octets(b"cn=a"),
            sequence(vec![]),
            sequence(vec![octets(b"cn=a")]),
            sequence(vec![octets(b"\xff"), sequence(vec![])]),
            sequence(vec![octets(b"cn=a"), sequence(vec![octets(b"cn")])]),
            sequence(vec![
                octets(b"cn=a"),
                sequence(vec![sequence(vec![octets(b"cn"), octets(b"a")])]),
            ]),
        ] {
            assert_eq!(Entry::read(ResultEntry::new(bad.clone())), None, "{bad:?}");
        }
    }

    #[test]
    fn texts_are_clean() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let e = entry(
            "cn=a",
            &[
                (
                    "cn",
                    &[
                        "",
                        "  ",
                        "\u{1}\u{fffe}",
                        " Ann\u{0}\nBell ",
                        &long,
                        "second",
                    ],
                ),
                ("Mail", &["a@x"]),
            ],
        );
        assert_eq!(e.texts("CN").collect::<Vec<_>>(), ["Ann Bell", "second"]);
        assert_eq!(
            e.first(&["none".into(), "mail".into()]).as_deref(),
            Some("a@x")
        );
        assert_eq!(e.first(&["none".into()]), None);
    }

    #[test]
    fn parts_of_attributes_say_what_follows() {
        let part = |name: &str| {
            entry("cn=a", &[(name, &["x"])])
                .range("member")
                .map(|(v, next)| (v.len(), next))
        };
        assert_eq!(part("member;range=0-1499"), Some((1, Some(1500))));
        assert_eq!(part("Member;Range=1500-*"), Some((1, None)));
        assert_eq!(part("member"), None);
        assert_eq!(part("member;range=0-x"), None);
        assert_eq!(part("memberof;range=0-9"), None);
    }
}
