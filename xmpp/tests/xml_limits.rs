//! Each limit is met exactly, exceeded by one, and exceeded by far (BAD_INPUTS 3 and 4); work and
//! memory stay in proportion to the input.

mod common;

use bytes::Bytes;
use common::{HEADER, run, run_every_way};
use xmpp::error::StreamError;
use xmpp::stream::{Limits, StreamEvent, StreamParser};

const LIMITS: Limits = Limits {
    element_bytes_max: 1000,
    depth_max: 5,
    attributes_max: 10,
    namespaces_max: 4,
};

fn outcome(body: &str) -> Option<StreamError> {
    run_every_way(format!("{HEADER}{body}").as_bytes(), LIMITS).error
}

const VIOLATION: Option<StreamError> = Some(StreamError::PolicyViolation);

#[test]
fn an_element_may_have_so_many_bytes() {
    let element = |len: usize| format!("<a>{}</a>", "x".repeat(len - 7));
    assert_eq!(outcome(&element(1000)), None);
    assert_eq!(outcome(&element(1001)), VIOLATION);
    assert_eq!(
        outcome(&format!("{}{}", element(1000), element(1000))),
        None
    );
    let attribute = |len: usize| format!("<a b='{}'/>", "x".repeat(len - 9));
    assert_eq!(outcome(&attribute(1000)), None);
    assert_eq!(outcome(&attribute(1001)), VIOLATION);
    // A limit does not cut a character in two and call that wrong UTF-8.
    for offset in 0..4 {
        assert_eq!(
            outcome(&format!(
                "<a>{}{}</a>",
                "x".repeat(offset),
                "🦀".repeat(250)
            )),
            VIOLATION
        );
    }
    // What is wrong beyond the limit is not looked at.
    assert_eq!(outcome(&format!("<a>{}<<<", "x".repeat(2000))), VIOLATION);
}

#[test]
fn elements_may_be_nested_so_deep() {
    let nested = |depth: usize| "<a>".repeat(depth - 1) + "<a/>" + &"</a>".repeat(depth - 1);
    assert_eq!(outcome(&nested(5)), None);
    assert_eq!(outcome(&nested(6)), VIOLATION);
    assert_eq!(outcome(&"<a>".repeat(100)), VIOLATION);
}

#[test]
fn a_tag_may_have_so_many_attributes() {
    let attributes = |n: usize| (0..n).map(|i| format!(" a{i}=''")).collect::<String>();
    assert_eq!(outcome(&format!("<a{}/>", attributes(10))), None);
    assert_eq!(outcome(&format!("<a{}/>", attributes(11))), VIOLATION);
    assert_eq!(
        outcome(&format!("<b><a{}/></b>", attributes(11))),
        VIOLATION
    );
}

#[test]
fn so_many_namespaces_may_be_declared_at_once() {
    let declarations = |n: usize| {
        (0..n)
            .map(|i| format!(" xmlns:p{i}='urn:x'"))
            .collect::<String>()
    };
    assert_eq!(outcome(&format!("<a{}/>", declarations(4))), None);
    assert_eq!(outcome(&format!("<a{}/>", declarations(5))), VIOLATION);
    assert_eq!(
        outcome(&format!("<a{0}><b xmlns='urn:y'/></a>", declarations(4))),
        VIOLATION
    );
    assert_eq!(
        outcome(&format!("<a><b{0}/><b{0}/><b{0}/></a>", declarations(4))),
        None
    );
}

#[test]
fn names_references_and_tags_between_elements_are_bounded() {
    let limits = Limits {
        element_bytes_max: 100_000,
        ..LIMITS
    };
    let error = |body: &str| run(format!("{HEADER}{body}").as_bytes(), limits, &[usize::MAX]).error;
    assert_eq!(error(&format!("<{}/>", "a".repeat(1024))), None);
    assert_eq!(error(&format!("<{}/>", "a".repeat(1025))), VIOLATION);
    assert_eq!(error(&format!("<a {}=''/>", "a".repeat(1025))), VIOLATION);
    assert_eq!(
        error(&format!("<a>&#x{}41;</a>", "0".repeat(100))),
        Some(StreamError::NotWellFormed)
    );
    assert_eq!(
        error(&format!("</stream:stream{}", " ".repeat(1000))),
        VIOLATION
    );
    // Too long, and wrong after that: the same whole and byte by byte.
    assert_eq!(
        outcome(&format!("</stream:stream{}<", " ".repeat(100))),
        VIOLATION
    );
    let declaration = format!("<?xml version='1.0'{}?>", " ".repeat(1000));
    assert_eq!(
        run_every_way(declaration.as_bytes(), limits).error,
        VIOLATION
    );
}

#[test]
fn a_header_has_limits_too() {
    let header = HEADER.replace("to='", &format!("to='{}", "x".repeat(1000)));
    assert_eq!(run_every_way(header.as_bytes(), LIMITS).error, VIOLATION);
    let many: String = (0..10).map(|i| format!("xmlns:p{i}='urn:x' ")).collect();
    let header = HEADER.replace("to='", &format!("{many}to='"));
    assert_eq!(run_every_way(header.as_bytes(), LIMITS).error, VIOLATION);
    // A header that never ends.
    assert_eq!(
        run("<stream:stream ".repeat(100).as_bytes(), LIMITS, &[1]).error,
        Some(StreamError::NotWellFormed)
    );
    assert_eq!(
        run(
            format!("<stream:stream {}", " ".repeat(2000)).as_bytes(),
            LIMITS,
            &[1]
        )
        .error,
        VIOLATION
    );
}

#[test]
fn limits_before_login_are_smaller() {
    let body = format!("<a>{}</a>", "x".repeat(11_000));
    let bytes = format!("{HEADER}{body}");
    assert_eq!(
        run(bytes.as_bytes(), Limits::BEFORE_LOGIN, &[usize::MAX]).error,
        VIOLATION
    );
    assert_eq!(
        run(bytes.as_bytes(), Limits::AFTER_LOGIN, &[usize::MAX]).error,
        None
    );
    let mut parser = StreamParser::new(Limits::BEFORE_LOGIN);
    parser.push(Bytes::from(HEADER));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    parser.set_limits(Limits::AFTER_LOGIN);
    parser.push(Bytes::from(body));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
}

#[test]
fn white_space_between_elements_costs_no_memory() {
    let mut parser = StreamParser::new(LIMITS);
    parser.push(Bytes::from(HEADER));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Header(_)))));
    for _ in 0..1000 {
        parser.push(Bytes::from_static(&[b' '; 1000]));
        assert_eq!(parser.poll(), Ok(None));
        assert_eq!(parser.buffered(), 0);
    }
    assert_eq!(parser.consumed(), HEADER.len() as u64 + 1_000_000);
}

/// Inputs so large that a parser which looks at what it has seen again, or compares all with all, would not come to their end
/// (10^12 steps and more); one that does linear work takes a second or two for all of them.
#[test]
fn work_is_linear_whatever_comes() {
    const DRIP: usize = 1_500_000;
    const WIDE: usize = 59_000;
    let wide = Limits {
        element_bytes_max: u32::MAX >> 3,
        depth_max: 60_000,
        attributes_max: 60_000,
        namespaces_max: 60,
    };
    let parse = |bytes: String, piece: usize| {
        run(format!("{HEADER}{bytes}").as_bytes(), wide, &[piece]);
    };
    // One byte at a time: text, an attribute, a CDATA section, white space in a tag.
    parse(format!("<a>{}</a>", "x".repeat(DRIP)), 1);
    parse(format!("<a b='{}'/>", "x".repeat(DRIP)), 1);
    parse(format!("<a><![CDATA[{}]]></a>", "]".repeat(DRIP)), 1);
    parse(format!("<a{}/>", " ".repeat(DRIP)), 1);
    // Whole: many attributes, deep nesting, many children.
    let attributes = |name: &str| {
        (0..WIDE)
            .map(|i| format!(" {name}{i}=''"))
            .collect::<String>()
    };
    parse(format!("<a{}/>", attributes("a")), usize::MAX);
    parse(format!("<a{}/>", attributes("xml:a")), usize::MAX);
    parse("<a>".repeat(WIDE) + &"</a>".repeat(WIDE), usize::MAX);
    parse(format!("<a>{}</a>", "<b/>".repeat(DRIP)), usize::MAX);
}
