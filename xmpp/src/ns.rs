//! Namespace names, each with the document that defines it.

/// The stream itself, RFC 6120 §4.8.1.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Conditions of stream errors, RFC 6120 §4.9.2.
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Conditions of stanza errors, RFC 6120 §8.3.2.
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// Stanzas between client and server, RFC 6120 §4.8.2.
pub const CLIENT: &str = "jabber:client";
/// Stanzas between servers, RFC 6120 §4.8.2.
pub const SERVER: &str = "jabber:server";
/// Stanzas between a component and its server, XEP-0114.
pub const COMPONENT: &str = "jabber:component:accept";
/// `<open/>` and `<close/>` of XMPP over WebSocket, RFC 7395 §3.3.
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// STARTTLS, RFC 6120 §5.
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL, RFC 6120 §6.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// SASL 2, XEP-0388.
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// Bind 2, XEP-0386.
pub const BIND2: &str = "urn:xmpp:bind:0";
/// Keys for other mechanisms with a log-in, XEP-0480.
pub const SASL_UPGRADE: &str = "urn:xmpp:sasl:upgrade:0";
/// What those of SCRAM are made of, XEP-0480 §5.
pub const SCRAM_UPGRADE: &str = "urn:xmpp:scram-upgrade:0";
/// Tokens to log in with, XEP-0484.
pub const FAST: &str = "urn:xmpp:fast:0";
/// SASL channel-binding types, XEP-0440.
pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// Resource binding, RFC 6120 §7.
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// The old session element, RFC 3921 §3.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Stream management, XEP-0198.
pub const SM: &str = "urn:xmpp:sm:3";
/// Roster, RFC 6121 §2.
pub const ROSTER: &str = "jabber:iq:roster";
/// Roster versioning stream feature, RFC 6121 §2.6.
pub const ROSTER_VER: &str = "urn:xmpp:features:rosterver";
/// Subscription pre-approval stream feature, RFC 6121 §3.4.
pub const PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";
/// Bound to the prefix `xml` always.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Bound to the prefix `xmlns` always.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
/// Service discovery, XEP-0030.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Service discovery, XEP-0030.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// What a server says of itself and who runs it, XEP-0157.
pub const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";
/// Services outside XMPP, XEP-0215.
pub const EXTERNAL_SERVICES: &str = "urn:xmpp:extdisco:2";
/// Ad-hoc commands, XEP-0050.
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// Data forms, XEP-0004.
pub const DATA_FORMS: &str = "jabber:x:data";
/// User search, XEP-0055.
pub const SEARCH: &str = "jabber:iq:search";
/// In-band registration, XEP-0077.
pub const REGISTER: &str = "jabber:iq:register";
/// Its stream feature, XEP-0077 §7.
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// vCards, XEP-0054.
pub const VCARD: &str = "vcard-temp";
/// Private XML storage, XEP-0049.
pub const PRIVATE: &str = "jabber:iq:private";
/// Blocking command, XEP-0191.
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// What an error says of a stanza to somebody whom its sender has blocked, XEP-0191 §3.3.
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// Reports of spam and abuse, XEP-0377.
pub const REPORTING: &str = "urn:xmpp:reporting:1";
/// Client state indication, XEP-0352.
pub const CSI: &str = "urn:xmpp:csi:0";
/// Push notifications, XEP-0357.
pub const PUSH: &str = "urn:xmpp:push:0";
/// Last activity, XEP-0012.
pub const LAST: &str = "jabber:iq:last";
/// Software version, XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// Entity capabilities, XEP-0115.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// Entity capabilities, XEP-0390.
pub const CAPS2: &str = "urn:xmpp:caps";
/// Hashes, XEP-0300.
pub const HASHES: &str = "urn:xmpp:hashes:2";
/// Ping, XEP-0199.
pub const PING: &str = "urn:xmpp:ping";
/// Delayed delivery, XEP-0203.
pub const DELAY: &str = "urn:xmpp:delay";
/// Legacy delayed delivery, XEP-0091.
pub const DELAY_LEGACY: &str = "jabber:x:delay";
/// Message carbons, XEP-0280.
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// Message archive, XEP-0313.
pub const MAM: &str = "urn:xmpp:mam:2";
/// Privileged entities, XEP-0356.
pub const PRIVILEGE: &str = "urn:xmpp:privilege:2";
/// Full-text search in a message archive, XEP-0431.
pub const FULLTEXT: &str = "urn:xmpp:fulltext:0";
/// Unique and stable stanza ids, XEP-0359.
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// Anonymous occupant ids, XEP-0421.
pub const OCCUPANT_ID: &str = "urn:xmpp:occupant-id:0";
/// Hats, XEP-0317.
pub const HATS: &str = "urn:xmpp:hats:0";
/// Message processing hints, XEP-0334.
pub const HINTS: &str = "urn:xmpp:hints";
/// Chat states, XEP-0085.
pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// Stanza forwarding, XEP-0297.
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// Message delivery receipts, XEP-0184.
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// Chat markers, XEP-0333.
pub const CHAT_MARKERS: &str = "urn:xmpp:chat-markers:0";
/// Message correction, XEP-0308.
pub const CORRECT: &str = "urn:xmpp:message-correct:0";
/// Message retraction, XEP-0424.
pub const RETRACT: &str = "urn:xmpp:message-retract:1";
/// Message reactions, XEP-0444.
pub const REACTIONS: &str = "urn:xmpp:reactions:0";
/// Explicit message encryption, XEP-0380.
pub const ENCRYPTION: &str = "urn:xmpp:eme:0";
/// Message fastening, XEP-0422, in which older retractions come.
pub const FASTEN: &str = "urn:xmpp:fasten:0";
/// What a room says of a user, XEP-0045 §18.2.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Direct invitations to a room, XEP-0249.
pub const CONFERENCE: &str = "jabber:x:conference";
/// Result set management, XEP-0059.
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// Fields and queries that not every archive has, XEP-0313 §8.
pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
/// Publish and subscribe, XEP-0060.
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// What the owner of a node asks, XEP-0060 §8.
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// What subscribers are told, XEP-0060 §7.
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// Conditions of its errors, XEP-0060.
pub const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// The form with the configuration of a node, XEP-0060 §16.4.4.
pub const PUBSUB_NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// The form with what is told of a node, XEP-0060 §16.4.3.
pub const PUBSUB_META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";
/// The form with preconditions of publishing, XEP-0060 §7.1.5.
pub const PUBSUB_PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// The form that asks an owner whether somebody may subscribe, XEP-0060 §8.6.
pub const PUBSUB_AUTHORIZATION: &str = "http://jabber.org/protocol/pubsub#subscribe_authorization";
