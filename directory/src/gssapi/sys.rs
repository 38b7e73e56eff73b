//! The Kerberos library (MIT krb5, `libgssapi_krb5`): the eleven functions of RFC 2744 and its extensions that are needed.
//!
//! Own declarations and no binding crate: those generate theirs at build time, which wants libclang.
//! Owns: handles of the library, each released once, by `Drop`.
//! Never: uses one context from two threads at a time (the library asks for that); a `&mut` stands for it.

#![allow(unsafe_code)] // A C library.

use super::{Accepted, Acceptor, Context, Fault, GssapiError, SERVICE};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// `gss_buffer_desc`.
#[repr(C)]
struct Buffer {
    length: usize,
    value: *mut c_void,
}

/// `gss_OID_desc`.
#[repr(C)]
struct Oid {
    length: u32,
    elements: *mut c_void,
}

/// `gss_OID_set_desc`.
#[repr(C)]
struct OidSet {
    count: usize,
    elements: *mut Oid,
}

/// `gss_key_value_element_desc`.
#[repr(C)]
struct KeyValue {
    key: *const c_char,
    value: *const c_char,
}

/// `gss_key_value_set_desc`.
#[repr(C)]
struct KeyValues {
    count: u32,
    elements: *mut KeyValue,
}

type Handle = *mut c_void;

#[link(name = "gssapi_krb5")]
unsafe extern "C" {
    fn gss_import_name(
        minor: *mut u32,
        text: *mut Buffer,
        kind: *mut Oid,
        name: *mut Handle,
    ) -> u32;
    fn gss_release_name(minor: *mut u32, name: *mut Handle) -> u32;
    fn gss_acquire_cred_from(
        minor: *mut u32,
        name: Handle,
        time: u32,
        mechanisms: *mut OidSet,
        usage: c_int,
        store: *const KeyValues,
        cred: *mut Handle,
        actual: *mut *mut OidSet,
        time_out: *mut u32,
    ) -> u32;
    fn gss_release_cred(minor: *mut u32, cred: *mut Handle) -> u32;
    fn gss_accept_sec_context(
        minor: *mut u32,
        context: *mut Handle,
        cred: Handle,
        token: *mut Buffer,
        bindings: *mut c_void,
        initiator: *mut Handle,
        mechanism: *mut *mut Oid,
        out: *mut Buffer,
        flags: *mut u32,
        time: *mut u32,
        delegated: *mut Handle,
    ) -> u32;
    fn gss_delete_sec_context(minor: *mut u32, context: *mut Handle, out: *mut Buffer) -> u32;
    fn gss_wrap(
        minor: *mut u32,
        context: Handle,
        confidential: c_int,
        quality: u32,
        message: *mut Buffer,
        is_confidential: *mut c_int,
        out: *mut Buffer,
    ) -> u32;
    fn gss_unwrap(
        minor: *mut u32,
        context: Handle,
        message: *mut Buffer,
        out: *mut Buffer,
        is_confidential: *mut c_int,
        quality: *mut u32,
    ) -> u32;
    fn gss_display_name(
        minor: *mut u32,
        name: Handle,
        out: *mut Buffer,
        kind: *mut *mut Oid,
    ) -> u32;
    fn gss_display_status(
        minor: *mut u32,
        status: u32,
        kind: c_int,
        mechanism: *mut Oid,
        more: *mut u32,
        out: *mut Buffer,
    ) -> u32;
    fn gss_release_buffer(minor: *mut u32, buffer: *mut Buffer) -> u32;
}

/// 1.2.840.113554.1.2.2, the Kerberos mechanism (RFC 1964).
const KRB5: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
/// 1.2.840.113554.1.2.1.4, `GSS_C_NT_HOSTBASED_SERVICE`.
const HOSTBASED_SERVICE: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04";

const GSS_C_ACCEPT: c_int = 2;
const GSS_C_GSS_CODE: c_int = 1;
const GSS_C_MECH_CODE: c_int = 2;
const GSS_S_CONTINUE_NEEDED: u32 = 1;
const GSS_C_DCE_STYLE: u32 = 0x1000;

fn oid(elements: &'static [u8]) -> Oid {
    Oid {
        length: elements.len() as u32,
        elements: elements.as_ptr() as *mut c_void,
    }
}

/// Input for the library, which only reads it.
fn input(bytes: &[u8]) -> Buffer {
    Buffer {
        length: bytes.len(),
        value: bytes.as_ptr() as *mut c_void,
    }
}

/// Output of the library, given back by `Drop`.
struct Out(Buffer);

impl Out {
    fn new() -> Self {
        Out(Buffer {
            length: 0,
            value: ptr::null_mut(),
        })
    }

    fn to_vec(&self) -> Vec<u8> {
        if self.0.value.is_null() {
            return Vec::new();
        }
        // SAFETY: the library has allocated `length` bytes there, and they live until `Drop`.
        unsafe { std::slice::from_raw_parts(self.0.value.cast::<u8>(), self.0.length) }.to_vec()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: empty, or filled by the library; released once.
        unsafe { gss_release_buffer(&mut minor, &mut self.0) };
    }
}

/// A handle, and how it is given back.
struct Owned(Handle, unsafe extern "C" fn(*mut u32, *mut Handle) -> u32);

impl Owned {
    fn name() -> Self {
        Owned(ptr::null_mut(), gss_release_name)
    }

    fn cred() -> Self {
        Owned(ptr::null_mut(), gss_release_cred)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut minor = 0;
        if !self.0.is_null() {
            // SAFETY: a handle of the kind this function releases, released once.
            unsafe { (self.1)(&mut minor, &mut self.0) };
        }
    }
}

/// Kerberos with the keys of one file.
#[derive(Debug)]
pub(super) struct Kerberos {
    keytab: CString,
}

impl Kerberos {
    pub(super) fn new(keytab: &Path) -> Self {
        // A path of the operating system has no NUL.
        let keytab = [b"FILE:", keytab.as_os_str().as_bytes()].concat();
        Kerberos {
            keytab: CString::new(keytab).unwrap_or_default(),
        }
    }

    /// The credential: any key of our service in the keytab, of whatever host name, and of no other service.
    fn cred(&self) -> Result<Owned, GssapiError> {
        let mut minor = 0;
        let mut name = Owned::name();
        let mut kind = oid(HOSTBASED_SERVICE);
        // SAFETY: pointers to live locals; the library copies what it keeps.
        let major = unsafe {
            gss_import_name(
                &mut minor,
                &mut input(SERVICE.as_bytes()),
                &mut kind,
                &mut name.0,
            )
        };
        check(major, minor)?;
        let mut mechanism = oid(KRB5);
        let mut mechanisms = OidSet {
            count: 1,
            elements: &mut mechanism,
        };
        let mut entry = KeyValue {
            key: c"keytab".as_ptr(),
            value: self.keytab.as_ptr(),
        };
        let store = KeyValues {
            count: 1,
            elements: &mut entry,
        };
        let mut cred = Owned::cred();
        // SAFETY: as above; the last two results are not wanted.
        let major = unsafe {
            gss_acquire_cred_from(
                &mut minor,
                name.0,
                0,
                &mut mechanisms,
                GSS_C_ACCEPT,
                &store,
                &mut cred.0,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        // Whatever it is, it is the keytab.
        check(major, minor).map_err(|e| GssapiError {
            fault: Fault::Ours,
            ..e
        })?;
        Ok(cred)
    }
}

impl Acceptor for Kerberos {
    fn context(&self) -> Result<Box<dyn Context>, GssapiError> {
        Ok(Box::new(KerberosContext {
            context: ptr::null_mut(),
            cred: self.cred()?,
        }))
    }
}

struct KerberosContext {
    context: Handle,
    cred: Owned,
}

// SAFETY: the library ties no handle to a thread; it asks that a context is not used by two at once, and every use takes `&mut`.
unsafe impl Send for KerberosContext {}

impl Drop for KerberosContext {
    fn drop(&mut self) {
        let mut minor = 0;
        if !self.context.is_null() {
            // SAFETY: a context of the library, deleted once; no token is wanted.
            unsafe { gss_delete_sec_context(&mut minor, &mut self.context, ptr::null_mut()) };
        }
    }
}

impl Context for KerberosContext {
    fn accept(&mut self, token: &[u8]) -> Result<Accepted, GssapiError> {
        if self.context.is_null() && !is_for_krb5(token) {
            return Err(GssapiError::peer("not a Kerberos token"));
        }
        let (mut minor, mut flags) = (0, 0);
        let mut initiator = Owned::name();
        let mut out = Out::new();
        // SAFETY: pointers to live locals and our own handles; results that are null are not wanted.
        let major = unsafe {
            gss_accept_sec_context(
                &mut minor,
                &mut self.context,
                self.cred.0,
                &mut input(token),
                ptr::null_mut(),
                &mut initiator.0,
                ptr::null_mut(),
                &mut out.0,
                &mut flags,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        check(major, minor)?;
        if flags & GSS_C_DCE_STYLE != 0 {
            return Err(GssapiError::peer("DCE style"));
        }
        let more = major & GSS_S_CONTINUE_NEEDED != 0;
        let initiator = match more {
            true => None,
            false => Some(display_name(initiator.0)?),
        };
        Ok(Accepted {
            token: out.to_vec(),
            initiator,
        })
    }

    fn wrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
        let mut minor = 0;
        let mut out = Out::new();
        // SAFETY: pointers to live locals and our own context.
        let major = unsafe {
            gss_wrap(
                &mut minor,
                self.context,
                0,
                0,
                &mut input(message),
                ptr::null_mut(),
                &mut out.0,
            )
        };
        check(major, minor)?;
        Ok(out.to_vec())
    }

    fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
        let mut minor = 0;
        let mut out = Out::new();
        // SAFETY: as above.
        let major = unsafe {
            gss_unwrap(
                &mut minor,
                self.context,
                &mut input(message),
                &mut out.0,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        // A message that comes twice or late is told with success and these bits (RFC 2743 §1.2.3).
        if major & 0xffff != 0 {
            return Err(GssapiError::peer("a message twice or out of order"));
        }
        check(major, minor)?;
        Ok(out.to_vec())
    }
}

/// RFC 2743 §3.1: `[APPLICATION 0]`, a length, the mechanism. Tokens of other mechanisms must not even ask for keys.
fn is_for_krb5(token: &[u8]) -> bool {
    let Some((0x60, rest)) = token.split_first().map(|(t, r)| (*t, r)) else {
        return false;
    };
    let skip = match rest.first() {
        Some(&n @ 0x81..=0x84) => 1 + usize::from(n & 0x7f),
        Some(0..=0x7f) => 1,
        _ => return false,
    };
    let oid = rest
        .get(skip..)
        .and_then(|r| r.strip_prefix(&[0x06, KRB5.len() as u8]));
    oid.is_some_and(|r| r.starts_with(KRB5))
}

fn display_name(name: Handle) -> Result<String, GssapiError> {
    let mut minor = 0;
    let mut out = Out::new();
    // SAFETY: a name of the library; the kind is not wanted.
    let major = unsafe { gss_display_name(&mut minor, name, &mut out.0, ptr::null_mut()) };
    check(major, minor)?;
    String::from_utf8(out.to_vec()).map_err(|_| GssapiError::peer("the principal is no UTF-8"))
}

/// Nothing, or what went wrong.
fn check(major: u32, minor: u32) -> Result<(), GssapiError> {
    // Calling errors and routine errors (RFC 2744 §3.9.1).
    if major & 0xffff_0000 == 0 {
        return Ok(());
    }
    let mut text = message(major, GSS_C_GSS_CODE);
    let detail = message(minor, GSS_C_MECH_CODE);
    if minor != 0 && !detail.is_empty() {
        text = format!("{text}: {detail}");
    }
    Err(GssapiError {
        fault: fault(major, minor),
        text,
    })
}

fn message(status: u32, kind: c_int) -> String {
    let (mut minor, mut more) = (0, 0);
    let mut out = Out::new();
    let mut mechanism = oid(KRB5);
    // SAFETY: pointers to live locals. The first of several messages says enough.
    unsafe {
        gss_display_status(
            &mut minor,
            status,
            kind,
            &mut mechanism,
            &mut more,
            &mut out.0,
        )
    };
    let bytes = out.to_vec();
    let text = CStr::from_bytes_until_nul(&bytes).map_or(&bytes[..], CStr::to_bytes);
    String::from_utf8_lossy(text).into_owned()
}

/// Whose fault a status is. What is not known to be ours is the client's, so that it cannot fill the log.
fn fault(major: u32, minor: u32) -> Fault {
    const CREDENTIALS_EXPIRED: u32 = 11;
    const NO_CRED: u32 = 7;
    const FAILURE: u32 = 13;
    /// First code of the library's table of errors.
    const KRB5: i32 = -1_765_328_384;
    const TICKET_EXPIRED: i32 = KRB5 + 32;
    const TICKET_NOT_YET_VALID: i32 = KRB5 + 33;
    const CLOCK_SKEW: i32 = KRB5 + 37;
    /// `KRB5_RC_IO` to `KRB5_RC_IO_SPACE`: the replay cache cannot be read or written.
    const REPLAY_CACHE: std::ops::RangeInclusive<i32> = KRB5 + 164..=KRB5 + 172;
    const KEYTAB_IO: i32 = KRB5 + 184;
    match ((major >> 16) & 0xff, minor as i32) {
        (CREDENTIALS_EXPIRED, _) | (_, TICKET_EXPIRED | TICKET_NOT_YET_VALID | CLOCK_SKEW) => {
            Fault::Expired
        }
        (NO_CRED, _) => Fault::Ours,
        // An error of the operating system: a file that is not there or not ours to read.
        (FAILURE, 1..=4095) => Fault::Ours,
        (FAILURE, KEYTAB_IO) => Fault::Ours,
        (FAILURE, code) if REPLAY_CACHE.contains(&code) => Fault::Ours,
        _ => Fault::Peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_other_mechanisms_are_known() {
        let token =
            |head: &[u8], oid: &[u8]| [head, &[0x06, oid.len() as u8], oid, b"rest"].concat();
        for (bytes, expected) in [
            (token(b"\x60\x20", KRB5), true),
            (token(b"\x60\x82\x01\x20", KRB5), true),
            (token(b"\x60\x20", b"\x2b\x06\x01\x05\x05\x02"), false),
            (token(b"\x60\x80", KRB5), false),
            (token(b"\x6e\x20", KRB5), false),
            (b"\x60".to_vec(), false),
            (b"\x60\x84\x01".to_vec(), false),
            (b"NTLMSSP\0".to_vec(), false),
            (Vec::new(), false),
        ] {
            assert_eq!(is_for_krb5(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn whose_fault_a_status_is() {
        for (routine, minor, expected) in [
            (9, 0, Fault::Peer),
            (11, 0, Fault::Expired),
            (7, 0, Fault::Ours),
            (13, 0, Fault::Peer),
            (13, -1_765_328_352_i32, Fault::Expired), // KRB5KRB_AP_ERR_TKT_EXPIRED
            (13, -1_765_328_347, Fault::Expired),     // KRB5KRB_AP_ERR_SKEW
            (2, -1_765_328_350, Fault::Peer),         // KRB5KRB_AP_ERR_REPEAT
            (13, -1_765_328_221, Fault::Peer),        // KRB5_RC_REPLAY
            (13, -1_765_328_203, Fault::Peer),        // KRB5_KT_NOTFOUND
            (13, -1_765_328_200, Fault::Ours),        // KRB5_KT_IOERR
            (13, -1_765_328_212, Fault::Ours),        // KRB5_RC_IO_SPACE
            (13, 13, Fault::Ours),                    // EACCES
        ] {
            assert_eq!(
                fault(routine << 16, minor as u32),
                expected,
                "{routine} {minor}"
            );
        }
    }

    #[test]
    fn without_a_keytab_it_is_our_fault() {
        let kerberos = Kerberos::new(Path::new("/nowhere/krb5.keytab"));
        let error = kerberos.context().map(drop).expect_err("there is none");
        assert_eq!(error.fault, Fault::Ours);
        assert!(error.text.contains("/nowhere/krb5.keytab"), "{error}");
    }
}
