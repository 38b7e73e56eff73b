//! What somebody wants kept in their archive, XEP-0441: one decision for each message, of whoever sends and of whoever receives it.
//!
//! In: the `<prefs/>` of an account, or what its domain does by itself; whom a message is with. Out: kept or not.
//! Owns: how wishes are written down.
//! Never: decides whether a message is delivered: what is not kept waits for its recipient all the same.
//!
//! Where the XEP leaves a choice: an address with a resourcepart comes before one without, and `never` before `always`, because
//! what was kept against somebody's will cannot be undone.

use bytes::Bytes;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// For whom is in neither list (§2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ByDefault {
    /// Kept.
    #[default]
    Always,
    /// Not kept.
    Never,
    /// Kept if the other is in the roster.
    Roster,
}

impl ByDefault {
    /// All of them.
    pub const ALL: [ByDefault; 3] = [ByDefault::Always, ByDefault::Never, ByDefault::Roster];

    /// As it is written, in stanzas and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Roster => "roster",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prefs {
    /// For the others.
    pub default: ByDefault,
    /// With these, everything.
    pub always: Vec<Jid>,
    /// With these, nothing.
    pub never: Vec<Jid>,
}

/// Why wishes are not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclear {
    /// The default is none of the three.
    Default,
    /// What is listed is no address.
    Address,
    /// More addresses than may be.
    TooMany,
}

impl Prefs {
    /// What a domain does where nobody has said anything.
    pub fn of_domain(default: ByDefault) -> Self {
        Self {
            default,
            ..Self::default()
        }
    }

    /// Reads `<prefs/>`. Both lists together have `jids_max` addresses at most; one that comes again is taken once.
    ///
    /// # Errors
    /// The client's mistakes.
    pub fn parse(node: &Node, jids_max: usize) -> Result<Self, Unclear> {
        let default = node.attr("default").and_then(ByDefault::of_name);
        let mut room = jids_max;
        let mut list = |name: &str| {
            let mut jids: Vec<Jid> = Vec::new();
            let listed = node.child(name, ns::MAM);
            for child in listed.into_iter().flat_map(Node::children) {
                if !child.is("jid", ns::MAM) {
                    continue;
                }
                room = room.checked_sub(1).ok_or(Unclear::TooMany)?;
                let jid = Jid::parse(child.text().trim()).map_err(|_| Unclear::Address)?;
                if !jids.contains(&jid) {
                    jids.push(jid);
                }
            }
            Ok(jids)
        };
        let (always, never) = (list("always")?, list("never")?);
        Ok(Self {
            default: default.ok_or(Unclear::Default)?,
            always,
            never,
        })
    }

    /// As they are shown.
    pub fn to_node(&self) -> Node {
        let list = |name: &'static str, jids: &[Jid]| {
            let jids = jids
                .iter()
                .map(|jid| Node::new("jid", ns::MAM).with_text(jid.as_str()));
            Node::new(name, ns::MAM).with_children(jids)
        };
        Node::new("prefs", ns::MAM)
            .with_attr("default", self.default.name())
            .with_child(list("always", &self.always))
            .with_child(list("never", &self.never))
    }

    /// As they are stored.
    pub fn to_bytes(&self) -> Bytes {
        self.to_node().to_bytes("")
    }

    /// What was stored. `None`: it cannot be read.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(&Node::parse(bytes, "").ok()?, usize::MAX).ok()
    }

    /// Whether a message with this address is kept: §3. `None`: it is if they are in the roster.
    pub fn keeps(&self, with: &Jid) -> Option<bool> {
        let listed = |list: &[Jid], exactly: bool| {
            list.iter().any(|jid| match exactly {
                true => jid.resourcepart().is_some() && jid == with,
                false => jid.resourcepart().is_none() && jid.as_str() == with.bare_str(),
            })
        };
        for exactly in [true, false] {
            if listed(&self.never, exactly) {
                return Some(false);
            }
            if listed(&self.always, exactly) {
                return Some(true);
            }
        }
        match self.default {
            ByDefault::Always => Some(true),
            ByDefault::Never => Some(false),
            ByDefault::Roster => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefs(inside: &str) -> Result<Prefs, Unclear> {
        let xml = format!("<prefs xmlns='urn:xmpp:mam:2' {inside}</prefs>");
        Prefs::parse(&Node::parse(xml.as_bytes(), "").expect("well-formed"), 3)
    }

    #[test]
    fn wishes_are_read_and_written_as_they_were() {
        for (inside, default, always, never) in [
            ("default='always'>", ByDefault::Always, vec![], vec![]),
            (
                "default='never'><always/><never/>",
                ByDefault::Never,
                vec![],
                vec![],
            ),
            (
                "default='roster'><always><jid> Romeo@Montague.lit </jid><jid>romeo@montague.lit</jid></always>\
                 <never><jid>tybalt@capulet.lit/phone</jid><what/></never>",
                ByDefault::Roster,
                vec!["romeo@montague.lit"],
                vec!["tybalt@capulet.lit/phone"],
            ),
        ] {
            let read = prefs(inside).expect(inside);
            let jids = |list: &[&str]| list.iter().map(|j| Jid::parse(j).expect("a JID")).collect();
            let want = Prefs {
                default,
                always: jids(&always),
                never: jids(&never),
            };
            assert_eq!(read, want, "{inside}");
            assert_eq!(Prefs::of_bytes(&read.to_bytes()), Some(want), "{inside}");
        }
    }

    #[test]
    fn what_is_unclear_is_refused() {
        let four = "default='never'><always><jid>a@x</jid><jid>b@x</jid></always><never><jid>c@x</jid><jid>d@x</jid></never>";
        for (inside, want) in [
            (">", Unclear::Default),
            ("default='sometimes'>", Unclear::Default),
            (
                "default='never'><never><jid>@</jid></never>",
                Unclear::Address,
            ),
            ("default='never'><never><jid/></never>", Unclear::Address),
            (four, Unclear::TooMany),
        ] {
            assert_eq!(prefs(inside), Err(want), "{inside}");
        }
        assert_eq!(Prefs::of_bytes(b"<prefs"), None);
    }

    #[test]
    fn the_nearer_wish_decides_and_never_before_always() {
        let of = |text: &str| prefs(text).expect("good");
        let lists = "<always><jid>a@x</jid><jid>b@x/1</jid></always><never><jid>b@x</jid></never>";
        let both = "default='always'><always><jid>a@x</jid></always><never><jid>a@x</jid></never>";
        for (prefs, with, want) in [
            ("default='always'>", "a@x/1", Some(true)),
            ("default='never'>", "a@x", Some(false)),
            ("default='roster'>", "a@x", None),
            (
                &*format!("default='roster'>{lists}"),
                "a@x/home",
                Some(true),
            ),
            (&*format!("default='roster'>{lists}"), "b@x/1", Some(true)),
            (&*format!("default='roster'>{lists}"), "b@x/2", Some(false)),
            (&*format!("default='roster'>{lists}"), "b@x", Some(false)),
            (&*format!("default='roster'>{lists}"), "c@x", None),
            (both, "a@x/1", Some(false)),
        ] {
            let with = Jid::parse(with).expect("a JID");
            assert_eq!(of(prefs).keeps(&with), want, "{prefs} {with:?}");
        }
    }
}
