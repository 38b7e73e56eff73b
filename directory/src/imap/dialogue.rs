//! One conversation with an IMAP server (RFC 3501): is this password right?
//!
//! In: bytes of the server. Out: bytes for it, when to begin TLS, a [`Verdict`].
//! Owns: what has not been read yet of the server's bytes. Never: does I/O; believes what came before TLS; sends a name or a
//! password in a form that could be a command; repeats what the server has said to a command with a password in it.
//!
//! ```text
//!   Greeting ─► Capability ─► StartTls ─► Capability ─► Authenticate ─► verdict
//!                                                   └─► Login (quoted, or literals) ─┘
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::VecDeque;
use std::fmt;

/// Longest line of a server. RFC 2683 §3.2.1.5 has 8,000 bytes for commands; a list of capabilities has some hundred.
const LINE_BYTES_MAX: usize = 8_192;

/// Lines of one conversation. Ten are usual.
const LINES_MAX: usize = 100;

/// Characters of a server's text that are repeated in logs.
const TEXT_CHARS_MAX: usize = 120;

/// A name and a password that can be said to an IMAP server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    name: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, ..)", self.name)
    }
}

impl Credentials {
    /// `None`: no mail server has such a password, and it must not be asked: RFC 4616 §2 has no empty ones and no NUL, and a line
    /// would end at CR or LF.
    pub(super) fn new(name: &str, password: &str) -> Option<Self> {
        let sayable = |text: &str| !text.is_empty() && !text.contains(['\r', '\n', '\0']);
        (sayable(name) && sayable(password)).then(|| Credentials {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    }

    fn plain(&self) -> String {
        BASE64.encode(format!("\0{}\0{}", self.name, self.password))
    }
}

/// What a conversation has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The password is right.
    Right,
    /// It is wrong, or there is nobody of this name.
    Wrong,
    /// The server wants nobody to log in with this name now (RFC 5530: EXPIRED, CONTACTADMIN).
    Disabled,
    /// No answer to the question, from a server that works: for others it may have one.
    NotNow(String),
    /// The server is of no use.
    Broken(String),
    /// Of a [`Dialogue::probe`]: it could be asked.
    Ready,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Send this. May hold a password.
    Send(Vec<u8>),
    /// Do the TLS handshake, then call [`Dialogue::secured`].
    StartTls,
    /// It is over.
    Done(Verdict),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Output::StartTls => f.write_str("StartTls"),
            Output::Done(verdict) => write!(f, "Done({verdict:?})"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Greeting,
    Capability,
    StartTls,
    /// The TLS handshake is under way.
    Handshake,
    /// The credentials have been sent, or wait for the server to ask for the rest of them.
    Credentials,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Capabilities {
    starttls: bool,
    plain: bool,
    initial_response: bool,
    login_disabled: bool,
    literal_plus: bool,
    literal_minus: bool,
}

impl Capabilities {
    fn read(list: &str) -> Self {
        let mut all = Capabilities::default();
        for word in list.split_ascii_whitespace() {
            match word.to_ascii_uppercase().as_str() {
                "STARTTLS" => all.starttls = true,
                "AUTH=PLAIN" => all.plain = true,
                "SASL-IR" => all.initial_response = true,
                "LOGINDISABLED" => all.login_disabled = true,
                "LITERAL+" => all.literal_plus = true,
                "LITERAL-" => all.literal_minus = true,
                _ => {}
            }
        }
        all
    }

    /// Whether a literal of so many bytes may follow without being asked for (RFC 7888).
    fn takes_at_once(self, bytes: usize) -> bool {
        self.literal_plus || self.literal_minus && bytes <= 4_096
    }
}

/// See the module.
pub(super) struct Dialogue {
    state: State,
    /// Whose password; absent: only whether the server could be asked.
    credentials: Option<Credentials>,
    /// TLS has to be begun by a command.
    starttls: bool,
    unread: Vec<u8>,
    lines: usize,
    tag: u32,
    capabilities: Option<Capabilities>,
    asked: bool,
    /// What follows, each at a `+` of the server.
    rest: VecDeque<Vec<u8>>,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialogue({:?})", self.state)
    }
}

impl Dialogue {
    /// Checks a password.
    pub(super) fn new(credentials: Credentials, starttls: bool) -> Self {
        Dialogue {
            credentials: Some(credentials),
            ..Self::probe(starttls)
        }
    }

    /// Finds out whether passwords could be checked.
    pub(super) fn probe(starttls: bool) -> Self {
        Dialogue {
            state: State::Greeting,
            credentials: None,
            starttls,
            unread: Vec::new(),
            lines: 0,
            tag: 0,
            capabilities: None,
            asked: false,
            rest: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Whether the credentials have been sent.
    pub(super) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether there is a verdict.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What is to be done next. `None`: more bytes are needed.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes of the server.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Over | State::Handshake) {
            return;
        }
        self.unread.extend_from_slice(bytes);
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.lines += 1;
            if line.len() > LINE_BYTES_MAX {
                return self.broken("a line of it is too long");
            }
            if self.lines > LINES_MAX {
                return self.broken("it talks without end");
            }
            // What is not UTF-8 is nothing we look for.
            self.line(&String::from_utf8_lossy(line));
            if self.state == State::Handshake {
                // RFC 3501 §6.2.1; whoever sits between could have put it there.
                if !self.unread.is_empty() {
                    self.outputs.clear();
                    self.broken("it has said more before TLS than the answer to STARTTLS");
                }
                return;
            }
            if self.state == State::Over {
                return;
            }
        }
        if self.unread.len() > LINE_BYTES_MAX {
            self.broken("a line of it is too long");
        }
    }

    /// The connection has ended.
    pub(super) fn handle_end(&mut self) {
        if self.state != State::Over {
            self.broken("it has closed the connection");
        }
    }

    /// The handshake that was asked for is done. What the server has said before is worth nothing.
    pub(super) fn secured(&mut self) {
        self.starttls = false;
        self.capabilities = None;
        self.ask_capability();
    }

    fn end(&mut self, verdict: Verdict) {
        self.state = State::Over;
        self.rest.clear();
        self.outputs.push_back(Output::Done(verdict));
    }

    fn broken(&mut self, why: impl Into<String>) {
        self.end(Verdict::Broken(why.into()));
    }

    fn send(&mut self, text: String) {
        self.outputs.push_back(Output::Send(text.into_bytes()));
    }

    fn command(&mut self, text: &str) {
        self.tag += 1;
        self.send(format!("a{} {text}\r\n", self.tag));
    }

    fn ask_capability(&mut self) {
        self.state = State::Capability;
        self.command("CAPABILITY");
    }

    fn line(&mut self, line: &str) {
        if let Some(untagged) = line.strip_prefix("* ") {
            return self.untagged(untagged);
        }
        if self.state == State::Greeting {
            return self.broken(format!("it is no IMAP server: it says {}", shown(line)));
        }
        if line == "+" || line.starts_with("+ ") {
            return self.asked_for_more();
        }
        let tag = format!("a{} ", self.tag);
        match line.strip_prefix(&tag) {
            Some(status) => self.tagged(status),
            None if self.state == State::Credentials => {
                self.broken("it has answered with what is no IMAP");
            }
            None => self.broken(format!("it says {}, which is no IMAP", shown(line))),
        }
    }

    fn untagged(&mut self, line: &str) {
        let (word, rest) = split(line);
        match (self.state, word.to_ascii_uppercase().as_str()) {
            (State::Credentials, "BYE") => self.broken("it has said BYE"),
            (_, "BYE") => self.broken(format!("it has said BYE: {}", shown(rest))),
            (State::Greeting, "OK") => {
                self.read_code(rest);
                self.go_on();
            }
            (State::Greeting, "PREAUTH") => {
                self.broken("it lets everybody in without a password (PREAUTH)");
            }
            (State::Greeting, _) => {
                self.broken(format!("it is no IMAP server: it says {}", shown(line)));
            }
            (State::Capability, "CAPABILITY") => {
                self.capabilities = Some(Capabilities::read(rest));
            }
            _ => {}
        }
    }

    /// Capabilities come in the greeting of many servers (RFC 3501 §7.1).
    fn read_code(&mut self, text: &str) {
        if let Some((code, list)) = code(text)
            && code == "CAPABILITY"
        {
            self.capabilities = Some(Capabilities::read(list));
        }
    }

    /// With what is known of the server's capabilities.
    fn go_on(&mut self) {
        let Some(can) = self.capabilities else {
            return self.ask_capability();
        };
        if self.starttls {
            if !can.starttls {
                return self.broken("it offers no STARTTLS");
            }
            self.state = State::StartTls;
            return self.command("STARTTLS");
        }
        if !can.plain && can.login_disabled {
            return self.broken(
                "it takes no password on this connection: it offers neither AUTH=PLAIN nor LOGIN (see `tls`)",
            );
        }
        let Some(credentials) = self.credentials.take() else {
            self.command("LOGOUT");
            return self.end(Verdict::Ready);
        };
        self.state = State::Credentials;
        self.asked = true;
        if can.plain {
            let response = credentials.plain();
            if can.initial_response {
                self.command(&format!("AUTHENTICATE PLAIN {response}"));
            } else {
                self.command("AUTHENTICATE PLAIN");
                self.rest.push_back(format!("{response}\r\n").into_bytes());
            }
        } else {
            self.login(can, &credentials);
        }
    }

    /// LOGIN: each of the two a quoted string if it can be one, else a literal (RFC 3501 §4.3).
    fn login(&mut self, can: Capabilities, credentials: &Credentials) {
        let mut now = "LOGIN".to_owned();
        let mut parts: VecDeque<Vec<u8>> = VecDeque::new();
        for text in [&credentials.name, &credentials.password] {
            now.push(' ');
            if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
                let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                now.push_str(&format!("\"{quoted}\""));
            } else if can.takes_at_once(text.len()) {
                now.push_str(&format!("{{{}+}}\r\n{text}", text.len()));
            } else {
                now.push_str(&format!("{{{}}}\r\n", text.len()));
                parts.push_back(std::mem::take(&mut now).into_bytes());
                now = text.clone();
            }
        }
        now.push_str("\r\n");
        parts.push_back(now.into_bytes());
        self.tag += 1;
        let first = parts.pop_front().unwrap_or_default();
        let tagged = [format!("a{} ", self.tag).as_bytes(), &first].concat();
        self.outputs.push_back(Output::Send(tagged));
        self.rest = parts;
    }

    fn asked_for_more(&mut self) {
        match self.rest.pop_front() {
            Some(part) => self.outputs.push_back(Output::Send(part)),
            None => self.broken("it asks for more than there is to say"),
        }
    }

    fn tagged(&mut self, line: &str) {
        let (status, text) = split(line);
        let status = status.to_ascii_uppercase();
        match (self.state, status.as_str()) {
            (State::Capability, "OK") if self.capabilities.is_some() => self.go_on(),
            (State::Capability, "OK") => self.broken("it does not say what it can do (CAPABILITY)"),
            (State::StartTls, "OK") => {
                self.state = State::Handshake;
                self.outputs.push_back(Output::StartTls);
            }
            (State::Credentials, "OK") if self.rest.is_empty() => {
                self.command("LOGOUT");
                self.end(Verdict::Right);
            }
            (State::Credentials, "OK") => {
                self.broken("it has let somebody in before it was told the password");
            }
            (State::Credentials, "NO") => {
                self.command("LOGOUT");
                self.end(refusal(text));
            }
            // Not repeated in words: it may hold what was sent.
            (State::Credentials, "BAD") => self.end(Verdict::NotNow(
                "it has not understood how it was asked (BAD)".to_owned(),
            )),
            (State::Credentials, _) => self.broken("it has answered with what is no IMAP"),
            (_, _) => self.broken(format!("it says {}", shown(line))),
        }
    }
}

/// What a NO to a password means (RFC 5530 §3; RFC 2221 §4.1: a referral is not followed).
fn refusal(text: &str) -> Verdict {
    let not_now = |code: &str| Verdict::NotNow(format!("it has said no with the code {code}"));
    match code(text) {
        Some((code, _)) => match code.as_str() {
            "UNAVAILABLE" | "INUSE" | "LIMIT" | "SERVERBUG" | "PRIVACYREQUIRED" | "REFERRAL" => {
                not_now(&code)
            }
            "EXPIRED" | "CONTACTADMIN" => Verdict::Disabled,
            _ => Verdict::Wrong,
        },
        None => Verdict::Wrong,
    }
}

/// The response code in front of a text, in capitals, and what belongs to it.
fn code(text: &str) -> Option<(String, &str)> {
    let inside = text.trim_start().strip_prefix('[')?;
    let (inside, _) = inside.split_once(']')?;
    let (code, rest) = split(inside);
    Some((code.to_ascii_uppercase(), rest))
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

/// A server's text for a log: bounded, in quotes, without control characters.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(TEXT_CHARS_MAX).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials::new(name, password).unwrap()
    }

    /// What each output looks like in a script.
    fn next(dialogue: &mut Dialogue) -> Option<String> {
        Some(match dialogue.poll_output()? {
            Output::Send(bytes) => String::from_utf8(bytes).unwrap(),
            Output::StartTls => "TLS".to_owned(),
            Output::Done(verdict) => format!("{verdict:?}"),
        })
    }

    /// A script: `S: ` what the server sends, `C: ` what is sent to it, with `~` for CR LF; `TLS`; in the end the verdict.
    fn play(mut dialogue: Dialogue, script: &[&str], by_byte: bool) {
        for line in script {
            if let Some(said) = line.strip_prefix("S: ") {
                let said = said.replace('~', "\r\n");
                assert_eq!(next(&mut dialogue), None, "before {line:?}");
                if by_byte {
                    said.bytes().for_each(|b| dialogue.handle_bytes(&[b]));
                } else {
                    dialogue.handle_bytes(said.as_bytes());
                }
                continue;
            }
            let expected = line
                .strip_prefix("C: ")
                .unwrap_or(line)
                .replace('~', "\r\n");
            assert_eq!(next(&mut dialogue), Some(expected), "{script:#?}");
            if *line == "TLS" {
                dialogue.secured();
            }
        }
        assert_eq!(next(&mut dialogue), None);
    }

    #[test]
    fn the_usual_ways_to_log_in() {
        let long = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN] ready~";
        let plain = "C: a1 AUTHENTICATE PLAIN AHJvbWVvAHBlbmNpbA==~";
        for script in [
            &[
                long,
                plain,
                "S: a1 OK [CAPABILITY IMAP4rev1] Logged in~",
                "C: a2 LOGOUT~",
                "Right",
            ][..],
            &[
                long,
                plain,
                "S: * CAPABILITY X~a1 ok hello~",
                "C: a2 LOGOUT~",
                "Right",
            ],
            &[
                "S: * OK hi~",
                "C: a1 CAPABILITY~",
                "S: * CAPABILITY IMAP4rev1 auth=plain~a1 OK done~",
                "C: a2 AUTHENTICATE PLAIN~",
                "S: +~",
                "C: AHJvbWVvAHBlbmNpbA==~",
                "S: a2 NO Login failed.~",
                "C: a3 LOGOUT~",
                "Wrong",
            ],
            &[
                "S: * OK hi~",
                "C: a1 CAPABILITY~",
                "S: * CAPABILITY IMAP4rev1~a1 OK done~",
                "C: a2 LOGIN \"romeo\" \"pencil\"~",
                "S: a2 OK done~",
                "C: a3 LOGOUT~",
                "Right",
            ],
        ] {
            for by_byte in [false, true] {
                play(
                    Dialogue::new(credentials("romeo", "pencil"), false),
                    script,
                    by_byte,
                );
            }
        }
    }

    #[test]
    fn starttls_comes_first_and_what_was_said_before_it_is_forgotten() {
        let ask = || Dialogue::new(credentials("romeo", "pencil"), true);
        let greeting = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=PLAIN] hi~";
        play(
            ask(),
            &[
                greeting,
                "C: a1 STARTTLS~",
                "S: a1 OK go~",
                "TLS",
                "C: a2 CAPABILITY~",
                "S: * CAPABILITY IMAP4rev1 LOGINDISABLED~a2 OK~",
                "Broken(\"it takes no password on this connection: it offers neither AUTH=PLAIN nor LOGIN (see `tls`)\")",
            ],
            true,
        );
        for (said, why) in [
            (
                "S: a1 OK go~* CAPABILITY AUTH=PLAIN~",
                "it has said more before TLS than the answer to STARTTLS",
            ),
            (
                "S: a1 OK go~x",
                "it has said more before TLS than the answer to STARTTLS",
            ),
            ("S: a1 BAD not here~", "it says \"BAD not here\""),
            ("S: * BYE full~", "it has said BYE: \"full\""),
        ] {
            let broken = format!("Broken({why:?})");
            play(ask(), &[greeting, "C: a1 STARTTLS~", said, &broken], false);
        }
        play(
            ask(),
            &[
                "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi~",
                "Broken(\"it offers no STARTTLS\")",
            ],
            false,
        );
    }

    #[test]
    fn names_and_passwords_cannot_be_commands() {
        for (name, password) in [
            ("romeo", ""),
            ("", "pencil"),
            ("romeo", "a\r\na2 DELETE INBOX"),
            ("romeo", "a\n"),
            ("ro\rmeo", "x"),
            ("romeo\0juliet", "x"),
            ("romeo", "x\0y"),
        ] {
            assert_eq!(
                Credentials::new(name, password),
                None,
                "{name:?} {password:?}"
            );
        }
        let login = |can: &str, name: &str, password: &str, rest: &[&str]| {
            let greeting = format!("S: * OK [CAPABILITY IMAP4rev1 {can}] hi~");
            let script = [&[greeting.as_str()], rest].concat();
            play(
                Dialogue::new(credentials(name, password), false),
                &script,
                false,
            );
        };
        login(
            "X",
            "a\"b\\c",
            "{3}",
            &["C: a1 LOGIN \"a\\\"b\\\\c\" \"{3}\"~"],
        );
        login(
            "X",
            "romeo",
            "pr\u{e4}zise",
            &[
                "C: a1 LOGIN \"romeo\" {8}~",
                "S: + go~",
                "C: pr\u{e4}zise~",
                "S: a1 OK~",
                "C: a2 LOGOUT~",
                "Right",
            ],
        );
        login(
            "X",
            "r\u{f6}meo",
            "\u{7}bell",
            &[
                "C: a1 LOGIN {6}~",
                "S: + ~",
                "C: r\u{f6}meo {5}~",
                "S: + ~",
                "C: \u{7}bell~",
            ],
        );
        login(
            "LITERAL+",
            "r\u{f6}meo",
            "p\u{e4}",
            &["C: a1 LOGIN {6+}~r\u{f6}meo {3+}~p\u{e4}~"],
        );
        login(
            "LITERAL-",
            "r\u{f6}meo",
            "p\u{e4}",
            &["C: a1 LOGIN {6+}~r\u{f6}meo {3+}~p\u{e4}~"],
        );
        // A literal that is not wanted.
        login(
            "X",
            "romeo",
            "p\u{e4}",
            &[
                "C: a1 LOGIN \"romeo\" {3}~",
                "S: a1 BAD no literals~",
                "NotNow(\"it has not understood how it was asked (BAD)\")",
            ],
        );
        login(
            "X",
            "romeo",
            "p\u{e4}",
            &[
                "C: a1 LOGIN \"romeo\" {3}~",
                "S: a1 OK you are in~",
                "Broken(\"it has let somebody in before it was told the password\")",
            ],
        );
    }

    #[test]
    fn what_is_no_answer_is_never_a_wrong_password() {
        let not_now = |code: &str| format!("NotNow(\"it has said no with the code {code}\")");
        let broken = |why: &str| format!("Broken({why:?})");
        for (said, verdict) in [
            ("a1 NO~", "Wrong".to_owned()),
            ("a1 NO [AUTHENTICATIONFAILED] no~", "Wrong".into()),
            ("a1 NO [authorizationfailed] no~", "Wrong".into()),
            ("a1 NO [ALERT] no [UNAVAILABLE]~", "Wrong".into()),
            ("a1 NO [EXPIRED] no~", "Disabled".into()),
            ("a1 NO [CONTACTADMIN] no~", "Disabled".into()),
            ("a1 NO [UNAVAILABLE] later~", not_now("UNAVAILABLE")),
            ("a1 NO [INUSE] later~", not_now("INUSE")),
            ("a1 NO [LIMIT 3] later~", not_now("LIMIT")),
            ("a1 NO [SERVERBUG] later~", not_now("SERVERBUG")),
            ("a1 NO [REFERRAL imap://b/] there~", not_now("REFERRAL")),
            ("* BYE pencil~", broken("it has said BYE")),
            (
                "a1 BAD AUTHENTICATE pencil~",
                "NotNow(\"it has not understood how it was asked (BAD)\")".into(),
            ),
            (
                "a1 WHAT pencil~",
                broken("it has answered with what is no IMAP"),
            ),
            (
                "a7 OK pencil~",
                broken("it has answered with what is no IMAP"),
            ),
            ("OK~", broken("it has answered with what is no IMAP")),
            ("+ ~", broken("it asks for more than there is to say")),
        ] {
            let greeting = "S: * OK [CAPABILITY SASL-IR AUTH=PLAIN] hi~";
            let said = format!("S: {said}");
            let asked = "C: a1 AUTHENTICATE PLAIN AHJvbWVvAHBlbmNpbA==~";
            let mut script = vec![greeting, asked, &said];
            if said.contains("NO") && !said.contains("BAD") {
                script.push("C: a2 LOGOUT~");
            }
            script.push(&verdict);
            for by_byte in [false, true] {
                play(
                    Dialogue::new(credentials("romeo", "pencil"), false),
                    &script,
                    by_byte,
                );
            }
        }
    }

    #[test]
    fn what_is_no_imap_server_is_broken_and_bounded() {
        for (said, why) in [
            (
                "220 mail.example ESMTP\r\n",
                "it is no IMAP server: it says \"220 mail.example ESMTP\"".to_owned(),
            ),
            (
                "* NO\u{1b}[2J\r\n",
                "it is no IMAP server: it says \"NO\\u{1b}[2J\"".into(),
            ),
            (
                "* PREAUTH hello\r\n",
                "it lets everybody in without a password (PREAUTH)".into(),
            ),
            ("* BYE busy\r\n", "it has said BYE: \"busy\"".into()),
            ("\r\n", "it is no IMAP server: it says \"\"".into()),
        ] {
            let mut dialogue = Dialogue::probe(false);
            dialogue.handle_bytes(said.as_bytes());
            assert_eq!(
                dialogue.poll_output(),
                Some(Output::Done(Verdict::Broken(why)))
            );
        }
        let last = |bytes: &[u8]| {
            let mut dialogue = Dialogue::probe(false);
            dialogue.handle_bytes(b"* OK hi\r\n");
            assert!(matches!(dialogue.poll_output(), Some(Output::Send(_))));
            dialogue.handle_bytes(bytes);
            dialogue.handle_end();
            assert!(dialogue.unread.len() <= bytes.len());
            match dialogue.poll_output() {
                Some(Output::Done(Verdict::Broken(why))) => why,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            last(&[b'x'; LINE_BYTES_MAX + 1]),
            "a line of it is too long"
        );
        let long = [vec![b'x'; LINE_BYTES_MAX + 1], b"\r\n".to_vec()].concat();
        assert_eq!(last(&long), "a line of it is too long");
        assert_eq!(
            last("* X\r\n".repeat(LINES_MAX).as_bytes()),
            "it talks without end"
        );
        assert_eq!(
            last(b"a1 OK\r\n"),
            "it does not say what it can do (CAPABILITY)"
        );
        assert_eq!(last(b""), "it has closed the connection");
        let text = last(format!("zz {}\r\n", "y".repeat(4_000)).as_bytes());
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn a_probe_asks_for_nobody() {
        play(
            Dialogue::probe(false),
            &[
                "S: * OK [CAPABILITY AUTH=PLAIN] hi~",
                "C: a1 LOGOUT~",
                "Ready",
            ],
            false,
        );
        let shown = format!("{:?}", Dialogue::new(credentials("romeo", "pencil"), false));
        assert!(!shown.contains("pencil"), "{shown}");
    }
}
