//! SASLprep (RFC 4013) for passwords and user names.
//!
//! Differs from `stringprep::saslprep` in one point: code points unassigned in Unicode 3.2 pass. RFC 4013 lets a
//! client *query* with them and forbids a server to *store* them; so people whose phone offers emoji could set a
//! password here and never log in. Prosody and ejabberd let them pass too.

use std::borrow::Cow;
use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// A text that cannot be a password or a user name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrepError {
    /// Nothing is left after preparation.
    #[error("empty")]
    Empty,
    /// A character RFC 4013 §2.3 prohibits (control, private use, ...).
    #[error("a character that is not allowed (RFC 4013)")]
    Prohibited,
    /// Left-to-right and right-to-left text mixed against RFC 3454 §6.
    #[error("right-to-left text is mixed with left-to-right text (RFC 3454)")]
    Bidirectional,
}

/// Prepares a password or a user name (RFC 4013 §2).
///
/// # Errors
/// [`PrepError`] if the text cannot be used.
pub fn saslprep(text: &str) -> Result<Cow<'_, str>, PrepError> {
    if text.is_empty() {
        return Err(PrepError::Empty);
    }
    if text.bytes().all(|b| (0x20..0x7F).contains(&b)) {
        return Ok(Cow::Borrowed(text));
    }
    let prepared: String = text
        .chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .map(|c| {
            if tables::non_ascii_space_character(c) {
                ' '
            } else {
                c
            }
        })
        .nfkc()
        .collect();
    if prepared.is_empty() {
        return Err(PrepError::Empty);
    }
    if prepared.chars().any(is_prohibited) {
        return Err(PrepError::Prohibited);
    }
    // RFC 3454 §6.
    if prepared.contains(tables::bidi_r_or_al)
        && (prepared.contains(tables::bidi_l)
            || !prepared.starts_with(tables::bidi_r_or_al)
            || !prepared.ends_with(tables::bidi_r_or_al))
    {
        return Err(PrepError::Bidirectional);
    }
    Ok(Cow::Owned(prepared))
}

/// RFC 4013 §2.3.
fn is_prohibited(c: char) -> bool {
    tables::non_ascii_space_character(c)
        || tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}
