//! See LINK.md.
