"""slixmpp logs in, greets its partner, waits for one answer, and logs out.

Arguments: host port starttls|direct jid password partner ca-file
Prints the mechanism used and the answer received; exits 0 when both happened.
"""

import asyncio
import ssl
import sys

import slixmpp


class Chat(slixmpp.ClientXMPP):
    def __init__(self, jid, password, partner, mode):
        super().__init__(jid, password)
        self.partner = partner
        self.mode = mode
        self.answer = asyncio.get_event_loop().create_future()
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", self.message)
        self.add_event_handler("failed_all_auth", lambda _: self.fail("no mechanism worked"))
        self.add_event_handler("connection_failed", lambda e: self.fail(f"connection failed: {e}"))

    def fail(self, why):
        if not self.answer.done():
            self.answer.set_exception(RuntimeError(why))

    async def start(self, _event):
        self.send_presence()
        await self.get_roster()
        await self.plugin["xep_0199"].send_ping(self.boundjid.domain)
        self.send_message(mto=self.partner, mbody=f"hello from slixmpp over {self.mode}", mtype="chat")

    def message(self, message):
        # An answer of an earlier run that was not acknowledged may come again.
        if message["body"] == f"answer to slixmpp over {self.mode}" and not self.answer.done():
            self.answer.set_result(message["body"])


async def main():
    host, port, mode, jid, password, partner, ca_file = sys.argv[1:]
    client = Chat(jid, password, partner, mode)
    client.enable_direct_tls = mode == "direct"
    client.enable_starttls = mode == "starttls"
    client.enable_plaintext = False
    client.ca_certs = ca_file
    client.connect(host, int(port))
    answer = await asyncio.wait_for(client.answer, 30)
    mechanism = client.plugin["feature_mechanisms"].mech.name
    print("MECHANISM", mechanism)
    print("RECEIVED", answer)
    await client.disconnect()


asyncio.run(main())
