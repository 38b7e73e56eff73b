"""A day of profanity: another device beside it, a contact, OMEMO, avatars, bookmarks, blocking.

Arguments: host port jid password partner partner's-password ca-file directory
All that profanity keeps, and its screens, go to the directory. Prints a line for each thing that was shown; exits 0 when all was.

Not its history from the archive: this version (0.13) asks the domain alone whether there are archives; XEP-0313 has the account say it,
as this server does, and Prosody. (What is sent while it is there is in the archive in the same order as in its own database.)
"""

import asyncio
import sys
from pathlib import Path

import slixmpp
from profanity_terminal import Profanity
from slixmpp_friend import Friend, line, picture, until

ROOM, GARDEN = "theplay@rooms.localhost", "garden@rooms.localhost"


async def talks(profanity, us, phone, bob):
    said = []
    partner = bob.boundjid.bare
    for who, to, body in ((bob, us, "to both of your devices"), (phone, partner, "said on the phone"), (profanity, partner, "said in profanity")):
        said.append(body)
        if who is profanity:
            profanity.types(body)
        else:
            who.tell(to, body)
        await profanity.until(*said)
        await profanity.keeps(said)
        for other in (bob, phone):
            if other is not who:
                await until(f"{other.boundjid} heard {body}", lambda: body in other.heard)
    kept = await phone.history()
    line("CARBONS", kept == said == profanity.kept(), kept)
    return said


async def secrets(profanity, us, phone, bob, said):
    """OMEMO: profanity's is read by both others, theirs by profanity; the archive has none of it."""
    before = [(device, await keys(device, us)) for device in (bob, phone)]
    profanity.types("/omemo trustmode blind")
    profanity.types("/omemo log on")
    profanity.types("/omemo gen")
    for device, known in before:

        async def has_more():
            return len(await keys(device, us)) > len(known)

        await until(f"{device.boundjid} knows its key", has_more)
    profanity.types("/omemo start")
    await profanity.until("[OMEMO]")
    profanity.types("from profanity, for you two alone")
    said.append("from profanity, for you two alone")
    for device in (bob, phone):
        await device.reads(said[-1])
    await bob.say(slixmpp.JID(us), "for your eyes only")
    said.append("for your eyes only")
    await phone.reads(said[-1])
    await profanity.until(*said)
    await profanity.keeps(said)
    kept = await phone.history()
    line("SECRET", not set(kept) & set(said[-2:]), kept)
    profanity.types("/omemo end")


async def keys(device, jid):
    """Which devices of the account can be written to."""
    omemo = await device.plugin["xep_0384"].get_session_manager()
    await omemo.refresh_device_lists(jid)
    found = await omemo.get_device_information(jid)
    return {d.device_id for d in found if ("eu.siacs.conversations.axolotl", True) in d.active}


async def pictures(profanity, us, bob, directory):
    """bob's is fetched by profanity, and profanity's by bob, by PEP and as a vCard."""
    red = picture(200, 30, 30)
    await bob.shows_picture(red)
    profanity.types(f"/avatar get {bob.boundjid.bare}")
    saved = await until("profanity saves bob's picture", lambda: [p.read_bytes() for p in profanity.home.glob("data/profanity/avatars/*.png")])
    line("AVATAR-SEEN", saved == [red])
    mine = Path(directory, "mine.png")
    mine.write_bytes(picture(30, 120, 30))
    profanity.types(f"/avatar set {mine}")
    told = (await until("bob is told of profanity's picture", lambda: bob.shas.get(us)))[0]
    by_pep, by_card = await bob.picture_of(us, told)
    line("AVATAR-SET", by_pep[:4] == b"\x89PNG", told)
    line("VCARD", by_card == by_pep, len(by_card))


async def places(profanity, phone):
    """profanity keeps bookmarks the old way (XEP-0048 in XEP-0049), the phone the new one: each has the other's."""
    await phone.keeps_bookmark(ROOM, "play")
    await profanity.comes_back()
    profanity.types("/bookmark list")
    await profanity.until(ROOM)
    profanity.types(f"/bookmark add {GARDEN} name garden autojoin off")
    both = {ROOM: "play", GARDEN: "garden"}

    async def so():
        return await phone.bookmarks() == both

    await until("the phone has profanity's", so)
    line("BOOKMARKS", True, both)


async def walls(profanity, us, phone, bob):
    partner = bob.boundjid.bare
    profanity.types(f"/blocked add {partner}")
    await until("the phone knows that bob is blocked", lambda: phone.blocked == {partner})
    bob.tell(us, "not heard")
    await until("bob is told", lambda: bob.errors)
    profanity.types("/win 1")
    profanity.types("/blocked")
    await profanity.until("Blocked users:")
    profanity.types(f"/blocked remove {partner}")
    await until("the phone knows that bob is not", lambda: not phone.blocked)
    bob.tell(us, "heard again")
    await until("the phone hears it", lambda: "heard again" in phone.heard)
    await until("profanity keeps it", lambda: "heard again" in profanity.kept())
    line("BLOCKED", "not heard" not in phone.heard + profanity.kept(), bob.errors)


async def main():
    host, port, jid, password, partner, partners, ca_file, directory = sys.argv[1:]
    phone = await Friend.come(host, port, f"{jid}/phone", password, ca_file)
    bob = await Friend.come(host, port, f"{partner}/desk", partners, ca_file)
    await phone.becomes_contact(bob)
    profanity = Profanity(directory, host, port, jid, password)
    await profanity.start()
    try:
        await profanity.log_in()
        await profanity.chat(partner)
        said = await talks(profanity, jid, phone, bob)
        await secrets(profanity, jid, phone, bob, said)
        Path(directory, "chat.txt").write_text(profanity.screen())
        await pictures(profanity, jid, bob, directory)
        await places(profanity, phone)
        await walls(profanity, jid, phone, bob)
        Path(directory, "console.txt").write_text(profanity.screen())
        await profanity.quit()
    except BaseException:
        print(profanity.screen())
        raise
    finally:
        profanity.stop()
    for friend in (phone, bob):
        await friend.disconnect()


asyncio.run(main())
