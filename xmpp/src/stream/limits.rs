//! How much XML one peer may make us hold or look through.

/// Limits on one top-level element (and on the stream header). Exceeding one is the stream error
/// `policy-violation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one top-level element, from `<` to `>`.
    pub element_bytes_max: u32,
    /// Elements open at once, the top-level one included.
    pub depth_max: u16,
    /// Attributes of one tag, namespace declarations included.
    pub attributes_max: u16,
    /// Namespace declarations in force at once, and at most as many in the stream header.
    pub namespaces_max: u16,
}

/// Longest name of an element or attribute in bytes, with prefix. The longest in any XEP has
/// about 40; it bounds what an end tag is compared with.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// Longest reference, `&` and `;` included: `&#x0010FFFF;` has 12.
pub(crate) const REFERENCE_BYTES_MAX: usize = 16;

/// Longest XML declaration; a common one has 38 bytes.
pub(crate) const DECLARATION_BYTES_MAX: usize = 256;

/// Longest tag that ends a stream: `</stream:stream>` and some white space.
pub(crate) const STREAM_END_BYTES_MAX: usize = 64;

/// The tokenizer counts bytes of an element in 29 bits.
const ELEMENT_BYTES_CEILING: u32 = 1 << 29;

impl Limits {
    /// Before authentication: 10 KiB are enough for every SASL exchange and bound what a stranger
    /// costs.
    pub const BEFORE_LOGIN: Limits = Limits {
        element_bytes_max: 10 * 1024,
        depth_max: 8,
        attributes_max: 32,
        namespaces_max: 16,
    };

    /// After authentication. RFC 6120 §13.12 demands at least 10,000 bytes; 256 KiB hold an avatar
    /// in a vCard. The deepest stanzas in use have about 12 levels.
    pub const AFTER_LOGIN: Limits = Limits {
        element_bytes_max: 256 * 1024,
        depth_max: 64,
        attributes_max: 64,
        namespaces_max: 48,
    };

    /// For bytes that passed the limits once already (a stored row). The depth is still bounded,
    /// because a tree is dropped by recursion.
    pub const NONE: Limits = Limits {
        element_bytes_max: ELEMENT_BYTES_CEILING,
        depth_max: 1024,
        attributes_max: u16::MAX,
        namespaces_max: u16::MAX,
    };

    /// No limit above what the tokenizer can count.
    pub(super) fn clamped(self) -> Limits {
        Limits {
            element_bytes_max: self.element_bytes_max.min(ELEMENT_BYTES_CEILING),
            ..self
        }
    }
}

impl Default for Limits {
    /// [`Limits::BEFORE_LOGIN`].
    fn default() -> Limits {
        Limits::BEFORE_LOGIN
    }
}
