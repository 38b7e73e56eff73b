//! What owners say of who wants to subscribe (XEP-0060 §8.6, §8.7), and who is told of a changed subscription
//! (Notification of Subscription State Changes).
//!
//! In: an owner's answer. Out: the subscription as it is from now on, its notice, the last item. Owns: nothing.
//! Never: lets a late answer end what has been granted.

use super::*;

impl Request<'_> {
    /// §8.6: an owner has answered.
    pub(super) fn approve(
        &self,
        nodes: &mut Nodes,
        name: String,
        jid: &Jid,
        allow: bool,
    ) -> Result<Plan, Refusal> {
        let bare = self.who.jid.bare();
        let Some(node) = nodes.get_mut(&name) else {
            // To others it is the same as a node that is not theirs.
            return Err(match self.is_owner() {
                true => not_found(),
                false => forbidden(),
            });
        };
        if node.affiliation(self.owner(), &bare) != Affiliation::Owner {
            return Err(forbidden());
        }
        let to_be = match allow {
            true => Subscription::Subscribed,
            false => Subscription::None,
        };
        match node.member(jid).subscription {
            Subscription::Pending => {}
            is if is == to_be && self.service.again => return Ok(Plan::Reply(None)),
            Subscription::Subscribed => {
                let text = format!("{} is a subscriber already", jid.as_str());
                let refusal = Refusal::saying(StanzaError::UnexpectedRequest, text);
                return Err(refusal.of_type(ErrorType::Cancel));
            }
            Subscription::None => {
                let text = format!("{} does not ask to be a subscriber", jid.as_str());
                return Err(Refusal::saying(StanzaError::ItemNotFound, text));
            }
        }
        let mut change = Change::default();
        change.subscribes(&name, node, jid, to_be);
        Ok(self.stored(change))
    }
}

impl Change {
    /// Somebody's subscription is this from now on, by somebody else's doing: they are told, and who is let in has the last item
    /// as who was free to subscribe.
    pub(super) fn subscribes(
        &mut self,
        name: &str,
        node: &mut Node,
        jid: &Jid,
        subscription: Subscription,
    ) {
        let before = node.member(jid);
        let member = Member {
            subscription,
            ..before
        };
        self.changes.push(node.set_member(name, jid, member));
        let told = event::subscription(name, jid, subscription);
        self.notices
            .push(Notice::to_one(name, node, &told, jid.clone()));
        if subscription == Subscription::Subscribed && sends_last(node) {
            self.last.push((name.to_owned(), jid.clone()));
        }
    }
}

/// A new subscriber is sent the last item (§6.1.7).
pub(super) fn sends_last(node: &Node) -> bool {
    node.config.send_last != SendLast::Never && node.config.persist
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::event::Recipients;
    use crate::pubsub::tests::LIMITS;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    fn node(is: Subscription) -> Nodes {
        let mut node = Node::default();
        node.config.access = AccessModel::Authorize;
        node.config.persist = true;
        let member = |affiliation, subscription| Member {
            affiliation,
            subscription,
        };
        for (who, what) in [
            ("romeo@example.org/orchard", member(Affiliation::None, is)),
            (
                "nurse@example.org",
                member(Affiliation::Owner, Subscription::None),
            ),
            (
                "paris@example.org",
                member(Affiliation::Publisher, Subscription::None),
            ),
        ] {
            node.set_member("n", &jid(who), what);
        }
        Nodes::from([("n".to_owned(), node)])
    }

    fn asked(nodes: &mut Nodes, from: &str, again: bool, ask: Ask) -> Plan {
        let (owner, from) = (jid("juliet@example.org").bare(), jid(from));
        let who = Who {
            jid: &from,
            presence: false,
            groups: &[],
        };
        let service = Service {
            owner: &owner,
            limits: LIMITS,
            now_ms: 7,
            again,
            fresh_id: "fresh",
        };
        decide(&service, nodes, &who, ask)
    }

    fn outcome(plan: &Plan) -> String {
        match plan {
            Plan::Change(_) => "changed".into(),
            Plan::Reply(None) => "done".into(),
            Plan::Refuse(refusal) => refusal.condition.as_str().into(),
            other => panic!("{other:?}"),
        }
    }

    /// From, node, what the subscription is, whether the request may come again, whether it is allowed; what comes of it.
    #[test]
    fn an_answer_counts_if_an_owner_gives_it_and_somebody_waits() {
        use Subscription::{None, Pending, Subscribed};
        const JULIET: &str = "juliet@example.org/balcony";
        for (from, name, is, again, allow, expected) in [
            (JULIET, "n", Pending, false, true, "changed"),
            (JULIET, "n", Pending, false, false, "changed"),
            (JULIET, "n", Pending, true, true, "changed"),
            ("nurse@example.org/x", "n", Pending, false, true, "changed"),
            (
                "paris@example.org/x",
                "n",
                Pending,
                false,
                true,
                "forbidden",
            ),
            (
                "mallory@example.net/x",
                "n",
                Pending,
                false,
                true,
                "forbidden",
            ),
            (
                "mallory@example.net/x",
                "no",
                Pending,
                false,
                true,
                "forbidden",
            ),
            // Who asks does not answer.
            (
                "romeo@example.org/orchard",
                "n",
                Pending,
                false,
                true,
                "forbidden",
            ),
            (JULIET, "no", Pending, false, true, "item-not-found"),
            (JULIET, "n", None, false, true, "item-not-found"),
            (JULIET, "n", None, false, false, "item-not-found"),
            (JULIET, "n", Subscribed, false, true, "unexpected-request"),
            (JULIET, "n", Subscribed, false, false, "unexpected-request"),
            // It was carried out before the server was killed.
            (JULIET, "n", Subscribed, true, true, "done"),
            (JULIET, "n", None, true, false, "done"),
            (JULIET, "n", Subscribed, true, false, "unexpected-request"),
            (JULIET, "n", None, true, true, "item-not-found"),
        ] {
            let before = node(is);
            let mut nodes = before.clone();
            let ask = Ask::Approve(name.into(), jid("romeo@example.org/orchard"), allow);
            let plan = asked(&mut nodes, from, again, ask);
            let row = format!("{from} {name} {is:?} {again} {allow}");
            assert_eq!(outcome(&plan), expected, "{row}");
            assert_eq!(nodes == before, expected != "changed", "{row}");
        }
    }

    #[test]
    fn who_is_let_in_is_told_and_has_the_last_item_and_who_is_not_is_told() {
        for (send_last, allow, last) in [
            (SendLast::OnSub, true, 1),
            (SendLast::OnSubAndPresence, true, 1),
            (SendLast::Never, true, 0),
            (SendLast::OnSub, false, 0),
        ] {
            let mut nodes = node(Subscription::Pending);
            nodes.get_mut("n").expect("there").config.send_last = send_last;
            let romeo = jid("romeo@example.org/orchard");
            let ask = Ask::Approve("n".into(), romeo.clone(), allow);
            let Plan::Change(change) = asked(&mut nodes, "juliet@example.org/balcony", false, ask)
            else {
                panic!("it counts");
            };
            assert_eq!(change.last.len(), last, "{send_last:?} {allow}");
            let [notice] = &change.notices[..] else {
                panic!("{change:?}");
            };
            assert_eq!(notice.to, Recipients::One(romeo.clone()));
            let said = String::from_utf8_lossy(&notice.event);
            let word = if allow { "'subscribed'" } else { "'none'" };
            assert!(said.contains(word), "{said}");
            assert_eq!(nodes["n"].members.contains_key(&romeo), allow);
        }
    }

    #[test]
    fn the_owner_is_asked_once_and_about_those_who_have_to_wait_alone() {
        for (access, expected) in [(AccessModel::Authorize, true), (AccessModel::Open, false)] {
            let mut nodes = node(Subscription::None);
            nodes.get_mut("n").expect("there").config.access = access;
            let romeo = jid("romeo@example.org/orchard");
            let ask = || Ask::Subscribe("n".into(), romeo.clone());
            let Plan::Change(change) = asked(&mut nodes, "romeo@example.org/orchard", false, ask())
            else {
                panic!("it counts");
            };
            let wanted = expected.then(|| ("n".to_owned(), romeo.clone()));
            assert_eq!(change.request, wanted);
            let second = asked(&mut nodes, "romeo@example.org/orchard", false, ask());
            assert!(!matches!(second, Plan::Change(_)), "{second:?}");
        }
    }

    #[test]
    fn who_becomes_a_member_is_let_in_and_who_becomes_an_outcast_is_not() {
        for (word, expected) in [
            ("member", Subscription::Subscribed),
            ("publisher", Subscription::Subscribed),
            ("owner", Subscription::Subscribed),
            ("outcast", Subscription::None),
        ] {
            let mut nodes = node(Subscription::Pending);
            let affiliation = Affiliation::of(word).expect("one");
            let ask = Ask::SetAffiliated(
                "n".into(),
                vec![(jid("romeo@example.org").bare(), affiliation)],
            );
            let Plan::Change(change) = asked(&mut nodes, "juliet@example.org/balcony", false, ask)
            else {
                panic!("it counts");
            };
            let romeo = jid("romeo@example.org/orchard");
            assert_eq!(nodes["n"].member(&romeo).subscription, expected, "{word}");
            assert_eq!(change.notices.len(), 1, "{word}");
        }
    }
}
