//! Log-in as data: what a client sends, what it gets, over plain TCP, after STARTTLS and over direct TLS.

use bytes::Bytes;
use std::sync::Arc;
use xmpp::error::StreamError;
use xmpp::jid::BareJid;
use xmpp::negotiation::{Action, Keys, Negotiation, Offer, PasswordCheck};
use xmpp::scram::client::{ClientBinding, ScramClient};
use xmpp::scram::{BindingType, FakeKeys, ScramHash, TlsFacts, derive};
use xmpp::stream::{Limits, StreamParser};

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='verona.lit' version='1.0'>";

fn random(out: &mut [u8]) {
    out.fill(0x5a);
}

/// A server's end with one account, romeo, whose password is `secret`; tybalt may not log in, and the directory does not
/// answer for nurse.
struct Server {
    parser: StreamParser,
    negotiation: Negotiation,
    sent: String,
    account: Option<BareJid>,
    bound: Option<(Option<String>, String)>,
    closed: Option<Option<StreamError>>,
    starttls: bool,
}

impl Server {
    fn new(plaintext: bool, tls: Option<TlsFacts>) -> Self {
        let offer = Offer {
            domains: vec!["verona.lit".into(), "mantua.lit".into()],
            plaintext,
            scram: ScramHash::ALL.to_vec(),
            plain: true,
            attempts_max: 3,
            fake: FakeKeys::new([7; 32], 4096),
        };
        Self {
            parser: StreamParser::new(Limits::BEFORE_LOGIN),
            negotiation: Negotiation::new(Arc::new(offer), tls),
            sent: String::new(),
            account: None,
            bound: None,
            closed: None,
            starttls: false,
        }
    }

    /// Gives it bytes; returns what it sends back.
    fn feed(&mut self, text: &str) -> String {
        self.sent.clear();
        self.parser.push(Bytes::copy_from_slice(text.as_bytes()));
        while self.closed.is_none() {
            match self.parser.poll() {
                Ok(Some(event)) => {
                    let actions = self.negotiation.handle(event, &mut random);
                    self.act(actions);
                }
                Ok(None) => break,
                Err(e) => self.closed = Some(Some(e)),
            }
        }
        self.sent.clone()
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let more = match action {
                Action::Send(bytes) => {
                    self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                    continue;
                }
                Action::StartTls(bytes) => {
                    self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                    self.starttls = true;
                    continue;
                }
                Action::Restart => {
                    self.parser.reset();
                    continue;
                }
                Action::LookScram(account, hash) => {
                    let keys = || Arc::new(derive(hash, "secret", b"0123456789abcdef", 4096).unwrap());
                    let answer = match account.localpart().unwrap() {
                        "romeo" => Keys::Found(keys()),
                        "tybalt" => Keys::Disabled(keys()),
                        "nurse" => Keys::TemporaryFailure,
                        _ => Keys::None,
                    };
                    self.negotiation.keys(answer, &mut random)
                }
                Action::LookPassword(account, password) => {
                    let right = password == "secret";
                    self.negotiation.password(match account.localpart().unwrap() {
                        "romeo" if right => PasswordCheck::Right,
                        "tybalt" if right => PasswordCheck::Disabled,
                        "nurse" => PasswordCheck::TemporaryFailure,
                        _ => PasswordCheck::Wrong,
                    })
                }
                Action::Authenticated(account) => {
                    self.account = Some(account);
                    continue;
                }
                Action::Bind { resource, id } => {
                    self.bound = Some((resource, id));
                    continue;
                }
                Action::Failed => continue,
                Action::Close(error) => {
                    self.closed = Some(Some(error));
                    return;
                }
                Action::End => {
                    self.closed = Some(None);
                    return;
                }
            };
            self.act(more);
        }
    }
}

fn tls() -> TlsFacts {
    TlsFacts { version: 0x0304, exporter: Some([3; 32]), server_end_point: Some(Bytes::from_static(&[4; 32])) }
}

fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

fn auth(mechanism: &str, data: &[u8]) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>", base64(data))
}

#[test]
fn headers_that_are_refused() {
    let stream = |attributes: &str| format!("<stream:stream xmlns:stream='http://etherx.jabber.org/streams' {attributes}>");
    for (header, error) in [
        (stream("xmlns='jabber:client' to='nowhere.lit' version='1.0'"), StreamError::HostUnknown),
        (stream("xmlns='jabber:client' version='1.0'"), StreamError::ImproperAddressing),
        (stream("xmlns='jabber:client' to='@' version='1.0'"), StreamError::ImproperAddressing),
        (stream("xmlns='jabber:client' to='verona.lit'"), StreamError::UnsupportedVersion),
        (stream("xmlns='jabber:server' to='verona.lit' version='1.0'"), StreamError::InvalidNamespace),
    ] {
        let mut server = Server::new(false, None);
        let sent = server.feed(&header);
        assert_eq!(server.closed, Some(Some(error)), "{header}");
        // RFC 6120 §4.9.1.2: a header comes before the error.
        assert!(sent.starts_with("<?xml version='1.0'?><stream:stream "), "{sent}");
    }
}

#[test]
fn without_tls_only_starttls_is_offered() {
    let mut server = Server::new(false, None);
    let features = server.feed(HEADER);
    assert!(features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"));
    assert!(!features.contains("<mechanism>"));
    let failure = server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    assert!(failure.contains("<encryption-required/>"), "{failure}");
    assert!(server.account.is_none());
}

#[test]
fn starttls_comes_once_and_forgets_what_was_before() {
    let mut server = Server::new(true, None);
    server.feed(HEADER);
    assert!(server.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").contains("<proceed"));
    assert!(server.starttls);
    server.negotiation.secured(tls());
    server.parser.reset();
    let features = server.feed(HEADER);
    assert!(!features.contains("starttls"));
    assert!(features.contains("<mechanism>SCRAM-SHA-256-PLUS</mechanism>"));
    assert!(features.contains("<channel-binding type='tls-exporter'/>"), "XEP-0440");
    assert!(server.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").contains("<failure"));
    assert_eq!(server.closed, Some(None));
}

#[test]
fn plain_logs_in_and_binds() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    assert!(server.feed(&auth("PLAIN", b"\0romeo\0secret")).contains("<success"));
    assert_eq!(server.account.as_ref().map(|a| a.as_str().to_owned()).as_deref(), Some("romeo@verona.lit"));
    assert!(server.feed(HEADER).contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"));
    server.feed("<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>");
    assert_eq!(server.bound, Some((Some("orchard".into()), "b1".into())));
}

#[test]
fn failures_say_what_they_may_say() {
    for (mechanism, data, condition) in [
        ("PLAIN", &b"\0romeo\0wrong"[..], "not-authorized"),
        ("PLAIN", b"\0nobody\0secret", "not-authorized"),
        ("PLAIN", b"\0romeo\0", "not-authorized"),
        ("PLAIN", b"\0tybalt\0secret", "account-disabled"),
        ("PLAIN", b"\0tybalt\0wrong", "not-authorized"),
        ("PLAIN", b"\0nurse\0secret", "temporary-auth-failure"),
        ("PLAIN", b"juliet@verona.lit\0romeo\0secret", "invalid-authzid"),
        ("PLAIN", b"romeo\0secret", "malformed-request"),
        ("PLAIN", b"\0\0secret", "malformed-request"),
        ("CRAM-MD5", b"x", "invalid-mechanism"),
        ("SCRAM-SHA-256", b"n,,n=romeo", "malformed-request"),
        ("SCRAM-SHA-256", b"n,,m=x,n=romeo,r=abc", "malformed-request"),
        ("SCRAM-SHA-256", b"y,,n=romeo,r=abc", "not-authorized"),
        ("SCRAM-SHA-256", b"n,a=juliet@verona.lit,n=romeo,r=abc", "invalid-authzid"),
        ("SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=romeo,r=abc", "not-authorized"),
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        let sent = server.feed(&auth(mechanism, data));
        assert!(sent.contains(&format!("<{condition}/>")), "{mechanism} {data:?}: {sent}");
        assert!(server.account.is_none());
    }
}

#[test]
fn three_failures_end_the_stream() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    for _ in 0..2 {
        server.feed(&auth("PLAIN", b"\0romeo\0wrong"));
        assert_eq!(server.closed, None);
    }
    server.feed(&auth("PLAIN", b"\0romeo\0wrong"));
    assert_eq!(server.closed, Some(Some(StreamError::PolicyViolation)));
}

#[test]
fn stanzas_before_login_and_a_second_auth_end_the_stream() {
    for stanza in ["<message to='juliet@verona.lit'/>", "<presence/>", "<iq type='get' id='1'/>"] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        server.feed(stanza);
        assert_eq!(server.closed, Some(Some(StreamError::NotAuthorized)), "{stanza}");
    }
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    let twice = format!("{HEADER}{}", auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&twice);
    assert!(server.closed.is_some());
}

#[test]
fn a_host_or_identity_changed_at_the_restart_is_refused() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&HEADER.replace("verona.lit", "mantua.lit"));
    assert_eq!(server.closed, Some(Some(StreamError::HostUnknown)));
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&HEADER.replace(" to=", " from='juliet@verona.lit' to="));
    assert_eq!(server.closed, Some(Some(StreamError::InvalidFrom)));
}

fn scram(server: &mut Server, mechanism: &str, user: &str, password: &str, binding: ClientBinding) -> String {
    let hash = ScramHash::from_mechanism(mechanism.trim_end_matches("-PLUS")).unwrap();
    let mut client = ScramClient::new(hash, user, password, None, binding, "clientnonce");
    server.feed(HEADER);
    let challenge = server.feed(&auth(mechanism, client.first_message().as_bytes()));
    let Some(text) = challenge.strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>") else { return challenge };
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.decode(text.trim_end_matches("</challenge>")).unwrap();
    let answer = client.handle_challenge(std::str::from_utf8(&text).unwrap()).unwrap();
    server.feed(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>", base64(answer.as_bytes())))
}

#[test]
fn scram_with_every_hash_and_binding() {
    for hash in ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let exporter = ClientBinding::Bind(BindingType::TlsExporter, vec![3; 32]);
        let end_point = ClientBinding::Bind(BindingType::TlsServerEndPoint, vec![4; 32]);
        let other = ClientBinding::Bind(BindingType::TlsExporter, vec![9; 32]);
        let plus = format!("{hash}-PLUS");
        for (mechanism, user, password, binding, expected) in [
            (hash, "romeo", "secret", ClientBinding::Unsupported, "<success"),
            (hash, "romeo", "wrong", ClientBinding::Unsupported, "<not-authorized/>"),
            (hash, "nobody", "secret", ClientBinding::Unsupported, "<not-authorized/>"),
            (hash, "tybalt", "secret", ClientBinding::Unsupported, "<account-disabled/>"),
            (hash, "tybalt", "wrong", ClientBinding::Unsupported, "<not-authorized/>"),
            (plus.as_str(), "romeo", "secret", exporter, "<success"),
            (plus.as_str(), "romeo", "secret", end_point, "<success"),
            (plus.as_str(), "romeo", "secret", other, "<not-authorized/>"),
        ] {
            let mut server = Server::new(false, Some(tls()));
            let sent = scram(&mut server, mechanism, user, password, binding);
            assert!(sent.contains(expected), "{mechanism} {user} {password}: {sent}");
        }
    }
}
