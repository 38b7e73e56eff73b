//! XMPP as pure state machines, sans I/O: addresses, XML streams, stanzas, negotiation, SASL.
//!
//! Bytes and answers go in; events and bytes come out. Nothing here opens a socket, reads a clock,
//! draws random numbers or knows accounts.
//!
//! The path of the data through the files: [`stream`] cuts a byte stream into top-level elements
//! (over the tokenizer in `xml`), each an [`element::Element`]; [`stanza`] gives it RFC 6120/6121
//! meaning and rewrites it for its recipient; [`node`] is the owned tree for what we answer
//! ourselves, [`form`] the data forms in it; [`error`] has every stream and stanza error; [`jid`] the addresses.
//! [`negotiation`] drives a client's stream from its header to a bound resource, over [`sasl`] and
//! [`scram`].

pub mod component;
pub mod element;
pub mod error;
pub mod form;
pub mod jid;
pub mod negotiation;
pub mod node;
pub mod ns;
pub mod sasl;
pub mod scram;
pub mod stanza;
pub mod stream;
mod xml;
