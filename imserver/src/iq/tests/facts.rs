//! What the server knows by itself: its version, the time, external services.

use super::*;

#[test]
fn version_and_time_tell_what_they_should() {
    let version = reply(
        Target::Server,
        "<iq type='get' id='1'><query xmlns='jabber:iq:version'/></iq>",
    );
    let query = version.child("query", ns::VERSION).expect("a query").tree();
    assert_eq!(
        query.child("name", ns::VERSION).expect("a name").text(),
        "Isthmus"
    );
    assert!(query.child("version", ns::VERSION).is_some());
    assert!(query.child("os", ns::VERSION).is_none());
    let time = reply(
        Target::Server,
        "<iq type='get' id='1'><time xmlns='urn:xmpp:time'/></iq>",
    );
    let time = time.child("time", "urn:xmpp:time").expect("a time").tree();
    assert_eq!(
        time.child("utc", "urn:xmpp:time").expect("utc").text(),
        "2006-11-19T17:58:35.999Z"
    );
    assert_eq!(
        time.child("tzo", "urn:xmpp:time").expect("tzo").text(),
        "+00:00"
    );
}

#[test]
fn external_services_come_with_credentials_that_end() {
    let get = |payload: &str| format!("<iq type='get' id='1'>{payload}</iq>");
    let services = |payload: &str| -> Vec<Node> {
        let reply = reply(Target::Server, &get(payload));
        let answer = reply.children().next().expect("a payload").tree();
        answer.children().cloned().collect()
    };
    let all = services("<services xmlns='urn:xmpp:extdisco:2'/>");
    let attrs = |n: &Node, names: &[&str]| -> Vec<String> {
        let values = names.iter().map(|name| n.attr(name).unwrap_or("-"));
        values.map(str::to_owned).collect()
    };
    let place = ["type", "host", "port", "transport"];
    let secret = ["restricted", "expires", "username"];
    assert_eq!(all.len(), 3);
    assert_eq!(
        attrs(&all[0], &place),
        ["stun", "turn.example.org", "3478", "udp"]
    );
    assert_eq!(attrs(&all[0], &secret), ["-", "-", "-"]);
    assert_eq!(
        attrs(&all[2], &secret),
        ["true", "2006-11-19T18:58:35.000Z", "1163962715:juliet"]
    );
    assert_ne!(all[1].attr("password"), all[2].attr("password"));
    let turn = services("<services xmlns='urn:xmpp:extdisco:2' type='turn'/>");
    assert_eq!(turn, all[1..]);
    assert!(services("<services xmlns='urn:xmpp:extdisco:2' type='ftp'/>").is_empty());

    let asked = |attrs: &str| {
        format!("<credentials xmlns='urn:xmpp:extdisco:2'><service {attrs}/></credentials>")
    };
    let turn = "host='turn.example.org' type='turn'";
    assert_eq!(services(&asked(turn)), all[1..]);
    assert_eq!(services(&asked(&format!("{turn} port='3479'"))), all[2..]);
    for (attrs, expected) in [
        ("host='turn.example.org'", StanzaError::BadRequest),
        ("host='other' type='turn'", StanzaError::ItemNotFound),
        // It needs none.
        (
            "host='turn.example.org' type='stun'",
            StanzaError::ItemNotFound,
        ),
    ] {
        let got = condition(Target::Server, &get(&asked(attrs)));
        assert_eq!(got, Some(expected), "{attrs}");
    }
    // Strangers get no credentials; a server without services does not know the question.
    let strange = Asked::new(
        Target::Server,
        &get("<services xmlns='urn:xmpp:extdisco:2'/>"),
    );
    let request = strange.request();
    for (ours, external_services, expected) in [
        (false, &SERVICES[..], StanzaError::Forbidden),
        (true, &[][..], StanzaError::ServiceUnavailable),
    ] {
        let request = Request {
            context: Context {
                ours,
                external_services,
                ..request.context
            },
            ..request
        };
        assert_eq!(dispatch(&request), IqOutcome::Error(expected, None));
    }
}
