"""A device of somebody who writes and reads with OMEMO (XEP-0384): slixmpp-omemo, whose keys are in memory."""

import asyncio
import sys

from omemo.session_manager import MessageNotForUs
from omemo.storage import Just, Maybe, Nothing, Storage
from slixmpp.plugins import register_plugin
from slixmpp_base import Base
from slixmpp_omemo import XEP_0384, TrustLevel


class Memory(Storage):
    def __init__(self):
        super().__init__()
        self.values = {}

    async def _load(self, key: str) -> Maybe:
        return Just(self.values[key]) if key in self.values else Nothing()

    async def _store(self, key, value):
        self.values[key] = value

    async def _delete(self, key):
        self.values.pop(key, None)


class XEP_0384Impl(XEP_0384):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory = Memory()

    @property
    def storage(self):
        return self.memory

    @property
    def _btbv_enabled(self):
        return True

    async def _prompt_manual_trust(self, manually_trusted, identifier):
        manager = await self.get_session_manager()
        for device in manually_trusted:
            await manager.set_trust(device.bare_jid, device.identity_key, TrustLevel.TRUSTED.value)


register_plugin(XEP_0384Impl)


class Device(Base):
    def __init__(self, jid, password, ca_file):
        super().__init__(jid, password, ca_file)
        self.read = asyncio.Queue()
        self.plain = []
        for plugin in ("xep_0030", "xep_0060", "xep_0115", "xep_0163", "xep_0280", "xep_0334"):
            self.register_plugin(plugin)
        self.register_plugin("xep_0384", module=sys.modules[__name__])
        self.add_event_handler("omemo_initialized", lambda _: self.ready.done() or self.ready.set_result(True))
        self.add_event_handler("message", self.decrypt)
        self.add_event_handler("carbon_sent", self.decrypt_copy)

    async def start(self, _event):
        await self.plugin["xep_0280"].enable()
        await super().start(_event)

    async def decrypt(self, message):
        omemo = self.plugin["xep_0384"]
        if omemo.is_encrypted(message):
            self.plain.append(str(message["body"]))
            try:
                decrypted, _device = await omemo.decrypt_message(message)
            except MessageNotForUs:
                # A copy of what opens a session with one device, and with nobody else.
                return
            # The answer to a session that was opened has no text.
            if decrypted["body"]:
                self.read.put_nowait(decrypted["body"])

    async def decrypt_copy(self, message):
        await self.decrypt(message["carbon_sent"])

    async def say(self, to, body):
        message = self.make_message(mto=to, mtype="chat", mbody=body)
        message.set_from(self.boundjid)
        encrypted, errors = await self.plugin["xep_0384"].encrypt_message(message, {to})
        print("ENCRYPTED", self.boundjid.resource, encrypted is not None, errors)
        encrypted.send()
