"""A privileged component (XEP-0356) of slixmpp's: says what it hears, and does what it is told to in the name of others.

Arguments: host port domain secret. Prints CONNECTED, then a line for each grant, presence and roster push, and for what comes of an order.
Orders on standard input, a line each: `roster OF`, `add OF JID`, `remove OF JID`, `message FROM TO BODY`, `get NS NAME OF TO` and
`set NS NAME OF TO` (TO may be `-`: none).
"""

import asyncio
import sys
import uuid
from xml.etree import ElementTree as ET

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath


def say(*words):
    print(*words, flush=True)


class Bot(slixmpp.ComponentXMPP):
    def __init__(self, host, port, domain, secret):
        super().__init__(domain, secret, host, port)
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self.register_plugin("xep_0356")
        self.add_event_handler("session_start", lambda _: say("CONNECTED"))
        self.add_event_handler("privileges_advertised", self.granted)
        self.register_handler(Callback("pushes", StanzaPath("iq@type=set/roster"), self.pushed))
        for kind in ("presence_available", "presence_unavailable"):
            self.add_event_handler(kind, self.presence)

    def granted(self, _event):
        for served, granted in self.plugin["xep_0356"].granted_privileges.items():
            iq = [f"{ns}={kind}" for ns, kind in sorted(granted.iq.items()) if kind != "none"]
            say("GRANTED", served, granted.roster, granted.message, granted.presence, *iq)

    def pushed(self, iq):
        for jid, item in iq["roster"]["items"].items():
            say("PUSH", iq["from"], jid, item["subscription"])
        iq.reply(clear=True).send()

    def presence(self, presence):
        kind = presence["type"]
        said = presence["status"] or "-"
        say("PRESENCE", presence["from"], "unavailable" if kind == "unavailable" else "available", said)

    async def order(self, what, *words):
        privileged = self.plugin["xep_0356"]
        if what == "roster":
            result = await privileged.get_roster(words[0])
            say("ROSTER", *sorted(str(jid) for jid in result["roster"]["items"]))
        elif what in ("add", "remove"):
            of, jid = words
            subscription = "remove" if what == "remove" else "none"
            await privileged.set_roster(of, {jid: {"name": "Added", "subscription": subscription, "groups": ["Bots"]}})
            say("DONE")
        elif what == "message":
            message = self.make_message(mto=words[1], mfrom=words[0], mbody=words[2], mtype="chat")
            # As a stanza of a client: what a component wraps is not in its own namespace (XEP-0356 section 5.3).
            for element in message.xml.iter():
                element.tag = element.tag.replace("jabber:component:accept", "jabber:client")
            privileged.send_privileged_message(message)
            say("SENT")
        else:
            ns, name, of, to = words
            inner = slixmpp.Iq(self)
            inner["type"] = what
            inner["from"] = of
            if to != "-":
                inner["to"] = to
            inner.append(ET.Element(f"{{{ns}}}{name}"))
            answer = await privileged.send_privileged_iq(inner, str(uuid.uuid4()))
            payload = list(answer.xml)
            say("ANSWER", answer["from"], answer["type"], *(child.tag for child in payload))


def condition(error):
    tags = [e.tag for e in error.iq.xml.iter()]
    return next(t.split("}")[1] for t in tags if "xmpp-stanzas" in t)


async def main():
    host, port, domain, secret = sys.argv[1:]
    bot = Bot(host, int(port), domain, secret)
    bot.connect()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await bot.order(*line.split())
        except IqError as error:
            nested = getattr(error, "nested_error", lambda: None)()
            say("ERROR" if nested is None else "ANSWERED", condition(error))
        except PermissionError:
            say("NOT ASKED")
        except IqTimeout:
            say("TIMEOUT")
    await bot.disconnect()


asyncio.run(main())
