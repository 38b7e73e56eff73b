"""A slixmpp component: a bot that echoes messages, accepts subscriptions and is there for everybody.

Arguments: host port domain secret. Prints CONNECTED each time it connects, and then what it hears, a line each.
A line `ping ADDRESS` on standard input sends an IQ there, and what comes of it is printed.
"""

import asyncio
import sys

import slixmpp


class Bot(slixmpp.ComponentXMPP):
    def __init__(self, host, port, domain, secret):
        super().__init__(domain, secret, host, port)
        self.auto_authorize = True
        self.auto_subscribe = True
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", self.echo)
        self.add_event_handler("presence_subscribed", lambda p: say("SUBSCRIBED", p["from"].bare))
        self.add_event_handler("got_online", lambda p: say("ONLINE", p["from"].bare))

    async def start(self, _event):
        await self.plugin["xep_0030"].add_identity("automation", "echo", jid="echo@" + self.boundjid.bare, name="Echo")
        say("CONNECTED")

    def echo(self, message):
        if message["type"] in ("chat", "normal"):
            message.reply("echo: " + message["body"]).send()


def say(*words):
    print(*words, flush=True)


async def main():
    host, port, domain, secret = sys.argv[1:]
    bot = Bot(host, int(port), domain, secret)
    bot.connect()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        to = line.split()[1]
        try:
            await bot.plugin["xep_0199"].send_ping(to, ifrom="echo@" + domain, timeout=30)
            say("PONG")
        except slixmpp.exceptions.IqError as error:
            # Not error.iq["error"]: slixmpp looks for that in jabber:client, on a component's stream too.
            # (And then adds one of its own.)
            tags = [e.tag for e in error.iq.xml.iter()]
            say("ERROR", next(t.split("}")[1] for t in tags if "xmpp-stanzas" in t))
    await bot.disconnect()


asyncio.run(main())
