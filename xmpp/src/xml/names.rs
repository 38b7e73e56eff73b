//! Names, prefixes and namespaces of one start tag (XML §2.3, Namespaces in XML 1.0).

use super::chars::{NAME, NAME_START, class, is_name_char, is_name_start, sequence};
use super::{Binding, Fault, Inherited, Tokenizer, inherited_prefix};
use crate::element::{AttrSpan, NsRef, checked_str, unescape};
use crate::ns;
use crate::stream::{Limits, NAME_BYTES_MAX};

/// A complete name: where it stands, and the offset of its local part (0: no prefix).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    pub(super) start: u32,
    pub(super) len: u16,
    pub(super) local: u16,
}

/// A name in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NameScan {
    start: usize,
    /// Offset of the local part in the name; 0: no colon yet.
    local: usize,
}

impl NameScan {
    pub(super) fn begin(&mut self, start: usize) {
        *self = NameScan { start, local: 0 };
    }

    /// Goes on at `*i`. None: the name may go on beyond the bytes given.
    pub(super) fn run(&mut self, buf: &[u8], i: &mut usize) -> Result<Option<Name>, Fault> {
        let mut at = *i;
        let complete = loop {
            let Some(&b) = buf.get(at) else { break false };
            if at == self.start + self.local {
                if class(b) & NAME_START == 0 {
                    if b < 0x80 {
                        return Err(Fault::malformed("not a name"));
                    }
                    let Some(n) = sequence(&buf[at..])? else {
                        break false;
                    };
                    if !is_name_start(char_of(&buf[at..at + n])) {
                        return Err(Fault::malformed("not a name"));
                    }
                    at += n;
                } else {
                    at += 1;
                }
            }
            while buf.get(at).is_some_and(|&b| class(b) & NAME != 0) {
                at += 1;
            }
            if at - self.start > NAME_BYTES_MAX {
                break true;
            }
            match buf.get(at) {
                None => break false,
                Some(b':') if self.local == 0 => {
                    at += 1;
                    self.local = at - self.start;
                }
                Some(b':') => return Err(Fault::malformed("two colons in a name")),
                Some(0x80..) => {
                    let Some(n) = sequence(&buf[at..])? else {
                        break false;
                    };
                    if !is_name_char(char_of(&buf[at..at + n])) {
                        return Err(Fault::malformed("not a name"));
                    }
                    at += n;
                }
                Some(_) => break true,
            }
        };
        if at - self.start > NAME_BYTES_MAX {
            return Err(Fault::limit("name too long"));
        }
        *i = at;
        Ok(complete.then_some(Name {
            start: self.start as u32,
            len: (at - self.start) as u16,
            local: self.local as u16,
        }))
    }
}

fn char_of(sequence: &[u8]) -> char {
    checked_str(sequence).chars().next().unwrap_or('\0')
}

/// Up to so many attributes are compared pair by pair; more are sorted.
const PAIRWISE_MAX: usize = 8;

impl Tokenizer {
    /// Declares what the tag declares, then checks that no attribute stands there twice and that
    /// every prefix is declared.
    pub(super) fn check_attrs(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        inherited: Inherited<'_>,
    ) -> Result<(), Fault> {
        let mut prefixed = 0;
        for n in 0..self.attrs.len() {
            let attr = self.attrs[n];
            if attr.is_xmlns() {
                self.declare(buf, &attr, limits)?;
            } else if attr.local > 0 {
                prefixed += 1;
            }
        }
        if self.attrs.len() > 1 && has_duplicates(&self.attrs, |attr| attr.name(buf)) {
            return Err(Fault::malformed("attribute given twice"));
        }
        if prefixed > 0 {
            self.check_prefixed(buf, inherited)?;
        }
        Ok(())
    }

    fn check_prefixed(&mut self, buf: &[u8], inherited: Inherited<'_>) -> Result<(), Fault> {
        let mut expanded: smallvec::SmallVec<[(NsRef, AttrSpan); 4]> = smallvec::SmallVec::new();
        for n in 0..self.attrs.len() {
            let attr = self.attrs[n];
            if attr.local == 0 || attr.is_xmlns() {
                continue;
            }
            let prefix = &attr.name(buf)[..usize::from(attr.local) - 1];
            expanded.push((self.resolve(buf, prefix, inherited)?, attr));
        }
        // Only attributes with a prefix are in a namespace, so only they can meet.
        let decoded = &self.spans.decoded;
        let key = |(ns, attr): &(NsRef, AttrSpan)| {
            (
                &attr.name(buf)[usize::from(attr.local)..],
                ns.bytes(buf, Default::default(), decoded),
            )
        };
        if expanded.len() > 1 && has_duplicates(&expanded, key) {
            return Err(Fault::malformed("attribute given twice under two prefixes"));
        }
        Ok(())
    }

    fn declare(&mut self, buf: &[u8], attr: &AttrSpan, limits: &Limits) -> Result<(), Fault> {
        let prefix = if attr.local == 0 {
            &[]
        } else {
            &attr.name(buf)[usize::from(attr.local)..]
        };
        let range = attr.value_range();
        let mut ns = NsRef {
            start: range.start as u32,
            len: range.len() as u32,
        };
        if attr.is_escaped() {
            ns = NsRef::decoded(self.spans.decoded.len());
            let value = unescape(checked_str(&buf[range]), true);
            self.spans.decoded.push(value.into_owned().into_boxed_str());
        }
        let name = ns.bytes(buf, Default::default(), &self.spans.decoded);
        match prefix {
            b"xmlns" => return Err(Fault::malformed("the prefix xmlns is declared")),
            b"xml" if name == ns::XML.as_bytes() => return Ok(()),
            b"xml" => {
                return Err(Fault::malformed(
                    "the prefix xml is declared as something else",
                ));
            }
            _ if name == ns::XML.as_bytes() || name == ns::XMLNS.as_bytes() => {
                return Err(Fault::malformed("a reserved namespace is declared"));
            }
            [_, ..] if name.is_empty() => return Err(Fault::malformed("a prefix is undeclared")),
            _ => {}
        }
        if self.bindings.len() >= usize::from(limits.namespaces_max) {
            return Err(Fault::limit("too many namespace declarations"));
        }
        if name.is_empty() {
            ns = NsRef::NONE;
        }
        let prefix_start = attr.name + u32::from(attr.local);
        self.bindings.push(Binding {
            prefix: prefix_start,
            prefix_len: prefix.len() as u16,
            ns,
        });
        Ok(())
    }

    /// The namespace that a prefix stands for; an empty one is the default.
    pub(super) fn resolve(
        &mut self,
        buf: &[u8],
        prefix: &[u8],
        inherited: Inherited<'_>,
    ) -> Result<NsRef, Fault> {
        let declared = self.bindings.iter().rev().find(|b| {
            usize::from(b.prefix_len) == prefix.len()
                && &buf[b.prefix as usize..b.prefix as usize + prefix.len()] == prefix
        });
        if let Some(binding) = declared {
            return Ok(binding.ns);
        }
        let undeclared = Fault::malformed("undeclared prefix");
        match (prefix, inherited) {
            (b"", Inherited::Header(_)) => Ok(NsRef::CONTENT),
            (b"", _) => Ok(NsRef::NONE),
            (b"xml", _) => Ok(NsRef::XML),
            (_, Inherited::Header(namespaces)) => {
                let index = match prefix {
                    b"stream" => 0,
                    _ => {
                        let found = namespaces
                            .prefixes()
                            .iter()
                            .position(|(p, _)| p.as_bytes() == prefix);
                        1 + found.ok_or(undeclared)?
                    }
                };
                if let Some(&(_, ns)) = self.inherited.iter().find(|(i, _)| *i == index) {
                    return Ok(ns);
                }
                let ns = NsRef::decoded(self.spans.decoded.len());
                self.spans
                    .decoded
                    .push(inherited_prefix(namespaces, index).1.into());
                self.inherited.push((index, ns));
                Ok(ns)
            }
            _ => Err(undeclared),
        }
    }
}

/// Whether two items have the same key; without quadratic cost.
fn has_duplicates<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> bool {
    if items.len() <= PAIRWISE_MAX {
        return items
            .iter()
            .enumerate()
            .any(|(n, item)| items[..n].iter().any(|other| key(other) == key(item)));
    }
    let mut keys: Vec<K> = items.iter().map(key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
