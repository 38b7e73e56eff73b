//! The tables against the text of RFC 6121: Appendix A row by row, then what the prose adds.

use super::State::*;
use super::Step::*;
use super::*;

/// The nine rows of one table of Appendix A, in its own words: "existing | route or deliver | new".
const APPENDIX_A: &[(&str, Kind, &str)] = &[
    (
        "out",
        Kind::Subscribe, // Table 2
        "None                  | MUST | None + Pending Out
         None + Pending Out    | MUST | no state change
         None + Pending In     | MUST | None + Pending Out+In
         None + Pending Out+In | MUST | no state change
         To                    | MUST | no state change
         To + Pending In       | MUST | no state change
         From                  | MUST | From + Pending Out
         From + Pending Out    | MUST | no state change
         Both                  | MUST | no state change",
    ),
    (
        "out",
        Kind::Unsubscribe, // Table 3
        "None                  | MUST | no state change
         None + Pending Out    | MUST | None
         None + Pending In     | MUST | no state change
         None + Pending Out+In | MUST | None + Pending In
         To                    | MUST | None
         To + Pending In       | MUST | None + Pending In
         From                  | MUST | no state change
         From + Pending Out    | MUST | From
         Both                  | MUST | From",
    ),
    (
        "out",
        Kind::Subscribed, // Table 4
        "None                  | M.N. | pre-approval
         None + Pending Out    | M.N. | pre-approval
         None + Pending In     | MUST | From
         None + Pending Out+In | MUST | From + Pending Out
         To                    | M.N. | pre-approval
         To + Pending In       | MUST | Both
         From                  | M.N. | no state change
         From + Pending Out    | M.N. | no state change
         Both                  | M.N. | no state change",
    ),
    (
        "out",
        Kind::Unsubscribed, // Table 5
        "None                  | S.N. | no state change
         None + Pending Out    | S.N. | no state change
         None + Pending In     | MUST | None
         None + Pending Out+In | MUST | None + Pending Out
         To                    | S.N. | no state change
         To + Pending In       | MUST | To
         From                  | MUST | None
         From + Pending Out    | MUST | None + Pending Out
         Both                  | MUST | To",
    ),
    (
        "in",
        Kind::Subscribe, // Table 6; * marks the automatic reply of its note 2
        "None                  | MUST  | None + Pending In
         None + Pending Out    | MUST  | None + Pending Out+In
         None + Pending In     | S.N.  | no state change
         None + Pending Out+In | S.N.  | no state change
         To                    | MUST  | To + Pending In
         To + Pending In       | S.N.  | no state change
         From                  | S.N.* | no state change
         From + Pending Out    | S.N.* | no state change
         Both                  | S.N.* | no state change",
    ),
    (
        "in",
        Kind::Unsubscribe, // Table 7
        "None                  | S.N. | no state change
         None + Pending Out    | S.N. | no state change
         None + Pending In     | MUST | None
         None + Pending Out+In | MUST | None + Pending Out
         To                    | S.N. | no state change
         To + Pending In       | MUST | To
         From                  | MUST | None
         From + Pending Out    | MUST | None + Pending Out
         Both                  | MUST | To",
    ),
    (
        "in",
        Kind::Subscribed, // Table 8
        "None                  | S.N. | no state change
         None + Pending Out    | MUST | To
         None + Pending In     | S.N. | no state change
         None + Pending Out+In | MUST | To + Pending In
         To                    | S.N. | no state change
         To + Pending In       | S.N. | no state change
         From                  | S.N. | no state change
         From + Pending Out    | MUST | Both
         Both                  | S.N. | no state change",
    ),
    (
        "in",
        Kind::Unsubscribed, // Table 9
        "None                  | S.N. | no state change
         None + Pending Out    | MUST | None
         None + Pending In     | S.N. | no state change
         None + Pending Out+In | MUST | None + Pending In
         To                    | MUST | None
         To + Pending In       | MUST | None + Pending In
         From                  | S.N. | no state change
         From + Pending Out    | MUST | From
         Both                  | MUST | From",
    ),
];

fn state(name: &str) -> State {
    match name {
        "None" => None,
        "None + Pending Out" => NoneOut,
        "None + Pending In" => NoneIn,
        "None + Pending Out+In" => NoneOutIn,
        "To" => To,
        "To + Pending In" => ToIn,
        "From" => From,
        "From + Pending Out" => FromOut,
        "Both" => Both,
        other => panic!("no state {other:?}"),
    }
}

fn pre_approved(state: State) -> State {
    State::new(state.subscription(), state.ask(), state.pending_in(), true)
}

fn answer(direction: &str, state: State, kind: Kind) -> Outcome {
    if direction == "out" {
        outbound(state, kind)
    } else {
        inbound(state, kind)
    }
}

#[test]
fn every_row_of_appendix_a_holds() {
    let mut rows = 0;
    for (direction, kind, table) in APPENDIX_A {
        for line in table.lines() {
            let mut cells = line.split('|').map(str::trim);
            let mut cell = || cells.next().expect("three cells");
            let (existing, passed, new) = (state(cell()), cell(), cell());
            let expected = match new {
                "no state change" => existing,
                "pre-approval" => pre_approved(existing),
                name => state(name),
            };
            let got = answer(direction, existing, *kind);
            let what = format!("{direction} {kind:?} in {existing:?}");
            assert_eq!(got.state, expected, "{what}: new state");
            let passes = got
                .steps
                .iter()
                .any(|s| matches!(s, Route | DeliverAvailable | DeliverInterested));
            assert_eq!(passes, passed == "MUST", "{what}: routed or delivered");
            let replies = got.steps.contains(&Send(Kind::Subscribed));
            assert_eq!(replies, passed.ends_with('*'), "{what}: automatic reply");
            rows += 1;
        }
    }
    assert_eq!(rows, 9 * 4 * 2);
}

/// Rows that Appendix A does not have: §3.4, and the steps of the prose in their order.
#[test]
fn every_row_of_the_prose_holds() {
    use Kind::*;
    type Row = (
        &'static str,
        &'static str,
        State,
        Kind,
        State,
        &'static [Step],
    );
    #[rustfmt::skip]
    let rows: &[Row] = &[
        // §3.1.2: routed, then the push with ask='subscribe'.
        ("§3.1.2", "out", None, Subscribe, NoneOut, &[Route, Push]),
        ("§3.1.2 again", "out", NoneOut, Subscribe, NoneOut, &[Route]),
        // §3.1.3: delivered to available resources, once; answered for who is subscribed.
        ("§3.1.3 case 3", "in", None, Subscribe, NoneIn, &[DeliverAvailable]),
        ("§3.1.3 case 4", "in", NoneIn, Subscribe, NoneIn, &[]),
        ("§3.1.3 case 2", "in", From, Subscribe, From, &[Send(Subscribed), Presence]),
        // §3.1.5: route, push, presence from each available resource.
        ("§3.1.5", "out", NoneIn, Subscribed, From, &[Route, Push, Presence]),
        ("§3.1.5 mutual", "out", ToIn, Subscribed, Both, &[Route, Push, Presence]),
        // §3.1.6: the stanza before the push.
        ("§3.1.6", "in", NoneOut, Subscribed, To, &[DeliverInterested, Push]),
        ("§3.1.6 unasked", "in", None, Subscribed, None, &[]),
        // §3.2.2: unavailable, route, push; nothing if the contact had nothing.
        ("§3.2.2", "out", From, Unsubscribed, None, &[Unavailable, Route, Push]),
        ("§3.2.2 case 1", "out", To, Unsubscribed, To, &[]),
        ("§3.2.2 refusal", "out", NoneIn, Unsubscribed, None, &[Route]),
        // §3.2.3
        ("§3.2.3", "in", Both, Unsubscribed, From, &[DeliverInterested, Push]),
        // §3.3.2, §3.3.3
        ("§3.3.2", "out", Both, Unsubscribe, From, &[Route, Push]),
        ("§3.3.3", "in", From, Unsubscribe, None, &[DeliverInterested, Push, Unavailable]),
        ("§3.3.3 withdrawn", "in", NoneIn, Unsubscribe, None, &[DeliverInterested]),
        // §3.4.2: cases 1 to 4. A contact that is not in the roster is in state None.
        ("§3.4.2 case 1", "out", Both, Subscribed, Both, &[]),
        ("§3.4.2 case 1", "out", From, Subscribed, From, &[]),
        ("§3.4.2 case 1", "out", FromOut, Subscribed, FromOut, &[]),
        ("§3.4.2 case 2", "out", NoneOutIn, Subscribed, FromOut, &[Route, Push, Presence]),
        ("§3.4.2 case 3", "out", To, Subscribed, ToPre, &[Push]),
        ("§3.4.2 case 3", "out", NoneOut, Subscribed, NoneOutPre, &[Push]),
        ("§3.4.2 case 4", "out", None, Subscribed, NonePre, &[Push]),
        ("§3.4.2 twice", "out", NonePre, Subscribed, NonePre, &[]),
        ("§3.4.2 twice", "out", ToPre, Subscribed, ToPre, &[]),
        ("§3.4.2 twice", "out", NoneOutPre, Subscribed, NoneOutPre, &[]),
        // Its request is answered for the user and not delivered; the pre-approval is used up.
        ("§3.4.2 request", "in", NonePre, Subscribe, From, &[Send(Subscribed), Push, Presence]),
        ("§3.4.2 request", "in", NoneOutPre, Subscribe, FromOut, &[Send(Subscribed), Push, Presence]),
        ("§3.4.2 request", "in", ToPre, Subscribe, Both, &[Send(Subscribed), Push, Presence]),
        // §3.2.2 case 2: withdrawn without a word to the contact.
        ("§3.2.2 case 2", "out", NonePre, Unsubscribed, None, &[Push]),
        ("§3.2.2 case 2", "out", NoneOutPre, Unsubscribed, NoneOut, &[Push]),
        ("§3.2.2 case 2", "out", ToPre, Unsubscribed, To, &[Push]),
        // The other half of the subscription goes its own way under a pre-approval.
        ("A.2.1", "out", NonePre, Subscribe, NoneOutPre, &[Route, Push]),
        ("A.2.1", "out", NoneOutPre, Subscribe, NoneOutPre, &[Route]),
        ("A.2.1", "out", ToPre, Subscribe, ToPre, &[Route]),
        ("A.2.2", "out", NonePre, Unsubscribe, NonePre, &[Route]),
        ("A.2.2", "out", NoneOutPre, Unsubscribe, NonePre, &[Route, Push]),
        ("A.2.2", "out", ToPre, Unsubscribe, NonePre, &[Route, Push]),
        ("A.3.2", "in", NonePre, Unsubscribe, NonePre, &[]),
        ("A.3.2", "in", NoneOutPre, Unsubscribe, NoneOutPre, &[]),
        ("A.3.2", "in", ToPre, Unsubscribe, ToPre, &[]),
        ("A.3.3", "in", NonePre, Subscribed, NonePre, &[]),
        ("A.3.3", "in", NoneOutPre, Subscribed, ToPre, &[DeliverInterested, Push]),
        ("A.3.3", "in", ToPre, Subscribed, ToPre, &[]),
        // §4.3.2 rule 1: an unsubscribed of the other server never withdraws a pre-approval.
        ("§4.3.2", "in", NonePre, Unsubscribed, NonePre, &[]),
        ("§4.3.2", "in", NoneOutPre, Unsubscribed, NonePre, &[DeliverInterested, Push]),
        ("§4.3.2", "in", ToPre, Unsubscribed, NonePre, &[DeliverInterested, Push]),
    ];
    for (section, direction, existing, kind, new, steps) in rows {
        let got = answer(direction, *existing, *kind);
        assert_eq!(
            got,
            Outcome { state: *new, steps },
            "{section}: {direction} {kind:?} in {existing:?}"
        );
    }
}

#[test]
fn removal_undoes_what_there_was() {
    use Kind::*;
    #[rustfmt::skip]
    let rows: &[(State, &[Step])] = &[
        (None, &[Push]),
        (NoneOut, &[Push, Send(Unsubscribe)]),
        (NoneIn, &[Push, Send(Unsubscribed)]),
        (NoneOutIn, &[Push, Send(Unsubscribe), Send(Unsubscribed)]),
        (To, &[Push, Send(Unsubscribe)]), // §2.5.2 case 1
        (ToIn, &[Push, Send(Unsubscribe), Send(Unsubscribed)]),
        (From, &[Push, Unavailable, Send(Unsubscribed)]), // §2.5.2 case 2
        (FromOut, &[Push, Unavailable, Send(Unsubscribe), Send(Unsubscribed)]),
        (Both, &[Push, Unavailable, Send(Unsubscribe), Send(Unsubscribed)]), // §2.5.2 case 3
        (NonePre, &[Push]),
        (NoneOutPre, &[Push, Send(Unsubscribe)]),
        (ToPre, &[Push, Send(Unsubscribe)]),
    ];
    assert_eq!(rows.len(), State::ALL.len());
    for (state, steps) in rows {
        assert_eq!(
            remove(*state),
            Outcome { state: None, steps },
            "removal in {state:?}"
        );
    }
}

#[test]
fn tables_are_in_the_order_of_the_states() {
    let tables = [
        &tables::OUT_SUBSCRIBE,
        &tables::OUT_UNSUBSCRIBE,
        &tables::OUT_SUBSCRIBED,
        &tables::OUT_UNSUBSCRIBED,
        &tables::IN_SUBSCRIBE,
        &tables::IN_UNSUBSCRIBE,
        &tables::IN_SUBSCRIBED,
        &tables::IN_UNSUBSCRIBED,
        &tables::REMOVE,
    ];
    for table in tables {
        for (row, state) in table.iter().zip(State::ALL) {
            assert_eq!(row.0, state);
        }
    }
    for (index, state) in State::ALL.iter().enumerate() {
        assert_eq!(*state as usize, index);
    }
}

#[test]
fn a_push_comes_with_exactly_the_changes_that_show() {
    for direction in ["out", "in"] {
        for before in State::ALL {
            for kind in Kind::ALL {
                let after = answer(direction, before, kind);
                assert_eq!(
                    after.steps.contains(&Push),
                    !before.looks_like(after.state),
                    "{direction} {kind:?} in {before:?}"
                );
            }
        }
    }
}

/// Presence goes only to who may see it: current presence to who is subscribed after, unavailable to who was before.
#[test]
fn presence_never_leaks() {
    for direction in ["out", "in"] {
        for before in State::ALL {
            for kind in Kind::ALL {
                let after = answer(direction, before, kind);
                if after.steps.contains(&Presence) {
                    assert!(after.state.from(), "{direction} {kind:?} in {before:?}");
                }
                assert_eq!(
                    after.steps.contains(&Unavailable),
                    before.from() && !after.state.from(),
                    "{direction} {kind:?} in {before:?}"
                );
            }
        }
        assert!(
            State::ALL
                .iter()
                .all(|s| remove(*s).steps.contains(&Unavailable) == s.from())
        );
    }
}

/// The same stanza again changes nothing (replays are handled again, DESIGN section 3), and a loop of automatic
/// replies between two servers ends.
#[test]
fn a_repeated_stanza_changes_nothing_more() {
    for direction in ["out", "in"] {
        for before in State::ALL {
            for kind in Kind::ALL {
                let once = answer(direction, before, kind);
                let twice = answer(direction, once.state, kind);
                // An unsubscribed that refuses a request, then meets nothing; subscribed that answers a request, then
                // meets a subscriber: all other rows likewise end where they are.
                assert_eq!(
                    twice.state, once.state,
                    "{direction} {kind:?} in {before:?}"
                );
                assert!(!twice.steps.contains(&Push));
            }
        }
    }
    // Only `subscribe` is ever answered automatically, and the answer is never answered.
    for before in State::ALL {
        for kind in Kind::ALL {
            let replies = inbound(before, kind)
                .steps
                .iter()
                .any(|s| matches!(s, Send(_)));
            assert!(
                !replies || kind == Kind::Subscribe,
                "{kind:?} in {before:?}"
            );
        }
    }
}

/// Killed anywhere between the user's roster and the contact's, then told again: the two agree as if it had not happened.
#[test]
fn a_replayed_stanza_heals_what_a_kill_cut_in_two() {
    for user in [
        None, NoneOut, NoneIn, NoneOutIn, To, ToIn, From, FromOut, Both,
    ] {
        let other_half = |state: State| {
            State::new(
                match (state.from(), state.to()) {
                    (true, true) => Subscription::Both,
                    (true, false) => Subscription::To,
                    (false, true) => Subscription::From,
                    (false, false) => Subscription::None,
                },
                state.pending_in(),
                state.ask(),
                false,
            )
        };
        let contact = other_half(user);
        for kind in Kind::ALL {
            let whole = outbound(user, kind);
            let expected = match whole.steps.contains(&Route) {
                true => inbound(contact, kind).state,
                false => contact,
            };
            // The user's half was written, the contact's was not.
            let again = outbound_again(whole.state, kind);
            assert_eq!(again.state, whole.state, "{kind:?} in {user:?}");
            let healed = match again.steps.contains(&Route) {
                true => inbound(contact, kind).state,
                false => contact,
            };
            assert_eq!(healed, expected, "{kind:?} in {user:?}");
            // Both were: nothing more happens to the contact.
            if again.steps.contains(&Route) {
                assert_eq!(
                    inbound(expected, kind).state,
                    expected,
                    "{kind:?} in {user:?}"
                );
            }
        }
        let removed = REMOVE_AGAIN
            .steps
            .iter()
            .fold(contact, |state, step| match step {
                Send(kind) => inbound(state, *kind).state,
                _ => state,
            });
        assert_eq!(removed, None, "removal in {user:?}");
    }
    // A first time is as ever.
    for (state, kind) in [
        (NoneIn, Kind::Subscribed),
        (From, Kind::Unsubscribed),
        (NonePre, Kind::Unsubscribed),
    ] {
        assert_eq!(outbound_again(state, kind), outbound(state, kind));
    }
}

/// Two servers that keep the two halves of one relationship agree after every sequence of client stanzas.
#[test]
fn two_ends_stay_in_step() {
    let clients: Vec<(usize, Kind)> = (0..2)
        .flat_map(|end| Kind::ALL.map(|kind| (end, kind)))
        .collect();
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![[None, None]];
    while let Some(ends) = todo.pop() {
        if !seen.insert(ends) {
            continue;
        }
        assert_eq!(ends[0].to(), ends[1].from(), "{ends:?}");
        assert_eq!(ends[0].from(), ends[1].to(), "{ends:?}");
        assert!(
            !ends[1].pending_in() || ends[0].ask(),
            "a request is seen that nobody made: {ends:?}"
        );
        assert!(
            !ends[0].pending_in() || ends[1].ask(),
            "a request is seen that nobody made: {ends:?}"
        );
        for &(end, kind) in &clients {
            let mut next = ends;
            let mut wires = std::collections::VecDeque::new();
            let sent = outbound(next[end], kind);
            next[end] = sent.state;
            if sent.steps.contains(&Route) {
                wires.push_back((1 - end, kind));
            }
            while let Some((at, kind)) = wires.pop_front() {
                let got = inbound(next[at], kind);
                next[at] = got.state;
                for step in got.steps {
                    if let Send(reply) = step {
                        wires.push_back((1 - at, *reply));
                    }
                }
            }
            todo.push(next);
        }
        for end in 0..2 {
            let mut next = ends;
            let gone = remove(next[end]);
            next[end] = gone.state;
            for step in gone.steps {
                if let Send(kind) = step {
                    next[1 - end] = inbound(next[1 - end], *kind).state;
                }
            }
            todo.push(next);
        }
    }
    // Each direction is none, pre-approved, asked or granted, independently of the other.
    assert_eq!(seen.len(), 4 * 4);
}

#[test]
fn marks_make_states_and_back() {
    for state in State::ALL {
        assert_eq!(
            State::new(
                state.subscription(),
                state.ask(),
                state.pending_in(),
                state.approved()
            ),
            state
        );
    }
    let rows = [
        ((Subscription::To, true, false, false), To),
        ((Subscription::Both, true, true, true), Both),
        ((Subscription::From, false, true, true), From),
        ((Subscription::None, false, true, true), NoneIn),
        ((Subscription::To, false, true, true), ToIn),
    ];
    for ((subscription, ask, pending_in, approved), state) in rows {
        assert_eq!(State::new(subscription, ask, pending_in, approved), state);
    }
}

#[test]
fn the_server_approves_as_the_user_would_have_before() {
    for state in State::ALL {
        let outcome = approve(state);
        assert!(outcome.state.from(), "{state:?}");
        assert!(
            !outcome.state.pending_in() && !outcome.state.approved(),
            "{state:?}"
        );
        assert_eq!(outcome.state.to(), state.to(), "{state:?}");
        assert_eq!(outcome.state.ask(), state.ask(), "{state:?}");
        let pushes = outcome.steps.contains(&Step::Push);
        assert_eq!(pushes, !state.looks_like(outcome.state), "{state:?}");
        assert_eq!(outcome.steps.first(), Some(&Step::Send(Kind::Subscribed)));
        assert!(outcome.steps.contains(&Step::Presence), "{state:?}");
        if state.approved() {
            assert_eq!(outcome, inbound(state, Kind::Subscribe), "{state:?}");
        }
    }
}

/// A and B of a domain that subscribes by itself: one request, and each sees the other.
#[test]
fn one_request_makes_it_both_ways() {
    for (mut a, mut b) in [
        (State::None, State::None),
        (State::NoneIn, State::NoneOut),
        (State::From, State::To),
    ] {
        let asked = outbound(a, Kind::Subscribe);
        a = asked.state;
        // What is on its way: to B, or to A.
        let mut ways = std::collections::VecDeque::from([(true, Kind::Subscribe)]);
        let mut steps = 0;
        while let Some((to_b, kind)) = ways.pop_front() {
            steps += 1;
            assert!(steps < 10, "it goes round in circles");
            let state = if to_b { &mut b } else { &mut a };
            let outcome = match kind {
                Kind::Subscribe => approve_both(*state),
                kind => inbound(*state, kind),
            };
            *state = outcome.state;
            for step in outcome.steps {
                if let Step::Send(kind) = step {
                    ways.push_back((!to_b, *kind));
                }
            }
        }
        assert_eq!((a, b), (State::Both, State::Both));
    }
}
