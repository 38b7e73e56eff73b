//! The stream parser over tables of valid and invalid input: every row whole, one byte at a time
//! and in uneven pieces, and against `rxml` where that has an opinion.

mod common;

use common::{HEADER, canonical, oracle, run, run_every_way};
use xmpp::element::{ContentNs, Element};
use xmpp::error::StreamError as E;
use xmpp::stream::{Limits, StreamEvent, StreamNamespaces, StreamParser, StreamVersion};

/// What may stand in a stream after its header, and how many elements it is.
const VALID: &[(&str, usize)] = &[
    ("<presence/>", 1),
    ("<presence  />", 1),
    ("<presence\n\t></presence \r\n>", 1),
    (" \n\t\r<presence/> \n<presence/>\n", 2),
    ("<message to='a@b' id=\"1\"><body>hi</body></message>", 1),
    ("<message to = 'a@b'\tid\n=\n'1'/>", 1),
    ("<message a='\"' b=\"'\" c='>'/>", 1),
    ("<a>&amp;&lt;&gt;&apos;&quot;</a>", 1),
    ("<a b='&amp;&lt;&gt;&apos;&quot;'/>", 1),
    (
        "<a>&#65;&#x41;&#x10FFFF;&#x10fffd;&#9;&#10;&#13;&#xD7FF;&#xE000;&#xFFFD;</a>",
        1,
    ),
    ("<a>x > y ]] > ]>]]</a>", 1),
    ("<a b=']]>'/>", 1),
    ("<a><![CDATA[<not & markup> ]] ]> ]]]]></a>", 1),
    ("<a><![CDATA[]]></a>", 1),
    ("<a>x<![CDATA[]]]]><![CDATA[>]]>y</a>", 1),
    ("<a>]]<![CDATA[x]]>></a>", 1),
    (
        "<a>Привет, мир! 你好 🦀 \u{FEFF}\u{85}\u{7F}\u{2028}</a>",
        1,
    ),
    ("<a b='Привет 🦀'/>", 1),
    ("<a>\u{10FFFF}\u{1FFFE}\u{E000}\u{FFFD}</a>", 1),
    ("<élément été='1'><_x/><x-1.2_·/></élément>", 1),
    ("<a xmlns='urn:x'><b/></a>", 1),
    ("<a xmlns=''><b/></a>", 1),
    ("<p:a xmlns:p='urn:x'><p:b p:c='1' c='2'/></p:a>", 1),
    ("<p:a p:b='1' xmlns:p='urn:x'/>", 1),
    (
        "<a xmlns:p='urn:x'><b xmlns:p='urn:y'><p:c/></b><p:d/></a>",
        1,
    ),
    (
        "<a xmlns:p='urn:x' xmlns:q='urn:y' p:z='1' q:z='2' z='3'/>",
        1,
    ),
    (
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>",
        1,
    ),
    ("<a xml:lang='en' lang='de'/>", 1),
    ("<a xmlns='urn:a&amp;b'/>", 1),
    ("<a xmlns:p='urn:tab\there' p:x=''/>", 1),
    (
        "<a x1='' x2='' x3='' x4='' x5='' x6='' x7='' x8='' x9='' x10='' x11='' x12=''/>",
        1,
    ),
    ("<a b='1\r\n2\t3'>x\r\ny\rz</a>", 1),
    ("<a>&#x0000041;</a>", 1),
    ("<a><b><c><d><e><f><g>deep</g></f></e></d></c></b></a>", 1),
    (
        "<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
        1,
    ),
    ("<a><stream:x stream:y='1'/></a>", 1),
    ("<a xmlnsx='1' xml-x='2'/>", 1),
];

/// What may not stand there. The last word: whether `rxml` must refuse it too.
const INVALID: &[(&[u8], E, bool)] = &[
    // BAD_INPUTS 1: DTD, entities, processing instructions, comments, CDATA, encodings, BOM.
    (b"<!DOCTYPE x>", E::RestrictedXml, true),
    (b"<!ENTITY x 'y'>", E::RestrictedXml, true),
    (b"<a><!DOCTYPE x></a>", E::RestrictedXml, true),
    (b"<!-- comment -->", E::RestrictedXml, true),
    (b"<a><!-- comment --></a>", E::RestrictedXml, true),
    (b"<a><!></a>", E::RestrictedXml, true),
    (b"<?php echo ?>", E::RestrictedXml, true),
    (b"<?xml version='1.0'?>", E::RestrictedXml, true),
    (b"<a><?x?></a>", E::RestrictedXml, true),
    (b"<a>&nbsp;</a>", E::RestrictedXml, true),
    (b"<a>&xxe;</a>", E::RestrictedXml, true),
    (b"<a b='&lol9;'/>", E::RestrictedXml, true),
    (b"<a>&AMP;</a>", E::RestrictedXml, true),
    (b"<a>&averyveryverylongname;</a>", E::RestrictedXml, true),
    (b"<![CDATA[x]]>", E::BadFormat, false),
    (b"<a><![cdata[x]]></a>", E::RestrictedXml, true),
    (b"<a><![CDATA [x]]></a>", E::RestrictedXml, true),
    (b"<a><![IGNORE[x]]></a>", E::RestrictedXml, true),
    (b"<a>]]></a>", E::NotWellFormed, true),
    (b"<a>x]]>y</a>", E::NotWellFormed, true),
    (b"<a>]]]></a>", E::NotWellFormed, true),
    (b"\xEF\xBB\xBF<a/>", E::BadFormat, false),
    (b"\xFE\xFF\x00<", E::UnsupportedEncoding, true),
    // rxml waits for more after these two bytes.
    (b"<a/>\xFF\xFE", E::UnsupportedEncoding, false),
    // 2: UTF-8 and code points.
    (b"<a>\xC0\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xC1\xBF</a>", E::UnsupportedEncoding, true),
    (b"<a>\xE0\x80\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xE0\x9F\xBF</a>", E::UnsupportedEncoding, true),
    (b"<a>\xF0\x80\x80\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xF0\x8F\xBF\xBF</a>", E::UnsupportedEncoding, true),
    (b"<a>\xED\xA0\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xED\xBF\xBF</a>", E::UnsupportedEncoding, true),
    (b"<a>\xF4\x90\x80\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xF5\x80\x80\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xFF</a>", E::UnsupportedEncoding, true),
    (b"<a>\x80</a>", E::UnsupportedEncoding, true),
    (b"<a>\xC3</a>", E::UnsupportedEncoding, true),
    (b"<a>\xE2\x82</a>", E::UnsupportedEncoding, true),
    (b"<a>\xF0\x9F\xA6</a>", E::UnsupportedEncoding, true),
    (b"<a b='\xC3'/>", E::UnsupportedEncoding, true),
    (b"<a\xC3=''/>", E::UnsupportedEncoding, true),
    (b"<\xFFa/>", E::UnsupportedEncoding, true),
    (b"<a><![CDATA[\xC3]]></a>", E::UnsupportedEncoding, true),
    (b"<a>\0</a>", E::NotWellFormed, true),
    (b"<a>\x01</a>", E::NotWellFormed, true),
    (b"<a>\x0B\x0C</a>", E::NotWellFormed, true),
    (b"<a>\x1F</a>", E::NotWellFormed, true),
    (b"<a b='\0'/>", E::NotWellFormed, true),
    (b"<a><![CDATA[\x08]]></a>", E::NotWellFormed, true),
    (b"\0", E::NotWellFormed, true),
    (b"<a>\xEF\xBF\xBE</a>", E::NotWellFormed, true),
    (b"<a>\xEF\xBF\xBF</a>", E::NotWellFormed, true),
    (b"<a b='\xEF\xBF\xBF'/>", E::NotWellFormed, true),
    (b"<a>&#0;</a>", E::NotWellFormed, true),
    (b"<a>&#x1;</a>", E::NotWellFormed, true),
    (b"<a>&#xD800;</a>", E::NotWellFormed, true),
    (b"<a>&#xDFFF;</a>", E::NotWellFormed, true),
    (b"<a>&#xFFFE;</a>", E::NotWellFormed, true),
    (b"<a>&#xFFFF;</a>", E::NotWellFormed, true),
    (b"<a>&#x110000;</a>", E::NotWellFormed, true),
    (b"<a>&#99999999;</a>", E::NotWellFormed, true),
    (b"<a>&#4294967361;</a>", E::NotWellFormed, true),
    (b"<a>&#;</a>", E::NotWellFormed, true),
    (b"<a>&#x;</a>", E::NotWellFormed, true),
    (b"<a>&#X41;</a>", E::NotWellFormed, true),
    (b"<a>&#6a;</a>", E::NotWellFormed, true),
    (b"<a>&;</a>", E::NotWellFormed, true),
    (b"<a>& </a>", E::NotWellFormed, true),
    (b"<a>&amp</a>", E::NotWellFormed, true),
    (b"<a>a&b</a>", E::NotWellFormed, true),
    (b"<a>&1;</a>", E::NotWellFormed, true),
    (b"<a b='&'/>", E::NotWellFormed, true),
    // 3: namespaces.
    (b"<p:a/>", E::NotWellFormed, true),
    (b"<a p:b='1'/>", E::NotWellFormed, true),
    (b"<a><b xmlns:p='urn:x'/><p:c/></a>", E::NotWellFormed, true),
    (b"<a xmlns:p='urn:x'></a><p:b/>", E::NotWellFormed, true),
    (b"<a xmlns:xml='urn:x'/>", E::NotWellFormed, true),
    (b"<a xmlns:xml=''/>", E::NotWellFormed, true),
    (b"<a xmlns:xmlns='urn:x'/>", E::NotWellFormed, true),
    (b"<a xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>", E::NotWellFormed, true),
    (b"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", E::NotWellFormed, true),
    (b"<a xmlns='http://www.w3.org/XML/1998/namespace'/>", E::NotWellFormed, true),
    (b"<a xmlns:p='http://www.w3.org/2000/xmlns/'/>", E::NotWellFormed, false),
    (b"<a xmlns='http://www.w3.org/2000/xmlns/'/>", E::NotWellFormed, false),
    (b"<a xmlns='http://www.w3.org/2000/xmlns&#x2f;'/>", E::NotWellFormed, false),
    (b"<a xmlns:p=''/>", E::NotWellFormed, true),
    (b"<xmlns:a/>", E::NotWellFormed, true),
    (b"<a b='1' b='2'/>", E::NotWellFormed, true),
    (b"<a xmlns='urn:x' xmlns='urn:x'/>", E::NotWellFormed, false),
    (b"<a xmlns:p='urn:x' xmlns:p='urn:y'/>", E::NotWellFormed, false),
    (b"<a xmlns:p='urn:x' xmlns:q='urn:x' p:b='1' q:b='2'/>", E::NotWellFormed, true),
    (b"<a xmlns:p='urn:x&amp;' xmlns:q='urn:x&#38;' p:b='1' q:b='2'/>", E::NotWellFormed, true),
    (b"<a a1='' a2='' a3='' a4='' a5='' a6='' a7='' a8='' a9='' a1=''/>", E::NotWellFormed, true),
    (b"<a xmlns:p='urn:x' xmlns:q='urn:x' p:a='' p:b='' p:c='' p:d='' p:e='' p:f='' p:g='' p:h='' q:d=''/>", E::NotWellFormed, true),
    (b"<a:b:c xmlns:a='urn:x'/>", E::NotWellFormed, true),
    (b"<:a/>", E::NotWellFormed, true),
    (b"<a: xmlns:a='urn:x'/>", E::NotWellFormed, true),
    (b"<a:1 xmlns:a='urn:x'/>", E::NotWellFormed, true),
    (b"<a :b='1'/>", E::NotWellFormed, true),
    (b"<a xmlns:='urn:x'/>", E::NotWellFormed, true),
    (b"<p:message xmlns:p='jabber:client'/>", E::BadNamespacePrefix, false),
    (b"<p:iq xmlns:p='jabber&#58;client'><x/></p:iq>", E::BadNamespacePrefix, false),
    // Tags.
    (b"<>", E::NotWellFormed, true),
    (b"< a/>", E::NotWellFormed, true),
    (b"<1/>", E::NotWellFormed, true),
    (b"<-a/>", E::NotWellFormed, true),
    (b"<a\xC3\x97/>", E::NotWellFormed, true),
    (b"<\xC2\xB7a/>", E::NotWellFormed, true),
    (b"<a b/>", E::NotWellFormed, true),
    (b"<a b=/>", E::NotWellFormed, true),
    (b"<a b=c/>", E::NotWellFormed, true),
    (b"<a b='1'c='2'/>", E::NotWellFormed, true),
    (b"<a 'b'/>", E::NotWellFormed, true),
    (b"<a b='<'/>", E::NotWellFormed, true),
    (b"<a b==''/>", E::NotWellFormed, true),
    (b"<a /b>", E::NotWellFormed, true),
    (b"<a / >", E::NotWellFormed, true),
    (b"<a//>", E::NotWellFormed, true),
    (b"<a<b/>", E::NotWellFormed, true),
    (b"<a></b>", E::NotWellFormed, true),
    (b"<a></aa>", E::NotWellFormed, true),
    (b"<aa></a>", E::NotWellFormed, true),
    (b"<a></A>", E::NotWellFormed, true),
    (b"<a></ a>", E::NotWellFormed, true),
    (b"<a></a b=''>", E::NotWellFormed, true),
    (b"<a></a/>", E::NotWellFormed, true),
    (b"<a><b></a></b>", E::NotWellFormed, true),
    (b"<a><b></a>", E::NotWellFormed, true),
    (b"<p:a xmlns:p='urn:x' xmlns:q='urn:x'></q:a>", E::NotWellFormed, true),
    (b"</a>", E::NotWellFormed, true),
    (b"</stream>", E::NotWellFormed, true),
    (b"</stream:streams>", E::NotWellFormed, true),
    (b"</stream:stream x=''>", E::NotWellFormed, true),
    // Text between elements.
    (b"text", E::BadFormat, false),
    (b"<a/>text", E::BadFormat, false),
    (b"&amp;", E::BadFormat, false),
    (b">", E::BadFormat, false),
];

fn after_header(body: &[u8]) -> Vec<u8> {
    [HEADER.as_bytes(), body].concat()
}

/// Limits that no row of the tables meets.
const WIDE: Limits = Limits {
    depth_max: 64,
    attributes_max: 64,
    namespaces_max: 64,
    element_bytes_max: 100_000,
};

#[test]
fn valid_input_comes_out_in_any_pieces_and_as_the_oracle_reads_it() {
    for (body, elements) in VALID {
        let document = after_header(body.as_bytes());
        let outcome = run_every_way(&document, WIDE);
        assert_eq!(outcome.error, None, "{body}");
        assert_eq!(outcome.elements.len(), *elements, "{body}");
        assert_eq!(outcome.consumed, document.len() as u64, "{body}");
        assert_eq!(outcome.buffered, 0, "{body}");
        let trees: Vec<String> = outcome
            .elements
            .iter()
            .map(|e| canonical(&e.tree()))
            .collect();
        // rxml allows fewer digits in a reference than we do.
        if !body.contains("&#x0000041;") && !body.contains("&#x10FFFF;") {
            assert_eq!(Some(trees), oracle(&document), "{body}");
        }
    }
}

#[test]
fn every_element_is_self_contained() {
    for (body, _) in VALID {
        for element in run(&after_header(body.as_bytes()), WIDE, &[usize::MAX]).elements {
            // The same element under a header that declares the content namespace only.
            let alone = Element::parse(element.raw().clone()).expect("valid");
            assert_eq!(alone.tree(), element.tree(), "{body}");
            let document = [b"<r xmlns='jabber:client'>", &element.raw()[..], b"</r>"].concat();
            assert!(oracle(&document).is_some(), "{body}");
            assert_eq!(element.ns(), element.tree().ns(), "{body}");
            assert_eq!(element.name(), element.tree().name(), "{body}");
            let children: Vec<_> = element.children().map(|c| canonical(&c.tree())).collect();
            let of_tree: Vec<_> = element.tree().children().map(canonical).collect();
            assert_eq!(children, of_tree, "{body}");
            for (child, node) in element.children().zip(element.tree().children()) {
                assert_eq!(
                    (child.name(), child.ns()),
                    (node.name(), node.ns()),
                    "{body}"
                );
                assert_eq!(child.text(), node.text(), "{body}");
            }
            assert_eq!(element.text(), element.tree().text(), "{body}");
        }
    }
}

#[test]
fn invalid_input_gets_its_error_in_any_pieces() {
    for (body, error, oracle_refuses) in INVALID {
        let document = after_header(body);
        let outcome = run_every_way(&document, WIDE);
        assert_eq!(
            outcome.error,
            Some(*error),
            "{}",
            String::from_utf8_lossy(body)
        );
        if *oracle_refuses {
            assert_eq!(oracle(&document), None, "{}", String::from_utf8_lossy(body));
        }
    }
}

/// Whole streams: the header, or what comes instead.
const INVALID_HEADERS: &[(&[u8], E)] = &[
    (b"\xEF\xBB\xBF<?xml version='1.0'?>", E::NotWellFormed),
    (b"\xFF\xFE<\0?\0", E::UnsupportedEncoding),
    (b"\xFE\xFF\0<\0?", E::UnsupportedEncoding),
    (b"GET / HTTP/1.1\r\n", E::NotWellFormed),
    (b"\x16\x03\x01\x02\0", E::NotWellFormed),
    (b"<?xml version='1.0' encoding='UTF-16'?>", E::UnsupportedEncoding),
    (b"<?xml version='1.0' encoding='ISO-8859-1'?>", E::UnsupportedEncoding),
    (b"<?xml version='1.1'?>", E::NotWellFormed),
    (b"<?xml version=1.0?>", E::NotWellFormed),
    (b"<?xml?>", E::RestrictedXml),
    (b"<?xml ?>", E::NotWellFormed),
    (b"<?xml encoding='UTF-8'?>", E::NotWellFormed),
    (b"<?xml version='1.0' standalone='maybe'?>", E::NotWellFormed),
    (b"<?xml version='1.0'encoding='UTF-8'?>", E::NotWellFormed),
    (b"<?xml version='1.0' version='1.0'?>", E::NotWellFormed),
    (b"<?xml-stylesheet href='x'?>", E::RestrictedXml),
    (b"<?xml version='1.0'?><?xml version='1.0'?>", E::RestrictedXml),
    (b"<!DOCTYPE stream>", E::RestrictedXml),
    (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>", E::RestrictedXml),
    (b"<!-- x -->", E::RestrictedXml),
    (b"</stream:stream>", E::NotWellFormed),
    (b"<stream:stream xmlns='jabber:client'>", E::NotWellFormed),
    (b"<stream xmlns='http://etherx.jabber.org/streams'>", E::BadNamespacePrefix),
    (b"<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>", E::BadNamespacePrefix),
    (b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/wrong'>", E::InvalidNamespace),
    (b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>", E::InvalidNamespace),
    (b"<stream:stream xmlns='jabber:klient' xmlns:stream='http://etherx.jabber.org/streams'>", E::InvalidNamespace),
    (b"<stream:flood xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", E::BadFormat),
    (b"<message xmlns='jabber:client'/>", E::InvalidNamespace),
    (b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='one'>", E::UnsupportedVersion),
    (b"<stream:stream to='a' to='b' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", E::NotWellFormed),
    (b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", E::InvalidNamespace),
];

#[test]
fn invalid_headers_get_their_error_in_any_pieces() {
    for (bytes, error) in INVALID_HEADERS {
        let outcome = run_every_way(bytes, WIDE);
        assert_eq!(
            outcome.error,
            Some(*error),
            "{}",
            String::from_utf8_lossy(bytes)
        );
        assert!(outcome.events.is_empty());
    }
}

#[test]
fn a_header_shows_its_attributes() {
    let xml = b" \n<?xml version=\"1.0\" encoding='utf-8' standalone='yes' ?>\n<stream:stream to='ex&amp;ample' \
        from='a@b' id='7' version='1.0' xml:lang='de' xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
        xmlns:stream='http://etherx.jabber.org/streams'>";
    let header = run_every_way(xml, WIDE).header.expect("a header");
    assert_eq!(header.to.as_deref(), Some("ex&ample"));
    assert_eq!(header.from.as_deref(), Some("a@b"));
    assert_eq!(header.id.as_deref(), Some("7"));
    assert_eq!(header.version, Some(StreamVersion { major: 1, minor: 0 }));
    assert_eq!(header.lang.as_deref(), Some("de"));
    assert_eq!(header.content_ns, ContentNs::Server);
    assert!(!header.framed);
    let bytes = header.namespaces.to_bytes();
    assert_eq!(
        StreamNamespaces::from_bytes(&bytes),
        Some(header.namespaces)
    );
    for cut in 0..bytes.len() {
        assert_ne!(
            StreamNamespaces::from_bytes(&bytes[..cut]).map(|n| n.to_bytes()),
            Some(bytes.clone())
        );
    }
    assert_eq!(StreamNamespaces::from_bytes(b"\x02\0\0\0\0\0\0"), None);
}

#[test]
fn prefixes_of_the_header_are_declared_again_where_they_are_used() {
    let xml = b"<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams'>\
        <db:result to='x' from='y'>key</db:result><a db:x='1'><b><stream:c/></b></a><d xmlns:db='urn:x'><db:e/></d><f/>";
    let elements = run_every_way(xml, WIDE).elements;
    let raw: Vec<_> = elements
        .iter()
        .map(|e| std::str::from_utf8(e.raw()).expect("UTF-8"))
        .collect();
    assert_eq!(
        raw,
        [
            "<db:result xmlns:db='jabber:server:dialback' to='x' from='y'>key</db:result>",
            "<a xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' db:x='1'><b><stream:c/></b></a>",
            "<d xmlns:db='urn:x'><db:e/></d>",
            "<f/>",
        ]
    );
    assert!(elements[0].is("result", "jabber:server:dialback"));
    assert_eq!(elements[0].attr("from").as_deref(), Some("y"));
    assert_eq!(elements[0].text(), "key");
    assert_eq!(
        elements[1].children().next().map(|c| c.range().len()),
        Some("<b><stream:c/></b>".len())
    );
    let rewritten = xmpp::stanza::Rewrite::new(&elements[1])
        .set("to", "z")
        .finish();
    let again = Element::parse(rewritten).expect("valid");
    assert_eq!(
        again
            .tree()
            .child("b", "jabber:client")
            .map(|b| b.children().count()),
        Some(1)
    );
}

#[test]
fn the_language_of_the_header_is_that_of_the_elements() {
    let header = HEADER.replace("version='1.0' ", "version='1.0' xml:lang='de' ");
    let outcome = run_every_way(
        format!("{header}<message/><message xml:lang='en'/>").as_bytes(),
        WIDE,
    );
    assert_eq!(outcome.elements[0].lang().as_deref(), Some("de"));
    assert_eq!(outcome.elements[0].attr("xml:lang"), None);
    assert_eq!(outcome.elements[1].lang().as_deref(), Some("en"));
}

#[test]
fn a_stream_ends_and_nothing_follows() {
    for end in ["</stream:stream>", " </stream:stream \n>"] {
        let outcome = run_every_way(&after_header(format!("<a/>{end}").as_bytes()), WIDE);
        assert!(outcome.ended);
        let outcome = run(
            &after_header(format!("<a/>{end}<b/>").as_bytes()),
            WIDE,
            &[usize::MAX],
        );
        assert_eq!((outcome.elements.len(), outcome.error), (1, None));
    }
    let outcome = run_every_way(HEADER.replace("'>", "'/>").as_bytes(), WIDE);
    assert!(outcome.ended && outcome.header.is_some());
}

#[test]
fn consumed_counts_to_the_end_of_each_event() {
    let mut parser = StreamParser::new(WIDE);
    parser.push(bytes::Bytes::from(after_header(b"  <a/> \n<b></b> <c")));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    let header = HEADER.len() as u64;
    assert_eq!(parser.consumed(), header);
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert_eq!(parser.consumed(), header + 6);
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert_eq!(parser.consumed(), header + 15);
    assert_eq!(parser.poll(), Ok(None));
    assert_eq!((parser.consumed(), parser.buffered()), (header + 16, 2));
    parser.push(bytes::Bytes::from_static(b"/>"));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert_eq!((parser.consumed(), parser.buffered()), (header + 20, 0));
}

#[test]
fn a_stream_header_inside_the_stream_is_an_error_at_once() {
    for header in [
        "<stream:stream to='example.com' version='1.0'>",
        "<stream xmlns='http://etherx.jabber.org/streams'>",
        "<stream:stream/>",
    ] {
        let mut parser = StreamParser::new(WIDE);
        parser.push(bytes::Bytes::from(after_header(header.as_bytes())));
        assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
        assert_eq!(parser.poll(), Err(E::UnsupportedStanzaType), "{header}");
    }
    let mut parser = StreamParser::new(WIDE);
    parser.push(bytes::Bytes::from(after_header(
        b"<stream/><stream:features/>",
    )));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
}

#[test]
fn a_stream_restarts_and_resumes() {
    let mut parser = StreamParser::new(WIDE);
    parser.push(bytes::Bytes::from(after_header(b"<auth/>\n")));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    parser.reset();
    parser.push(bytes::Bytes::from(after_header(b"<a>hal")));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    assert_eq!(parser.poll(), Ok(None));
    // Another process goes on from what was consumed.
    let stored = parser.namespaces().to_bytes();
    let mut other = StreamParser::new(WIDE);
    other.resume_after_header(StreamNamespaces::from_bytes(&stored).expect("just written"));
    other.push(bytes::Bytes::from_static(b"<a>half</a>"));
    assert!(matches!(other.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert_eq!(other.consumed(), 11);
}

/// Several messages may be there before the first is looked at: a session may have had to wait.
#[test]
fn websocket_messages_end_where_they_end() {
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
    let run = |pieces: &[&str]| {
        let mut parser = StreamParser::new_framed(WIDE);
        for piece in pieces {
            match *piece {
                "|" => parser.end_message(),
                text => parser.push(bytes::Bytes::copy_from_slice(text.as_bytes())),
            }
        }
        let mut names = Vec::new();
        loop {
            match parser.poll() {
                Ok(None) => return (names, None, parser.buffered()),
                Ok(Some(StreamEvent::Element(element))) => names.push(element.name().to_owned()),
                Ok(Some(StreamEvent::Header(_))) => names.push("open".to_owned()),
                Ok(Some(StreamEvent::End)) => names.push("close".to_owned()),
                Err(_) => return (names, parser.error_detail(), 0),
            }
        }
    };
    let two = Some("two elements in one message");
    let inside = Some("a message ends inside an element");
    let rows: &[(&[&str], &[&str], _, usize)] = &[
        (&["<a/>", "|", "<b/>", "|"], &["a", "b"], None, 0),
        (&["<a/> ", "|", " ", "|", "|", "<b/>"], &["a", "b"], None, 0),
        (&["<a/>", "|", "<b/>", "|", "<c>"], &["a", "b"], None, 3),
        (&["<a/><b/>", "|"], &["a"], two, 0),
        (&["<a/>", "|", "<b/><c/>"], &["a", "b"], two, 0),
        (&["<a>", "|", "</a>", "|"], &[], inside, 0),
        (&["<a/>", "|", "<", "|", "b/>", "|"], &["a"], inside, 0),
        (
            &["<a/>", "|", "<!", "|", "[CDATA[x]]>", "|"],
            &["a"],
            inside,
            0,
        ),
        (
            &[
                "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
                "|",
                "<a/>",
                "|",
            ],
            &["close"],
            None,
            0,
        ),
    ];
    for (pieces, names, detail, left) in rows {
        let all: Vec<&str> = [open, "|"].iter().chain(*pieces).copied().collect();
        let (got, why, buffered) = run(&all);
        assert_eq!(
            (&got[1..], why, buffered),
            (
                &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..],
                *detail,
                *left
            ),
            "{pieces:?}"
        );
    }
}

#[test]
fn websocket_messages_are_one_element_each() {
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
    let mut parser = StreamParser::new_framed(WIDE);
    let send = |parser: &mut StreamParser, message: &str| {
        let mut events = Vec::new();
        for byte in message.as_bytes() {
            parser.push(bytes::Bytes::copy_from_slice(&[*byte]));
            while let Some(event) = parser.poll()? {
                events.push(event);
            }
        }
        parser.end_message();
        while let Some(event) = parser.poll()? {
            events.push(event);
        }
        Ok::<_, E>(events)
    };
    let events = send(&mut parser, open).expect("valid");
    let [StreamEvent::Header(header)] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(header.framed && header.to.as_deref() == Some("example.com"));
    let events = send(
        &mut parser,
        "<message xmlns='jabber:client'><body>x</body></message>",
    )
    .expect("valid");
    let [StreamEvent::Element(message)] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(message.stanza_kind().is_some() && message.content_child("body").is_some());
    assert_eq!(
        canonical(&message.tree()),
        "({jabber:client}message  ({jabber:client}body  \"x\"))"
    );
    // Without its own declaration an element is in no namespace.
    let events = send(&mut parser, "<message/>").expect("valid");
    let [StreamEvent::Element(message)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((message.ns(), message.stanza_kind()), ("", None));
    parser.reset();
    assert!(matches!(
        send(&mut parser, open).as_deref(),
        Ok([StreamEvent::Header(_)])
    ));
    let close = send(
        &mut parser,
        "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
    );
    assert_eq!(close, Ok(vec![StreamEvent::End]));

    let refused = [
        "<a",
        "<a/><b/>",
        "</stream:stream>",
        "<?xml version='1.0'?><a/>",
        "x",
        "<stream:a/>",
    ];
    for message in refused {
        let mut parser = StreamParser::new_framed(WIDE);
        send(&mut parser, open).expect("valid");
        assert!(send(&mut parser, message).is_err(), "{message}");
        assert!(parser.poll().is_err());
    }
    for open in [
        "<open/>",
        "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>",
        "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
    ] {
        assert!(
            send(&mut StreamParser::new_framed(WIDE), open).is_err(),
            "{open}"
        );
    }
}
