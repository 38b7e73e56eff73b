"""OMEMO (XEP-0384) between two people, one of them with two devices: keys by PEP nodes, messages that only devices can read.

Arguments: host port jid password partner partner's-password ca-file
Prints what each device has read; exits 0 when all of it is what was said, and the server has seen none of it.
"""

import asyncio
import sys

import slixmpp
from slixmpp_omemo_base import Device


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
