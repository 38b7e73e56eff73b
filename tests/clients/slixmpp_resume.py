"""Two slixmpp clients: one floods the other, whose connection is cut again and again; it resumes its stream each time.

Arguments: host port sender reader password-suffix second-port ca-file
The reader comes back by the first and the second port in turns. For each line `cut` read from standard input the connection is cut, and
ten messages are sent before and ten behind that. At the end of input prints what the reader got, and how often it began and resumed.
"""

import asyncio
import sys

import slixmpp


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, ca_file, host, ports):
        super().__init__(jid, password)
        self.enable_direct_tls = False
        self.enable_starttls = True
        self.enable_plaintext = False
        self.ca_certs = ca_file
        self.bodies = []
        self.begun = 0
        self.resumed = 0
        self.leaving = False
        self.ready = asyncio.Event()
        self.host, self.ports = host, ports
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0198")
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("session_resumed", self.goes_on)
        self.add_event_handler("message", lambda m: self.bodies.append(m["body"]))
        self.add_event_handler("disconnected", self.lost)

    def dial(self):
        port = self.ports[(self.begun + self.resumed) % len(self.ports)]
        self.connect(self.host, port)

    async def start(self, _event):
        self.begun += 1
        self.send_presence()
        await self.get_roster()
        self.ready.set()

    def goes_on(self, _event):
        self.resumed += 1
        self.ready.set()

    def lost(self, _event):
        if not self.leaving:
            self.dial()


async def main():
    host, port, sender, reader, suffix, second, ca_file = sys.argv[1:]
    ports = [int(port), int(second)]
    password = lambda jid: jid.split("@")[0] + suffix
    left = Client(sender, password(sender), ca_file, host, ports[:1])
    right = Client(reader, password(reader), ca_file, host, ports)
    for client in (left, right):
        client.dial()
        await asyncio.wait_for(client.ready.wait(), 60)
    print("READY", flush=True)
    loop = asyncio.get_running_loop()
    said = []

    def say(count):
        for _ in range(count):
            said.append(str(len(said)))
            left.send_message(mto=reader, mbody=said[-1], mtype="chat")

    while (await loop.run_in_executor(None, sys.stdin.readline)).strip() == "cut":
        say(10)
        right.ready.clear()
        right.abort()
        say(10)
        await asyncio.wait_for(right.ready.wait(), 60)
        print("BACK", right.resumed, flush=True)
    for _ in range(600):
        if len(right.bodies) >= len(said):
            break
        await asyncio.sleep(0.1)
    print("GOT", right.bodies == said, "BEGUN", right.begun, "RESUMED", right.resumed, right.bodies, flush=True)
    for client in (left, right):
        client.leaving = True
        await client.disconnect()


asyncio.run(main())
