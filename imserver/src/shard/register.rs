//! In-band registration before log-in (XEP-0077). What is asked and answered, `iq::register` decides.

use super::Shard;
use crate::event::{AccountAnswer, Look, Newcomer};
use crate::iq::register::{self, Stranger};
use crate::policy::Right;
use xmpp::element::Element;

impl Shard {
    /// An IQ of somebody who has no account, on a stream of this domain. The connection waits for the directory.
    pub(super) fn stranger_registers(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        domain: &str,
    ) {
        let settings = self.settings.clone();
        let reply = match register::before_login(element, domain, &settings.people) {
            Stranger::Reply(bytes) => bytes,
            Stranger::Register { registration, id } => {
                let session = self.session(slot);
                let peer = session.open.peer.ip();
                let allowed = session.mux.allows(domain);
                // The rules may speak of an administrator who is not there (any more): whoever comes first must not be it.
                let mut high = [Right::Admin, Right::AdminUsers, Right::AdminRead]
                    .into_iter()
                    .map(|right| self.verdict(&registration.jid, right))
                    .filter(|verdict| !verdict.is_certain_no());
                let reserved = high.next().map(|verdict| verdict.unknown);
                if reserved == Some(true) {
                    register::registered(&id, domain, &AccountAnswer::Unavailable)
                } else if allowed && self.may(&registration.jid, Right::Register) {
                    let newcomer = Newcomer {
                        registration,
                        reserved: reserved.is_some(),
                        peer,
                        limits: settings.people.register_limits,
                        id,
                    };
                    return self.look(slot, Look::Register(Box::new(newcomer)));
                } else {
                    register::registered(&id, domain, &AccountAnswer::NotHere)
                }
            }
        };
        if !reply.is_empty() {
            self.send_nonza(slot, reply);
        }
        self.session(slot).done(number);
    }
}
