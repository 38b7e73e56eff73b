//! Search filters (RFC 4515): built from values, which are always escaped, and from filters of the configuration, which are
//! always checked.
//!
//! Never: puts a value into a filter as it came.

/// Deepest nesting of a filter from outside. The parser below us recurses.
const DEPTH_MAX: usize = 32;

/// Longest filter from outside, in bytes.
const BYTES_MAX: usize = 4_096;

/// A value as it may stand in a filter.
pub(super) fn escape(value: &str) -> String {
    ldap3::ldap_escape(value).into_owned()
}

/// `attribute` has this value.
pub(super) fn equals(attribute: &str, value: &str) -> String {
    format!("({attribute}={})", escape(value))
}

/// `attribute` begins with this.
pub(super) fn begins(attribute: &str, value: &str) -> String {
    format!("({attribute}={}*)", escape(value))
}

/// `attribute` ends with this.
pub(super) fn ends(attribute: &str, value: &str) -> String {
    format!("({attribute}=*{})", escape(value))
}

/// `attribute` has any value.
pub(super) fn present(attribute: &str) -> String {
    format!("({attribute}=*)")
}

/// All of them hold.
pub(super) fn all<S: AsRef<str>>(filters: impl IntoIterator<Item = S>) -> String {
    joined('&', filters)
}

/// One of them holds.
pub(super) fn any<S: AsRef<str>>(filters: impl IntoIterator<Item = S>) -> String {
    joined('|', filters)
}

fn joined<S: AsRef<str>>(operator: char, filters: impl IntoIterator<Item = S>) -> String {
    let mut body = String::new();
    let mut count = 0;
    for filter in filters {
        body.push_str(filter.as_ref());
        count += 1;
    }
    if count == 1 {
        body
    } else {
        format!("({operator}{body})")
    }
}

/// What is wrong with a filter that somebody has written.
///
/// # Errors
/// In words.
pub fn check(filter: &str) -> Result<(), &'static str> {
    if filter.len() > BYTES_MAX {
        return Err("is longer than 4096 bytes");
    }
    if !(filter.starts_with('(') && filter.ends_with(')')) {
        return Err("is no LDAP filter: it must begin with ( and end with )");
    }
    let mut depth = 0_usize;
    for byte in filter.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err("is nested too deeply");
        }
    }
    ldap3::parse_filter(filter).map(drop).map_err(|()| {
        "is no LDAP filter (RFC 4515), such as \"(objectClass=inetOrgPerson)\" or \"(&(a=b)(c=d))\""
    })
}

/// Whether this can be the name of an attribute: letters, digits, hyphens, dots; options after semicolons.
pub fn is_attribute(name: &str) -> bool {
    let mut parts = name.split(';');
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    name.len() <= 128
        && parts
            .next()
            .is_some_and(|first| word(first) && first.as_bytes()[0].is_ascii_alphanumeric())
        && parts.all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place() {
        for value in [
            "*",
            ")(",
            "*)(uid=*",
            "a\0b",
            "\\",
            "\\2a",
            "(|",
            "a*b",
            "*)(|(objectClass=*)",
            "&",
        ] {
            let built = all([equals("uid", value), present("objectClass")]);
            let ldap3::asn1::Tag::Sequence(and) = ldap3::parse_filter(&built).unwrap() else {
                panic!("{built} is no conjunction");
            };
            // An `and` of exactly the two: nothing got in.
            assert_eq!((and.id, and.inner.len()), (0, 2), "{built}");
            let ldap3::asn1::Tag::Sequence(equal) = &and.inner[0] else {
                panic!("{built}: the first is no comparison");
            };
            assert_eq!(
                equal.id, 3,
                "{built}: an equality, no substring and no presence"
            );
            let ldap3::asn1::Tag::OctetString(found) = &equal.inner[1] else {
                panic!("{built}: no value");
            };
            assert_eq!(found.inner, value.as_bytes(), "{built}");
        }
    }

    #[test]
    fn filters_are_put_together() {
        assert_eq!(all(["(a=b)"]), "(a=b)");
        assert_eq!(
            any([equals("a", "b"), begins("c", "d*")]),
            "(|(a=b)(c=d\\2a*))"
        );
        assert_eq!(ends("mail", "@x.example"), "(mail=*@x.example)");
        assert!(check(&all(Vec::<String>::new())).is_ok(), "RFC 4526: true");
    }

    #[test]
    fn written_filters_are_checked() {
        for good in [
            "(uid=*)",
            "(&(objectClass=person)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))",
            "(cn=отдел)",
            "(memberOf:1.2.840.113556.1.4.1941:=cn=a,dc=x)",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let deep = format!("{}(a=b){}", "(!".repeat(40), ")".repeat(40));
        for bad in [
            "",
            "uid=*",
            "(uid=*",
            "(&(a=b)",
            "(uid=a)(b=c)",
            "()",
            "(a b=c)",
            deep.as_str(),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_attributes() {
        for good in [
            "uid",
            "msDS-User-Account-Control-Computed",
            "2.5.4.3",
            "cn;lang-ru",
            "jpegPhoto;binary",
        ] {
            assert!(is_attribute(good), "{good}");
        }
        for bad in ["", "a b", "a)", "a=b", "*", "-a", "a;", "ä", ";a"] {
            assert!(!is_attribute(bad), "{bad}");
        }
    }
}
