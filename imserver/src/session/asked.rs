//! What a client has asked others and not been answered yet (RFC 6120 §8.2.3).
//!
//! In: requests that go out, answers that come. Out: whether an answer is one. Owns: hashes of the last requests.
//! Never: grows; is kept over a restart (an answer that comes then and finds no room is dropped like one nobody asked for).

use std::hash::BuildHasher;

/// Requests of a client that are remembered: an older one that is still unanswered loses no answer but one that does not fit.
pub const CLIENT_MAX: usize = 64;

/// The same of a component, which asks for many.
pub const COMPONENT_MAX: usize = 1_024;

/// See the module.
#[derive(Default, Debug)]
pub struct Asked(Vec<u64>);

impl Asked {
    /// A request with this id goes to this address; `max` are remembered.
    pub fn note(&mut self, to: &str, id: &str, max: usize) {
        if self.0.len() >= max {
            self.0.remove(0);
        }
        self.0.push(hash(to, id));
    }

    /// An answer with this id has come from this address. True: it was asked for; a second one is not.
    pub fn answered(&mut self, from: &str, id: &str) -> bool {
        let wanted = hash(from, id);
        let at = self.0.iter().position(|h| *h == wanted);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Nothing is unanswered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hash(address: &str, id: &str) -> u64 {
    foldhash::quality::FixedState::with_seed(0x0a5c).hash_one((address, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_from_whom_was_asked() {
        let mut asked = Asked::default();
        asked.note("bob@localhost/x", "1", CLIENT_MAX);
        assert!(!asked.answered("eve@localhost/x", "1"));
        assert!(!asked.answered("bob@localhost/x", "2"));
        assert!(asked.answered("bob@localhost/x", "1"));
        assert!(!asked.answered("bob@localhost/x", "1"));
        assert!(asked.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut asked = Asked::default();
        for n in 0..1_000 {
            asked.note("bob@localhost/x", &n.to_string(), CLIENT_MAX);
        }
        assert_eq!(asked.0.len(), CLIENT_MAX);
        assert!(asked.answered("bob@localhost/x", "999"));
        assert!(!asked.answered("bob@localhost/x", "1"));
    }
}
