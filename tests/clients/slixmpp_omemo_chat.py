"""OMEMO (XEP-0384) between two people, one of them with two devices: keys by PEP nodes, messages that only devices can read.

Arguments: host port jid password partner partner's-password ca-file
Prints what each device has read; exits 0 when all of it is what was said, and the server has seen none of it.
"""

import asyncio
import sys

import slixmpp
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
            decrypted, _device = await omemo.decrypt_message(message)
            self.read.put_nowait(decrypted["body"])

    async def decrypt_copy(self, message):
        await self.decrypt(message["carbon_sent"])

    async def say(self, to, body):
        message = self.make_message(mto=to, mtype="chat", mbody=body)
        message.set_from(self.boundjid)
        encrypted, errors = await self.plugin["xep_0384"].encrypt_message(message, {to})
        print("ENCRYPTED", self.boundjid.resource, encrypted is not None, errors)
        encrypted.send()


async def main():
    host, port, jid, password, partner, partners, ca_file = sys.argv[1:]
    desk = Device(f"{jid}/desk", password, ca_file)
    phone = Device(f"{jid}/phone", password, ca_file)
    other = Device(f"{partner}/desk", partners, ca_file)
    devices = (desk, phone, other)
    for device in devices:
        device.connect(host, int(port))
        await asyncio.wait_for(device.ready, 60)
    to_partner, to_us = slixmpp.JID(partner), slixmpp.JID(jid)
    # A list of devices that is fetched has both, as the server keeps it.
    await other.plugin["xep_0384"].refresh_device_lists({to_us}, force_download=True)
    await desk.plugin["xep_0384"].refresh_device_lists({to_partner, to_us}, force_download=True)
    await desk.say(to_partner, "wherefore art thou")
    first = [await asyncio.wait_for(d.read.get(), 60) for d in (other, phone)]
    print("FIRST", first == ["wherefore art thou"] * 2, first)
    await other.say(to_us, "call me but love")
    second = [await asyncio.wait_for(d.read.get(), 60) for d in (desk, phone)]
    print("SECOND", second == ["call me but love"] * 2, second)
    shown = [body for d in devices for body in d.plain if "thou" in body or "love" in body]
    print("SECRET", not shown, shown)
    for device in devices:
        await device.disconnect()


asyncio.run(main())
