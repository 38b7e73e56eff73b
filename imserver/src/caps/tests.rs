//! Examples of the specifications, and what must not be believed.

use super::*;
use bytes::Bytes;

fn query(inside: &str) -> Node {
    let xml = format!("<query xmlns='http://jabber.org/protocol/disco#info'>{inside}</query>");
    Node::parse(xml.as_bytes(), "").expect("well-formed")
}

fn claim(inside: &str) -> Option<Claim> {
    let xml = format!("<presence>{inside}</presence>");
    Claim::of(&Element::parse(Bytes::from(xml)).expect("well-formed"))
}

fn key(kind: Kind, algorithm: Algorithm, hash: &str) -> Key {
    Key {
        kind,
        algorithm,
        hash: hash.into(),
    }
}

/// XEP-0115 §5.2.
const EXODUS: &str = "<identity category='client' name='Exodus 0.9.1' type='pc'/>
    <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
    <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>";
const EXODUS_SHA_1: &str = "QgayPKawpkPSDYmwT/WM94uAlu0=";

/// XEP-0115 §5.3.
const PSI: &str = "<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>
    <identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
    <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
    <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>
    <x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
    <field var='ip_version'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>
    <field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>
    <field var='software_version'><value>0.11</value></field></x>";
const PSI_SHA_1: &str = "q07IKJEyjvHSyhy//CH0CxmKi8w=";

/// XEP-0390, its first example.
const BOMBUS: &str = "<identity category='client' name='BombusMod' type='mobile'/>
    <feature var='http://jabber.org/protocol/si'/><feature var='http://jabber.org/protocol/bytestreams'/>
    <feature var='http://jabber.org/protocol/chatstates'/><feature var='http://jabber.org/protocol/disco#info'/>
    <feature var='http://jabber.org/protocol/disco#items'/><feature var='urn:xmpp:ping'/><feature var='jabber:iq:time'/>
    <feature var='jabber:iq:privacy'/><feature var='jabber:iq:version'/><feature var='http://jabber.org/protocol/rosterx'/>
    <feature var='urn:xmpp:time'/><feature var='jabber:x:oob'/><feature var='http://jabber.org/protocol/ibb'/>
    <feature var='http://jabber.org/protocol/si/profile/file-transfer'/><feature var='urn:xmpp:receipts'/>
    <feature var='jabber:iq:roster'/><feature var='jabber:iq:last'/>";
const BOMBUS_SHA_256: &str = "kzBZbkqJ3ADrj7v08reD1qcWUwNGHaidNUgD7nHpiw8=";

#[test]
fn examples_of_the_specifications_prove_their_hashes() {
    use Algorithm::*;
    for (info, kind, algorithm, hash) in [
        (EXODUS, Kind::Old, Sha1, EXODUS_SHA_1),
        (PSI, Kind::Old, Sha1, PSI_SHA_1),
        (BOMBUS, Kind::New, Sha256, BOMBUS_SHA_256),
    ] {
        assert!(proves(&query(info), &key(kind, algorithm, hash)), "{hash}");
        let other = query(&format!("{info}<feature var='x'/>"));
        assert!(!proves(&other, &key(kind, algorithm, hash)), "{hash}");
        assert!(!proves(&query(info), &key(kind, Sha512, hash)), "{hash}");
    }
}

/// What has the same input to the hash of XEP-0115 as another answer, or breaks its rules, is nobody else's.
#[test]
fn what_could_be_another_proves_nothing() {
    let hash_of = |inside: &str| {
        let plain = inside.replace("&lt;", "<");
        let input: Vec<u8> = plain.bytes().collect();
        STANDARD.encode(Algorithm::Sha1.hash(&input))
    };
    for (info, input) in [
        // Two features in one.
        ("<feature var='a&lt;b'/>", "a<b<"),
        // A part of an identity in another.
        ("<identity category='client' type='pc/'/>", "client/pc///<"),
        ("<identity category='client/pc' type=''/>", "client/pc///<"),
        ("<feature var='a'/><feature var='a'/>", "a<a<"),
        (
            "<identity category='a' type='b'/><identity category='a' type='b'/>",
            "a/b//<a/b//<",
        ),
        (
            "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE'><value>a</value><value>b</value></field></x>",
            "a<b<",
        ),
    ] {
        let key = key(Kind::Old, Algorithm::Sha1, &hash_of(input));
        assert!(!proves(&query(info), &key), "{info}");
    }
    // The same without what is wrong.
    let good = key(Kind::Old, Algorithm::Sha1, &hash_of("a<b<"));
    assert!(proves(
        &query("<feature var='b'/><feature var='a'/>"),
        &good
    ));
}

#[test]
fn claims_are_read() {
    let caps = |attrs: &str| format!("<c xmlns='http://jabber.org/protocol/caps' {attrs}/>");
    let old = caps(&format!(
        "hash='sha-1' node='http://x' ver='{EXODUS_SHA_1}'"
    ));
    let read = claim(&old).expect("there is one");
    assert_eq!(read.node, Some(format!("http://x#{EXODUS_SHA_1}")));
    assert_eq!(
        read.key,
        Some(key(Kind::Old, Algorithm::Sha1, EXODUS_SHA_1))
    );
    let new = format!(
        "{old}<c xmlns='urn:xmpp:caps'><hash xmlns='urn:xmpp:hashes:2' algo='sha3-256'>x</hash>
         <hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>{BOMBUS_SHA_256}</hash></c>"
    );
    let read = claim(&new).expect("there is one");
    let node = format!("urn:xmpp:caps#sha-256.{BOMBUS_SHA_256}");
    assert_eq!(read.node, Some(node));
    for (inside, node) in [
        // Of before there were hashes; of an algorithm that proves nothing, or is not known here.
        (caps("node='http://x' ver='0.9'"), Some("http://x#0.9")),
        (
            caps("hash='md5' node='http://x' ver='0.9'"),
            Some("http://x#0.9"),
        ),
        (caps("hash='sha-1' ver='0.9'"), None),
    ] {
        let read = claim(&inside).expect("there is one");
        assert_eq!((read.node.as_deref(), read.key), (node, None), "{inside}");
    }
    assert_eq!(claim("<show>away</show>"), None);
}

#[test]
fn keys_are_written_and_read() {
    for key in [
        key(Kind::Old, Algorithm::Sha1, EXODUS_SHA_1),
        key(Kind::New, Algorithm::Sha512, "x"),
    ] {
        assert_eq!(Key::from_text(&key.to_text()), Some(key));
    }
    assert_eq!(Key::from_text("md5.x"), None);
}

#[test]
fn interests_are_bounded() {
    let feature = |n: usize| format!("<feature var='node{n:04}+notify'/>");
    let many: String = (0..2 * INTERESTS_MAX).map(feature).collect();
    let interests = Interests::of(&query(&format!("<feature var='x'/>{many}")));
    assert_eq!(interests.nodes().count(), INTERESTS_MAX);
    assert!(interests.has("node0007") && !interests.has("node0150") && !interests.has("x"));
    let long = "x".repeat(INTERESTS_BYTES_MAX);
    let long = format!("<feature var='a+notify'/><feature var='{long}+notify'/>");
    assert_eq!(
        Interests::of(&query(&long)).nodes().collect::<Vec<_>>(),
        ["a"]
    );
}

#[test]
fn the_table_forgets_what_is_of_no_use() {
    let mut table = Table::default();
    let of = |n: usize| key(Kind::Old, Algorithm::Sha1, &n.to_string());
    for n in 0..2 * KNOWN_MAX {
        table.put(of(n), Interests::default());
        assert!(table.find(&of(0)).is_some(), "it is in use");
        assert!(table.len() <= KNOWN_MAX);
    }
    assert!(table.find(&of(1)).is_none());
}
