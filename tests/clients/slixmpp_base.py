"""What the slixmpp clients of several tests have in common."""

import asyncio

import slixmpp


class Base(slixmpp.ClientXMPP):
    """Connects by STARTTLS, believing only this CA; approves who asks, and asks back."""

    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password)
        self.enable_direct_tls = False
        self.enable_starttls = True
        self.enable_plaintext = False
        self.ca_certs = ca_file
        self.ready = asyncio.get_event_loop().create_future()
        self.auto_authorize = True
        self.auto_subscribe = True
        self.add_event_handler("session_start", self.start)

    async def start(self, _event):
        self.send_presence()
        await self.get_roster()
