"""What a client of the world has around it: another device of its account, and a contact. Both are slixmpp, and both tell what they saw."""

import asyncio
import ctypes
import hashlib
import signal
import struct
import time
import zlib

import slixmpp
from slixmpp_omemo_base import Device

PATIENCE = 60
BOOKMARKS = "urn:xmpp:bookmarks:1"
METADATA = "urn:xmpp:avatar:metadata"


async def until(what, condition):
    """Asks until the answer is true, and gives it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SystemExit(f"not so within {PATIENCE} s: {what}")
        await asyncio.sleep(0.1)


def line(name, good, *what):
    """What has been shown; what has not ends it."""
    print(name, bool(good), *what, flush=True)
    if not good:
        raise SystemExit(1)


def dies_with_us(number=signal.SIGTERM):
    """For `preexec_fn`: the process gets the signal when this one is gone, however that happens."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(1, number)


def picture(red, green, blue, side=96):
    """A PNG of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Friend(Device):
    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password, ca_file)
        self.heard = []
        self.errors = []
        self.subscribed = set()
        self.shas = {}
        self.blocked = set()
        for plugin in ("xep_0054", "xep_0059", "xep_0084", "xep_0153", "xep_0191", "xep_0203", "xep_0223", "xep_0297", "xep_0313", "xep_0402"):
            self.register_plugin(plugin)
        self.plugin["xep_0163"].add_interest(METADATA)
        self.add_event_handler("message", self.hear)
        self.add_event_handler("message_error", lambda m: self.errors.append(m["error"]["condition"]))
        self.add_event_handler("carbon_sent", lambda m: self.hear(m["carbon_sent"]))
        self.add_event_handler("carbon_received", lambda m: self.hear(m["carbon_received"]))
        self.add_event_handler("presence_available", lambda p: self.subscribed.add(p["from"].bare))
        self.add_event_handler("avatar_metadata_publish", self.pictured)
        self.add_event_handler("blocked", lambda iq: self.blocked.update(str(i["jid"]) for i in iq["block"]["items"]))
        self.add_event_handler("unblocked", lambda iq: self.blocked.difference_update(str(i["jid"]) for i in iq["unblock"]["items"]))

    @classmethod
    async def come(cls, host, port, jid, password, ca_file):
        friend = cls(jid, password, ca_file)
        friend.connect(host, int(port))
        await asyncio.wait_for(friend.ready, PATIENCE)
        # Who has asked for the list is told of changes.
        friend.blocked.update(str(jid) for jid in await friend.plugin["xep_0191"].get_blocked_jids())
        return friend

    def hear(self, message):
        if message["body"] and not self.plugin["xep_0384"].is_encrypted(message):
            self.heard.append(message["body"])

    def pictured(self, message):
        item = message["pubsub_event"]["items"]["item"]
        self.shas[message["from"].bare] = [info["id"] for info in item["avatar_metadata"]["items"]]

    async def becomes_contact(self, other):
        """Both see each other's presence from now on."""
        self.send_presence_subscription(pto=other.boundjid.bare)
        await until("contacts", lambda: other.boundjid.bare in self.subscribed and self.boundjid.bare in other.subscribed)

    def tell(self, to, body):
        self.send_message(mto=to, mbody=body, mtype="chat")

    async def reads(self, body):
        """The next message that OMEMO made readable."""
        got = await asyncio.wait_for(self.read.get(), PATIENCE)
        line(f"OMEMO-{self.boundjid.resource}", got == body, got)

    async def history(self):
        """Every body in the archive, oldest first."""
        bodies = []
        async for result in self.plugin["xep_0313"].iterate(rsm={"max": 50}):
            bodies.append(result["mam_result"]["forwarded"]["stanza"]["body"])
        return [body for body in bodies if body]

    async def shows_picture(self, data):
        sha = hashlib.sha1(data).hexdigest()
        await self.plugin["xep_0084"].publish_avatar(data)
        await self.plugin["xep_0084"].publish_avatar_metadata([{"id": sha, "type": "image/png", "bytes": len(data)}])
        return sha

    async def picture_of(self, jid, sha):
        """By PEP, and what clients of the old kind are given."""
        data = await self.plugin["xep_0084"].retrieve_avatar(slixmpp.JID(jid), sha)
        card = await self.plugin["xep_0054"].get_vcard(jid=slixmpp.JID(jid))
        return data["pubsub"]["items"]["item"]["avatar_data"]["value"], card["vcard_temp"]["PHOTO"]["BINVAL"]

    async def keeps_bookmark(self, room, name):
        conference = slixmpp.plugins.xep_0402.stanza.Conference()
        conference["name"] = name
        conference["autojoin"] = False
        await self.plugin["xep_0223"].store(conference, node=BOOKMARKS, id=room)

    async def bookmarks(self):
        kept = await self.plugin["xep_0223"].retrieve(BOOKMARKS)
        return {item["id"]: item["conference"]["name"] for item in kept["pubsub"]["items"]}
