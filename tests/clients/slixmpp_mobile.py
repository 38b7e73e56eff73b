"""slixmpp as a client on the move: blocking (XEP-0191), last activity (XEP-0012), client state (XEP-0352), push (XEP-0357).

Arguments: host port jid password ca-file. Prints READY when it is there, then what it hears and what comes of each order, a line each.
Orders on standard input: `block JID`, `unblock JID`, `blocked`, `last JID`, `inactive`, `active`, `push SERVICE NODE`, `nopush SERVICE`.
"""

import asyncio
import sys
from xml.etree import ElementTree as ET

from slixmpp.exceptions import IqError
from slixmpp_base import Base

PUSH = "urn:xmpp:push:0"


def say(*words):
    print(*words, flush=True)


class Mobile(Base):
    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password, ca_file)
        for plugin in ["xep_0012", "xep_0030", "xep_0085", "xep_0191", "xep_0199", "xep_0352"]:
            self.register_plugin(plugin)
        # What comes before READY, to be said after it.
        self.early = []
        self.csi = asyncio.get_event_loop().create_future()
        self.add_event_handler("csi_enabled", lambda _: self.csi.set_result(None))
        self.add_event_handler("blocked", lambda iq: say("BLOCKED", *(item["jid"] for item in iq["block"])))
        self.add_event_handler("unblocked", lambda iq: say("UNBLOCKED", *(item["jid"] for item in iq["unblock"])))
        self.add_event_handler("message", self.heard)
        self.add_event_handler("chatstate", lambda m: say("STATE", m["from"].bare, m["chat_state"]))

    async def start(self, event):
        await super().start(event)
        await self.csi
        say("READY")
        early, self.early = self.early, None
        for message in early:
            self.heard(message)

    def heard(self, message):
        if self.early is not None:
            self.early.append(message)
        elif message["body"]:
            say("MESSAGE", message["from"].bare, message["body"])

    async def push(self, name, **attributes):
        iq = self.make_iq_set()
        iq.append(ET.Element(f"{{{PUSH}}}{name}", attributes))
        await iq.send()

    async def order(self, what, *words):
        if what == "block":
            await self.plugin["xep_0191"].block(words)
        elif what == "unblock":
            await self.plugin["xep_0191"].unblock(words)
        elif what == "blocked":
            return say("BLOCKLIST", *sorted(await self.plugin["xep_0191"].get_blocked_jids()))
        elif what == "last":
            answer = await self.plugin["xep_0012"].get_last_activity(words[0])
            return say("LAST", answer["from"], answer["last_activity"]["seconds"] < 600)
        elif what == "inactive":
            self.plugin["xep_0352"].send_inactive()
        elif what == "active":
            self.plugin["xep_0352"].send_active()
        elif what == "push":
            await self.push("enable", jid=words[0], node=words[1])
        else:
            await self.push("disable", jid=words[0])
        say("DONE")


async def main():
    host, port, jid, password, ca_file = sys.argv[1:]
    client = Mobile(jid, password, ca_file)
    client.connect(host, int(port))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await client.order(*line.split())
        except IqError as error:
            say("ERROR", error.condition)
    await client.disconnect()


asyncio.run(main())
