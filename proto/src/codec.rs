//! See LINK.md.

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The length field is larger than this end takes.
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
}
