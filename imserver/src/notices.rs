//! What administrators have the server say to people by itself: the message of the day, and a welcome (XEP-0133 §4.24 to §4.28).
//!
//! In: texts. Out: the same for the store, and as content of a message.
//! Owns: the number of the message of the day, by which is known who has been told it.
//! Never: decides who is told what; that is `shard::notices`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xmpp::node::Node;
use xmpp::ns;

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To everybody, once: at once to who is available, to others when they come.
    Motd,
    /// To who is here for the first time.
    Welcome,
}

impl Kind {
    /// Each.
    pub const ALL: [Self; 2] = [Self::Motd, Self::Welcome];

    /// Where it is in the store.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Motd => "motd",
            Self::Welcome => "welcome",
        }
    }
}

/// A text that is said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Grows with each that is set. One that is edited keeps it: who has been told is not told again.
    pub number: u64,
    /// When it was set or last edited, milliseconds since 1970.
    pub changed_unix_ms: u64,
    /// May be empty.
    pub subject: String,
    /// What it says.
    pub text: String,
}

impl Notice {
    /// The content of a message that says it.
    pub fn content(&self) -> Bytes {
        content(&self.subject, &self.text)
    }
}

/// What a message that says this has in it.
pub fn content(subject: &str, text: &str) -> Bytes {
    let mut out = Vec::with_capacity(subject.len() + text.len() + 64);
    let element = |name: &'static str, text: &str| Node::new(name, ns::CLIENT).with_text(text);
    if !subject.is_empty() {
        element("subject", subject).write(&mut out, ns::CLIENT);
    }
    element("body", text).write(&mut out, ns::CLIENT);
    out.into()
}

/// What is said now. A change is a new one, so that shards can share it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notices {
    motd: Option<Arc<Notice>>,
    welcome: Option<Arc<Notice>>,
    /// The greatest number there ever was: one that is gone must not come again.
    last: u64,
}

/// As it is stored. What is not said any more leaves its number.
#[derive(Serialize, Deserialize)]
struct Stored {
    number: u64,
    changed: u64,
    subject: String,
    /// None: nothing is said.
    text: Option<String>,
}

impl Notices {
    /// From the store's values, by kind. What cannot be read is as if it had not been set; the second says so.
    pub fn decode(value: impl Fn(Kind) -> Option<Bytes>) -> (Self, Vec<Kind>) {
        let mut all = Self::default();
        let mut damaged = Vec::new();
        for kind in Kind::ALL {
            let Some(bytes) = value(kind) else { continue };
            let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else {
                damaged.push(kind);
                continue;
            };
            all.last = all.last.max(stored.number);
            *all.place(kind) = stored.text.map(|text| {
                Arc::new(Notice {
                    number: stored.number,
                    changed_unix_ms: stored.changed,
                    subject: stored.subject,
                    text,
                })
            });
        }
        (all, damaged)
    }

    /// For the store.
    pub fn encode(&self, kind: Kind) -> Bytes {
        let notice = self.get(kind);
        let stored = Stored {
            number: notice.map_or(self.last, |n| n.number),
            changed: notice.map_or(0, |n| n.changed_unix_ms),
            subject: notice.map_or_else(String::new, |n| n.subject.clone()),
            text: notice.map(|n| n.text.clone()),
        };
        let json = serde_json::to_vec(&stored).expect("numbers and texts can be written as JSON");
        json.into()
    }

    /// What is said.
    pub fn get(&self, kind: Kind) -> Option<&Arc<Notice>> {
        match kind {
            Kind::Motd => self.motd.as_ref(),
            Kind::Welcome => self.welcome.as_ref(),
        }
    }

    fn place(&mut self, kind: Kind) -> &mut Option<Arc<Notice>> {
        match kind {
            Kind::Motd => &mut self.motd,
            Kind::Welcome => &mut self.welcome,
        }
    }

    /// Something new is said.
    pub fn set(&self, kind: Kind, subject: &str, text: &str, now_unix_ms: u64) -> Self {
        let mut all = self.clone();
        // The clock may have gone back.
        all.last = now_unix_ms.max(self.last + 1);
        *all.place(kind) = Some(Arc::new(Notice {
            number: all.last,
            changed_unix_ms: now_unix_ms,
            subject: subject.to_owned(),
            text: text.to_owned(),
        }));
        all
    }

    /// The same is said in other words. `None`: nothing is said.
    pub fn edit(&self, kind: Kind, subject: &str, text: &str, now_unix_ms: u64) -> Option<Self> {
        let number = self.get(kind)?.number;
        let mut all = self.clone();
        *all.place(kind) = Some(Arc::new(Notice {
            number,
            changed_unix_ms: now_unix_ms,
            subject: subject.to_owned(),
            text: text.to_owned(),
        }));
        Some(all)
    }

    /// It is said no more. `None`: nothing was.
    pub fn delete(&self, kind: Kind) -> Option<Self> {
        self.get(kind)?;
        let mut all = self.clone();
        *all.place(kind) = None;
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarted(all: &Notices) -> Notices {
        let (back, damaged) = Notices::decode(|kind| Some(all.encode(kind)));
        assert_eq!(damaged, []);
        back
    }

    #[test]
    fn a_number_is_never_used_again() {
        let none = Notices::default();
        let first = none.set(Kind::Motd, "", "one", 1_000);
        let edited = first
            .edit(Kind::Motd, "s", "two", 1_001)
            .expect("it is set");
        let number = |all: &Notices| all.get(Kind::Motd).map(|n| n.number);
        assert_eq!(number(&edited), number(&first));
        assert_eq!(edited.get(Kind::Motd).expect("it is set").text, "two");
        // Gone, over a restart, with the clock set back.
        let gone = restarted(&edited.delete(Kind::Motd).expect("it is set"));
        assert_eq!(number(&gone), None);
        let second = gone.set(Kind::Motd, "", "three", 500);
        assert!(number(&second) > number(&first));
        assert_eq!(restarted(&second), second);
        assert_eq!(none.edit(Kind::Motd, "", "x", 1), None);
        assert_eq!(none.delete(Kind::Welcome), None);
    }

    #[test]
    fn both_are_kept_and_what_is_damaged_is_named() {
        let both = Notices::default()
            .set(Kind::Welcome, "Hello", "a & b", 1)
            .set(Kind::Motd, "", "c", 2);
        assert_eq!(restarted(&both), both);
        let half = |kind| match kind {
            Kind::Motd => Some(Bytes::from_static(b"{")),
            Kind::Welcome => Some(both.encode(kind)),
        };
        let (back, damaged) = Notices::decode(half);
        assert_eq!(damaged, [Kind::Motd]);
        assert_eq!(back.get(Kind::Welcome), both.get(Kind::Welcome));
        let content = both.get(Kind::Welcome).expect("it is set").content();
        assert_eq!(
            content,
            &b"<subject>Hello</subject><body>a &amp; b</body>"[..]
        );
    }
}
