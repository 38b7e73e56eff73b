"""Two slixmpp devices of one account: carbons between them, and the archive read page by page by the second.

Arguments: host port jid password partner ca-file
Prints what the second device has seen as copies, and what its archive has; exits 0 when both are what was said.
"""

import asyncio
import sys

import slixmpp


class Device(slixmpp.ClientXMPP):
    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password)
        self.enable_direct_tls = False
        self.enable_starttls = True
        self.enable_plaintext = False
        self.ca_certs = ca_file
        self.ready = asyncio.get_event_loop().create_future()
        self.copies = asyncio.Queue()
        for plugin in ("xep_0030", "xep_0059", "xep_0280", "xep_0297", "xep_0313", "xep_0359"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("carbon_sent", lambda m: self.copies.put_nowait(m["carbon_sent"]))
        self.add_event_handler("carbon_received", lambda m: self.copies.put_nowait(m["carbon_received"]))

    async def start(self, _event):
        await self.plugin["xep_0280"].enable()
        self.send_presence()
        await self.get_roster()
        self.ready.set_result(True)


async def main():
    host, port, jid, password, partner, ca_file = sys.argv[1:]
    desk = Device(f"{jid}/desk", password, ca_file)
    phone = Device(f"{jid}/phone", password, ca_file)
    for device in (desk, phone):
        device.connect(host, int(port))
        await asyncio.wait_for(device.ready, 60)
    said = [f"message {n}" for n in range(25)]
    for body in said:
        desk.send_message(mto=partner, mbody=body, mtype="chat")
    seen = [(await asyncio.wait_for(phone.copies.get(), 60))["body"] for _ in said]
    print("COPIES", seen == said, seen)
    info = await phone["xep_0030"].get_info(jid=phone.boundjid.bare)
    features = set(info["disco_info"]["features"])
    print("FEATURES", {"urn:xmpp:mam:2", "urn:xmpp:mam:2#extended", "urn:xmpp:sid:0"} <= features)
    kept = []
    async for result in phone["xep_0313"].iterate(rsm={"max": 10}):
        kept.append(result["mam_result"]["forwarded"]["stanza"]["body"])
    print("ARCHIVE", kept == said, kept)
    last = []
    async for result in phone["xep_0313"].iterate(with_jid=slixmpp.JID(partner), reverse=True, rsm={"max": 10}, total=15):
        last.append(result["mam_result"]["forwarded"]["stanza"]["body"])
    print("BACKWARDS", last == said[::-1][:15], last)
    for device in (desk, phone):
        await device.disconnect()


asyncio.run(main())
