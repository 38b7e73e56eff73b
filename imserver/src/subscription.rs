//! RFC 6121 §3 and Appendix A: what subscription stanzas do to one roster item, as tables.
//!
//! In: the state of one contact (from the user's point of view), a stanza kind, a direction.
//! Out: the new state and the steps to carry out, in order.
//! Owns: nothing; every answer is a row of a constant table.
//! Never: looks at a roster, a clock or a session; approves a request that the user has not (pre-)approved, unless it is told
//! that the site wants it so ([`approve`]).
//!
//! ```text
//!                 subscribe out            subscribed in
//!     None ────────────────────▶ None+Out ──────────────▶ To
//!      │ subscribe in               │ subscribe in         │ subscribe in
//!      ▼                            ▼                      ▼
//!     None+In ─────────────────▶ None+Out+In ───────────▶ To+In
//!      │ subscribed out             │ subscribed out       │ subscribed out
//!      ▼                            ▼                      ▼
//!     From ────────────────────▶ From+Out ──────────────▶ Both
//! ```
//! `unsubscribe` walks left, `unsubscribed` walks up. To the nine states of Appendix A.1 come three with a
//! pre-approval (§3.4); a pre-approval is used up by the request it answers.
//!
//! The steps follow the RFC but in three places, where it says SHOULD, or nothing. A pending request that is denied tells the other side
//! `unsubscribed` but no `unavailable`: that would show our resources to someone who was never allowed to see
//! them (§3.2.2 asks for it only "while the user is still subscribed"). And who asks again though already
//! subscribed gets current presence with the automatic `subscribed` (§3.1.3 case 2): that side has lost its
//! state, and would otherwise show us offline until we change. An inbound `unsubscribe` is not answered with
//! `unsubscribed` (A.3.2 note 1): its sender has already left the state that it could change, and where a client
//! sends `unsubscribe` and `subscribe` in a row to ask again, the answer to the first would refuse the second.

pub use store::Subscription;

/// The four kinds of subscription stanza.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The sender wants to see the recipient's presence.
    Subscribe,
    /// The sender lets the recipient see its presence.
    Subscribed,
    /// The sender no longer wants to see it.
    Unsubscribe,
    /// The sender no longer lets it be seen, or refuses.
    Unsubscribed,
}

impl Kind {
    /// All four, in the order of the tables.
    pub const ALL: [Self; 4] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Subscribed,
        Self::Unsubscribed,
    ];

    /// The value of the attribute `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Subscribed => "subscribed",
            Self::Unsubscribe => "unsubscribe",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// State of one contact, in the roster or not (a contact that is not is `None` or `NoneIn`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum State {
    /// Nothing either way.
    #[default]
    None,
    /// We have asked.
    NoneOut,
    /// We are asked.
    NoneIn,
    /// Both.
    NoneOutIn,
    /// We see the contact's presence.
    To,
    /// And the contact asks for ours.
    ToIn,
    /// The contact sees ours.
    From,
    /// And we have asked for its.
    FromOut,
    /// Each sees the other's.
    Both,
    /// As `None`, and the contact's next request is approved already (§3.4).
    NonePre,
    /// As `NoneOut`, pre-approved.
    NoneOutPre,
    /// As `To`, pre-approved.
    ToPre,
}

impl State {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 12] = [
        Self::None,
        Self::NoneOut,
        Self::NoneIn,
        Self::NoneOutIn,
        Self::To,
        Self::ToIn,
        Self::From,
        Self::FromOut,
        Self::Both,
        Self::NonePre,
        Self::NoneOutPre,
        Self::ToPre,
    ];

    /// The state that these marks mean. Marks that contradict the subscription (an `ask` to whom we are
    /// subscribed already, a request or pre-approval of who is subscribed already) are dropped; a request beats
    /// a pre-approval, because approving is the user's to do.
    pub const fn new(
        subscription: Subscription,
        ask: bool,
        pending_in: bool,
        approved: bool,
    ) -> Self {
        match (subscription, ask, pending_in, approved) {
            (Subscription::None, false, false, false) => Self::None,
            (Subscription::None, true, false, false) => Self::NoneOut,
            (Subscription::None, false, true, _) => Self::NoneIn,
            (Subscription::None, true, true, _) => Self::NoneOutIn,
            (Subscription::None, false, false, true) => Self::NonePre,
            (Subscription::None, true, false, true) => Self::NoneOutPre,
            (Subscription::To, _, false, false) => Self::To,
            (Subscription::To, _, true, _) => Self::ToIn,
            (Subscription::To, _, false, true) => Self::ToPre,
            (Subscription::From, false, _, _) => Self::From,
            (Subscription::From, true, _, _) => Self::FromOut,
            (Subscription::Both, _, _, _) => Self::Both,
        }
    }

    /// The attribute `subscription`.
    pub const fn subscription(self) -> Subscription {
        match self {
            Self::None
            | Self::NoneOut
            | Self::NoneIn
            | Self::NoneOutIn
            | Self::NonePre
            | Self::NoneOutPre => Subscription::None,
            Self::To | Self::ToIn | Self::ToPre => Subscription::To,
            Self::From | Self::FromOut => Subscription::From,
            Self::Both => Subscription::Both,
        }
    }

    /// The attribute `ask='subscribe'`: Pending Out.
    pub const fn ask(self) -> bool {
        matches!(
            self,
            Self::NoneOut | Self::NoneOutIn | Self::FromOut | Self::NoneOutPre
        )
    }

    /// The contact's request waits for the user: Pending In. Not shown in the roster.
    pub const fn pending_in(self) -> bool {
        matches!(self, Self::NoneIn | Self::NoneOutIn | Self::ToIn)
    }

    /// The attribute `approved='true'`.
    pub const fn approved(self) -> bool {
        matches!(self, Self::NonePre | Self::NoneOutPre | Self::ToPre)
    }

    /// The user gets the contact's presence.
    pub const fn to(self) -> bool {
        matches!(self.subscription(), Subscription::To | Subscription::Both)
    }

    /// The contact gets the user's presence.
    pub const fn from(self) -> bool {
        matches!(self.subscription(), Subscription::From | Subscription::Both)
    }

    /// Whether a change to `other` shows in the roster (RFC 6121 §2.6.3: only that is a new version).
    pub fn looks_like(self, other: Self) -> bool {
        self.subscription() == other.subscription()
            && self.ask() == other.ask()
            && self.approved() == other.approved()
    }
}

/// One thing to do. The steps of an answer are carried out in their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Outbound only: the stanza goes to the contact's bare JID, from the user's bare JID.
    Route,
    /// A stanza of ours from the user's bare JID to the contact's bare JID. It answers an inbound stanza (whose
    /// `id` it repeats), or comes of a removal. It has been accounted for: it is not handed to [`outbound`] again.
    Send(Kind),
    /// Inbound only: the stanza goes to the user's available resources. It is kept (`State::pending_in`) and goes
    /// again to each that becomes available, until answered.
    DeliverAvailable,
    /// Inbound only: the stanza goes to the user's interested resources (§3.1.6, §3.2.3, §3.3.3).
    DeliverInterested,
    /// The roster item, with its new state, to the interested resources; made if there was none. Comes with
    /// exactly the changes that show.
    Push,
    /// The current presence of every available resource of the user, to the contact's bare JID.
    Presence,
    /// `unavailable` from every available resource of the user, to the contact's bare JID.
    Unavailable,
}

/// What a stanza does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The state after it.
    pub state: State,
    /// What to do, in order.
    pub steps: &'static [Step],
}

impl Outcome {
    /// The same without anybody being told but the user's own clients, of their roster.
    pub fn unseen(self) -> Self {
        let pushes = self.steps.contains(&Step::Push);
        Self {
            steps: if pushes { &[Step::Push] } else { &[] },
            ..self
        }
    }
}

/// A subscription stanza of the user to the contact. The answer to one of another's is [`inbound`].
///
/// `to` is cut to the bare JID before (§3.1.2). The user's own bare JID is nobody's contact: drop the stanza.
pub fn outbound(state: State, kind: Kind) -> Outcome {
    row(
        match kind {
            Kind::Subscribe => &tables::OUT_SUBSCRIBE,
            Kind::Unsubscribe => &tables::OUT_UNSUBSCRIBE,
            Kind::Subscribed => &tables::OUT_SUBSCRIBED,
            Kind::Unsubscribed => &tables::OUT_UNSUBSCRIBED,
        },
        state,
    )
}

/// [`outbound`] for a stanza that may have been handled before: the server was killed and its mux has sent the element
/// again (DESIGN section 3, "Replay is recognised").
///
/// The state may hold what the stanza did the first time, and the stanza be lost on its way to the contact. So an
/// answer that seems to have nothing left to do goes to the contact once more, who ignores it if it is known there
/// (Tables 8 and 9). Only a first time may pre-approve.
pub fn outbound_again(state: State, kind: Kind) -> Outcome {
    let steps: &[Step] = match (kind, state) {
        (Kind::Subscribed, s) if s.from() => &[Step::Route, Step::Presence],
        (Kind::Unsubscribed, s) if !s.from() && !s.pending_in() && !s.approved() => &[Step::Route],
        _ => return outbound(state, kind),
    };
    Outcome { state, steps }
}

/// [`remove`] of an item that is not there, when the roster set may have been handled before (see
/// [`outbound_again`]): the client is told that it is done, the contact that there is nothing between the two.
pub const REMOVE_AGAIN: Outcome = Outcome {
    state: State::None,
    steps: &[
        Step::Send(Kind::Unsubscribe),
        Step::Send(Kind::Unsubscribed),
    ],
};

/// A subscription stanza of the contact to the user.
///
/// `to` is cut to the bare JID before (§3.1.3), `from` is bare.
pub fn inbound(state: State, kind: Kind) -> Outcome {
    row(
        match kind {
            Kind::Subscribe => &tables::IN_SUBSCRIBE,
            Kind::Unsubscribe => &tables::IN_UNSUBSCRIBE,
            Kind::Subscribed => &tables::IN_SUBSCRIBED,
            Kind::Unsubscribed => &tables::IN_UNSUBSCRIBED,
        },
        state,
    )
}

/// A request of the contact that the server approves for the user: as [`inbound`] of one that is pre-approved (§3.4.2), and one
/// that waits for the user is approved with it.
pub fn approve(state: State) -> Outcome {
    row(&tables::IN_SUBSCRIBE_APPROVED, state)
}

/// The same, and the contact is asked for its presence in return, unless the user has it. (A request from before may wait there
/// for an answer of the contact's user: the next one is approved.)
pub fn approve_both(state: State) -> Outcome {
    let outcome = approve(state);
    match (state.from(), outcome.state) {
        (false, State::From | State::FromOut) => Outcome {
            state: State::FromOut,
            steps: &[
                Step::Send(Kind::Subscribed),
                Step::Push,
                Step::Presence,
                Step::Send(Kind::Subscribe),
            ],
        },
        _ => outcome,
    }
}

/// The user removes the contact from the roster (§2.5.2). The state after it is `None`, the push says
/// `subscription='remove'`; a kept request of the contact is dropped.
///
/// A request of ours that waits is withdrawn, and one of theirs refused: the RFC names only subscriptions, but
/// otherwise the other side would wait for ever.
pub fn remove(state: State) -> Outcome {
    row(&tables::REMOVE, state)
}

type Table = [(State, State, &'static [Step]); 12];

fn row(table: &'static Table, state: State) -> Outcome {
    let (_, state, steps) = table[state as usize];
    Outcome { state, steps }
}

/// The tables. Columns: existing state, new state, steps. The first nine rows of each are those of RFC 6121
/// Appendix A; the others are §3.4.
mod tables {
    use super::Kind::{Subscribed, Unsubscribe, Unsubscribed};
    use super::State::*;
    use super::Step::*;
    use super::Table;

    /// Table 2 (A.2.1). Routed always. A pre-approval stays.
    pub const OUT_SUBSCRIBE: Table = [
        (None, NoneOut, &[Route, Push]),
        (NoneOut, NoneOut, &[Route]),
        (NoneIn, NoneOutIn, &[Route, Push]),
        (NoneOutIn, NoneOutIn, &[Route]),
        (To, To, &[Route]),
        (ToIn, ToIn, &[Route]),
        (From, FromOut, &[Route, Push]),
        (FromOut, FromOut, &[Route]),
        (Both, Both, &[Route]),
        (NonePre, NoneOutPre, &[Route, Push]),
        (NoneOutPre, NoneOutPre, &[Route]),
        (ToPre, ToPre, &[Route]),
    ];

    /// Table 3 (A.2.2). Routed always. A pre-approval stays.
    pub const OUT_UNSUBSCRIBE: Table = [
        (None, None, &[Route]),
        (NoneOut, None, &[Route, Push]),
        (NoneIn, NoneIn, &[Route]),
        (NoneOutIn, NoneIn, &[Route, Push]),
        (To, None, &[Route, Push]),
        (ToIn, NoneIn, &[Route, Push]),
        (From, From, &[Route]),
        (FromOut, From, &[Route, Push]),
        (Both, From, &[Route, Push]),
        (NonePre, NonePre, &[Route]),
        (NoneOutPre, NonePre, &[Route, Push]),
        (ToPre, NonePre, &[Route, Push]),
    ];

    /// Table 4 (A.2.3), §3.1.5, §3.4.2: an answer is routed, a pre-approval is not.
    pub const OUT_SUBSCRIBED: Table = [
        (None, NonePre, &[Push]),
        (NoneOut, NoneOutPre, &[Push]),
        (NoneIn, From, &[Route, Push, Presence]),
        (NoneOutIn, FromOut, &[Route, Push, Presence]),
        (To, ToPre, &[Push]),
        (ToIn, Both, &[Route, Push, Presence]),
        (From, From, &[]),
        (FromOut, FromOut, &[]),
        (Both, Both, &[]),
        (NonePre, NonePre, &[]),
        (NoneOutPre, NoneOutPre, &[]),
        (ToPre, ToPre, &[]),
    ];

    /// Table 5 (A.2.4), §3.2.2: unavailable goes while the contact may still see it, then the stanza, then the
    /// push. Not routed if the contact has neither subscription nor request; a pre-approval is withdrawn silently.
    pub const OUT_UNSUBSCRIBED: Table = [
        (None, None, &[]),
        (NoneOut, NoneOut, &[]),
        (NoneIn, None, &[Route]),
        (NoneOutIn, NoneOut, &[Route]),
        (To, To, &[]),
        (ToIn, To, &[Route]),
        (From, None, &[Unavailable, Route, Push]),
        (FromOut, NoneOut, &[Unavailable, Route, Push]),
        (Both, To, &[Unavailable, Route, Push]),
        (NonePre, None, &[Push]),
        (NoneOutPre, NoneOut, &[Push]),
        (ToPre, To, &[Push]),
    ];

    /// Table 6 (A.3.1), §3.1.3. A request of who is subscribed, or pre-approved, is answered for the user.
    pub const IN_SUBSCRIBE: Table = [
        (None, NoneIn, &[DeliverAvailable]),
        (NoneOut, NoneOutIn, &[DeliverAvailable]),
        (NoneIn, NoneIn, &[]),
        (NoneOutIn, NoneOutIn, &[]),
        (To, ToIn, &[DeliverAvailable]),
        (ToIn, ToIn, &[]),
        (From, From, &[Send(Subscribed), Presence]),
        (FromOut, FromOut, &[Send(Subscribed), Presence]),
        (Both, Both, &[Send(Subscribed), Presence]),
        (NonePre, From, &[Send(Subscribed), Push, Presence]),
        (NoneOutPre, FromOut, &[Send(Subscribed), Push, Presence]),
        (ToPre, Both, &[Send(Subscribed), Push, Presence]),
    ];

    /// §3.4.2: each as if it were pre-approved.
    pub const IN_SUBSCRIBE_APPROVED: Table = [
        (None, From, &[Send(Subscribed), Push, Presence]),
        (NoneOut, FromOut, &[Send(Subscribed), Push, Presence]),
        (NoneIn, From, &[Send(Subscribed), Push, Presence]),
        (NoneOutIn, FromOut, &[Send(Subscribed), Push, Presence]),
        (To, Both, &[Send(Subscribed), Push, Presence]),
        (ToIn, Both, &[Send(Subscribed), Push, Presence]),
        (From, From, &[Send(Subscribed), Presence]),
        (FromOut, FromOut, &[Send(Subscribed), Presence]),
        (Both, Both, &[Send(Subscribed), Presence]),
        (NonePre, From, &[Send(Subscribed), Push, Presence]),
        (NoneOutPre, FromOut, &[Send(Subscribed), Push, Presence]),
        (ToPre, Both, &[Send(Subscribed), Push, Presence]),
    ];

    /// Table 7 (A.3.2), §3.3.3. A withdrawn request changes nothing that shows, so nothing is pushed. No automatic
    /// `unsubscribed`: see the module.
    pub const IN_UNSUBSCRIBE: Table = [
        (None, None, &[]),
        (NoneOut, NoneOut, &[]),
        (NoneIn, None, &[DeliverInterested]),
        (NoneOutIn, NoneOut, &[DeliverInterested]),
        (To, To, &[]),
        (ToIn, To, &[DeliverInterested]),
        (From, None, &[DeliverInterested, Push, Unavailable]),
        (FromOut, NoneOut, &[DeliverInterested, Push, Unavailable]),
        (Both, To, &[DeliverInterested, Push, Unavailable]),
        (NonePre, NonePre, &[]),
        (NoneOutPre, NoneOutPre, &[]),
        (ToPre, ToPre, &[]),
    ];

    /// Table 8 (A.3.3), §3.1.6: the stanza before the push. Ignored unless we have asked.
    pub const IN_SUBSCRIBED: Table = [
        (None, None, &[]),
        (NoneOut, To, &[DeliverInterested, Push]),
        (NoneIn, NoneIn, &[]),
        (NoneOutIn, ToIn, &[DeliverInterested, Push]),
        (To, To, &[]),
        (ToIn, ToIn, &[]),
        (From, From, &[]),
        (FromOut, Both, &[DeliverInterested, Push]),
        (Both, Both, &[]),
        (NonePre, NonePre, &[]),
        (NoneOutPre, ToPre, &[DeliverInterested, Push]),
        (ToPre, ToPre, &[]),
    ];

    /// Table 9 (A.3.4), §3.2.3: the stanza before the push. Ignored unless we are subscribed or have asked.
    /// Never withdraws a pre-approval (§4.3.2 rule 1).
    pub const IN_UNSUBSCRIBED: Table = [
        (None, None, &[]),
        (NoneOut, None, &[DeliverInterested, Push]),
        (NoneIn, NoneIn, &[]),
        (NoneOutIn, NoneIn, &[DeliverInterested, Push]),
        (To, None, &[DeliverInterested, Push]),
        (ToIn, NoneIn, &[DeliverInterested, Push]),
        (From, From, &[]),
        (FromOut, From, &[DeliverInterested, Push]),
        (Both, From, &[DeliverInterested, Push]),
        (NonePre, NonePre, &[]),
        (NoneOutPre, NonePre, &[DeliverInterested, Push]),
        (ToPre, NonePre, &[DeliverInterested, Push]),
    ];

    /// §2.5.2.
    pub const REMOVE: Table = [
        (None, None, &[Push]),
        (NoneOut, None, &[Push, Send(Unsubscribe)]),
        (NoneIn, None, &[Push, Send(Unsubscribed)]),
        (
            NoneOutIn,
            None,
            &[Push, Send(Unsubscribe), Send(Unsubscribed)],
        ),
        (To, None, &[Push, Send(Unsubscribe)]),
        (ToIn, None, &[Push, Send(Unsubscribe), Send(Unsubscribed)]),
        (From, None, &[Push, Unavailable, Send(Unsubscribed)]),
        (
            FromOut,
            None,
            &[Push, Unavailable, Send(Unsubscribe), Send(Unsubscribed)],
        ),
        (
            Both,
            None,
            &[Push, Unavailable, Send(Unsubscribe), Send(Unsubscribed)],
        ),
        (NonePre, None, &[Push]),
        (NoneOutPre, None, &[Push, Send(Unsubscribe)]),
        (ToPre, None, &[Push, Send(Unsubscribe)]),
    ];
}

#[cfg(test)]
mod tests;
