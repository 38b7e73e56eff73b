//! See LINK.md.

use crate::frame::ConnId;

/// What the other end of the link did wrong (or the world did to the link). Every one ends the transport; the link is
/// then built anew by Resume, except after `Dead`, where it may go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Bytes that are no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] crate::codec::DecodeError),
    /// The other end speaks another version of the protocol.
    #[error("the other end speaks link protocol {theirs}, this one {ours}")]
    Version {
        /// Ours.
        ours: u16,
        /// Theirs.
        theirs: u16,
    },
    /// The other end says it is something its certificate does not allow.
    #[error("the other end says it is a {said:?}, its certificate says {allowed:?}")]
    Role {
        /// What Hello says.
        said: crate::frame::Role,
        /// What the certificate says.
        allowed: crate::frame::Role,
    },
    /// A frame that this role never sends, or not now.
    #[error("frame {0} in the wrong direction or at the wrong time")]
    Unexpected(&'static str),
    /// A frame for a connection that was never opened or is forgotten.
    #[error("frame {0} for unknown connection {1:?}")]
    UnknownConn(&'static str, ConnId),
    /// A connection id that is not larger than all before it.
    #[error("connection id {0:?} used again")]
    ConnIdReused(ConnId),
    /// A frame for a connection that its sender has closed.
    #[error("frame {0} after Close of {1:?}")]
    AfterClose(&'static str, ConnId),
    /// A counter that goes backwards, or past what was sent.
    #[error("{0} of {1:?} out of range")]
    Count(&'static str, ConnId),
    /// A transition the state of the connection does not allow.
    #[error("{0} of {1:?} not allowed in its state")]
    State(&'static str, ConnId),
    /// A limit of `limits` passed.
    #[error("limit {0} passed")]
    Limit(&'static str),
    /// Ack of frames never sent, or less than before.
    #[error("Ack out of range")]
    Ack,
    /// Hello or Welcome claims frames that were never sent.
    #[error("frames taken out of range in greeting")]
    Taken,
    /// Nothing heard for `limits::LINK_DEAD`.
    #[error("nothing heard from the other end")]
    Dead,
    /// More than `retained_bytes_max` unacknowledged.
    #[error("the other end does not acknowledge")]
    RetainedFull,
}
