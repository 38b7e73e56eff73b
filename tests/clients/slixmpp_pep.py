"""slixmpp's own plug-ins for what is published: nodes, avatars and their conversion, bookmarks, private data.

Arguments: host port jid password partner partner's-password ca-file
Prints a line for each; exits 0 when all has been done.
"""

import asyncio
import hashlib
import sys
from xml.etree import ElementTree as ET

import slixmpp
from slixmpp_base import Base

PICTURE = b"\x89PNG a picture"
TUNE = "http://jabber.org/protocol/tune"


class Client(Base):
    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password, ca_file)
        self.tunes = asyncio.Queue()
        self.avatars = asyncio.Queue()
        self.friend = asyncio.Event()
        for plugin in (
            "xep_0030", "xep_0054", "xep_0059", "xep_0060", "xep_0084", "xep_0115", "xep_0118", "xep_0153", "xep_0163",
            "xep_0222", "xep_0223", "xep_0402",
        ):
            self.register_plugin(plugin)
        self.plugin["xep_0163"].add_interest(TUNE)
        self.plugin["xep_0163"].add_interest("urn:xmpp:avatar:metadata")
        self.add_event_handler("user_tune_publish", self.tuned)
        self.add_event_handler("avatar_metadata_publish", lambda m: self.avatars.put_nowait(m))
        self.add_event_handler("presence_available", self.came)

    def tuned(self, message):
        self.tunes.put_nowait(message["pubsub_event"]["items"]["item"]["tune"]["title"])

    def came(self, presence):
        if presence["from"].bare != self.boundjid.bare:
            self.friend.set()

    async def start(self, _event):
        await super().start(_event)
        self.ready.set_result(True)


def line(name, good, *what):
    print(name, bool(good), *what, flush=True)


async def main():
    host, port, jid, password, partner, partners, ca_file = sys.argv[1:]
    us, them = Client(f"{jid}/desk", password, ca_file), Client(f"{partner}/desk", partners, ca_file)
    for client in (us, them):
        client.connect(host, int(port))
        await asyncio.wait_for(client.ready, 60)
    them.send_presence_subscription(pto=jid)
    for client in (us, them):
        await asyncio.wait_for(client.friend.wait(), 60)

    info = await us.plugin["xep_0030"].get_info(jid=us.boundjid.bare)
    identities = {(i[0], i[1]) for i in info["disco_info"]["identities"]}
    line("IDENTITY", ("pubsub", "pep") in identities, identities)

    await us.plugin["xep_0118"].publish_tune(artist="A", title="One")
    title = await asyncio.wait_for(them.tunes.get(), 60)
    line("TUNE", title == "One", title)

    await us.plugin["xep_0084"].publish_avatar(PICTURE)
    await us.plugin["xep_0084"].publish_avatar_metadata(
        [{"id": hashlib.sha1(PICTURE).hexdigest(), "type": "image/png", "bytes": len(PICTURE)}]
    )
    message = await asyncio.wait_for(them.avatars.get(), 60)
    told = message["pubsub_event"]["items"]["item"]["avatar_metadata"]["items"]
    sha = hashlib.sha1(PICTURE).hexdigest()
    line("METADATA", any(i["id"] == sha for i in told), sha)
    data = await them.plugin["xep_0084"].retrieve_avatar(slixmpp.JID(jid), sha)
    got = data["pubsub"]["items"]["item"]["avatar_data"]["value"]
    line("AVATAR", got == PICTURE, got)
    card = await them.plugin["xep_0054"].get_vcard(jid=slixmpp.JID(jid))
    photo = card["vcard_temp"]["PHOTO"]["BINVAL"]
    line("VCARD", photo == PICTURE, photo)

    other = b"another picture"
    while not them.avatars.empty():
        them.avatars.get_nowait()
    await us.plugin["xep_0153"].set_avatar(avatar=other, mtype="image/png")
    message = await asyncio.wait_for(them.avatars.get(), 60)
    told = [i["id"] for i in message["pubsub_event"]["items"]["item"]["avatar_metadata"]["items"]]
    line("BACK", told == [hashlib.sha1(other).hexdigest()], told)

    conference = slixmpp.plugins.xep_0402.stanza.Conference()
    conference["name"] = "The play"
    conference["autojoin"] = True
    await us.plugin["xep_0223"].store(conference, node="urn:xmpp:bookmarks:1", id="theplay@rooms.localhost")
    kept = await us.plugin["xep_0223"].retrieve("urn:xmpp:bookmarks:1")
    names = [i["conference"]["name"] for i in kept["pubsub"]["items"]]
    line("BOOKMARKS", names == ["The play"], names)
    try:
        await them.plugin["xep_0060"].get_items(slixmpp.JID(jid), "urn:xmpp:bookmarks:1")
        line("PRIVATE", False)
    except slixmpp.exceptions.IqError as error:
        line("PRIVATE", error.condition == "not-allowed", error.condition)

    node = "urn:test:node"
    await us.plugin["xep_0060"].create_node(us.boundjid.bare, node)
    for n in range(3):
        await us.plugin["xep_0060"].publish(us.boundjid.bare, node, id=f"item-{n}", payload=ET.Element("{urn:test}a"))
    found = await us.plugin["xep_0060"].get_items(us.boundjid.bare, node)
    ids = [i["id"] for i in found["pubsub"]["items"]]
    line("ITEMS", ids == ["item-2"], ids)
    await us.plugin["xep_0060"].retract(us.boundjid.bare, node, "item-2")
    await us.plugin["xep_0060"].delete_node(us.boundjid.bare, node)
    nodes = await us.plugin["xep_0060"].get_nodes(us.boundjid.bare)
    left = [i[1] for i in nodes["disco_items"]["items"]]
    line("NODES", node not in left and TUNE in left, left)
    for client in (us, them):
        await client.disconnect()


asyncio.run(main())
