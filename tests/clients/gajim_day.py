"""A day of Gajim: what it has of before it came, another device beside it, a contact, OMEMO, avatars, bookmarks, blocking.

Arguments: host port jid password partner partner's-password ca-file directory
Screenshots and all that Gajim keeps go to the directory. Prints a line for each thing that was shown; exits 0 when all was.
"""

import asyncio
import hashlib
import sys
from pathlib import Path

import slixmpp
from gajim_remote import Gajim, Xvfb
from slixmpp_friend import Friend, line, picture, until

ROOM, GARDEN = "theplay@rooms.localhost", "garden@rooms.localhost"


async def talks(gajim, us, phone, bob):
    """What was said before Gajim came, what either device says and hears, and what was said while it was away."""
    jid, partner = us, bob.boundjid.bare
    said = []
    for body in ("before you came", "long before"):
        # One after the other: what comes in one millisecond has no order for Gajim.
        bob.tell(jid, body)
        said.append(body)
        await until("the phone heard it", lambda: phone.heard == said)
    phone.tell(partner, "answered on the phone")
    said.append("answered on the phone")
    await until("bob heard it", lambda: said[-1] in bob.heard)
    await gajim.start()
    await gajim.sign_up(*sys.argv[1:5])
    await gajim.online()
    await gajim.shows(said)
    line("HISTORY", True, said)

    for who, to, body in ((bob, jid, "to both of your devices"), (phone, partner, "said on the phone"), (gajim, partner, "said in Gajim")):
        said.append(body)
        if who is gajim:
            await gajim.says(body)
        else:
            who.tell(to, body)
        await gajim.shows(said)
        for other in (bob, phone):
            if other is not who:
                await until(f"{other.boundjid} heard {body}", lambda: body in other.heard)
    line("CARBONS", True, phone.heard)

    await gajim.quit()
    for who, to, body in ((bob, jid, "where are you?"), (phone, partner, "away")):
        said.append(body)
        who.tell(to, body)
        await until("it arrived", lambda: said[-1] in (phone if who is bob else bob).heard)
    await gajim.start()
    await gajim.online()
    await gajim.shows(said)
    kept = await phone.history()
    line("CAUGHT-UP", kept == said, kept)
    return said


async def secrets(gajim, us, phone, bob, said):
    """OMEMO: Gajim's is read by both others, theirs by Gajim; the archive has none of it."""
    ready = "omemo = account().get_module('OMEMO').backend; answer = len(omemo.get_devices({!r}, without_self=True)) >= {}"
    await gajim.until("it knows bob's device", ready.format(bob.boundjid.bare, 1))
    await gajim.until("it knows the phone", ready.format(us, 1))
    await gajim.do("contact().settings.set('encryption', 'OMEMO')")
    await gajim.until("it has a key of bob's", "answer = not account().get_module('OMEMO').are_keys_missing(PARTNER)")
    await gajim.says("from Gajim, for you two alone")
    said.append("from Gajim, for you two alone")
    for device in (bob, phone):
        await device.reads(said[-1])
    await bob.say(slixmpp.JID(us), "for your eyes only")
    said.append("for your eyes only")
    await phone.reads(said[-1])
    await gajim.shows(said)
    kept = await phone.history()
    line("SECRET", not set(kept) & set(said[-2:]), kept)
    await gajim.do("contact().settings.set('encryption', '')")


async def pictures(gajim, us, bob, directory):
    """bob's is in Gajim; Gajim's, set in its profile, is seen by bob, by PEP and in the vCard."""
    red = picture(200, 30, 30)
    sha = await bob.shows_picture(red)
    await gajim.until("it has bob's picture", f"answer = contact().avatar_sha == {sha!r} and app.app.avatar_storage.avatar_exists({sha!r})")
    kept = (gajim.home / "cache/gajim/avatars" / sha).read_bytes()
    line("AVATAR-SEEN", kept == red, sha)

    mine = Path(directory, "mine.png")
    mine.write_bytes(picture(30, 120, 30))
    await gajim.do("profile = open_window('ProfileWindow', account='it')")
    await gajim.until("the profile is there", "answer = profile._ui.profile_stack.get_visible_child_name() == 'profile'")
    await gajim.do(
        f"""
from gajim.gtk.avatar_selector import AvatarSelector
profile._ui.edit_button.clicked()
profile._ui.avatar_nick_access.set_active(True)
profile._avatar_selector = AvatarSelector()
profile._ui.avatar_selector_box.add(profile._avatar_selector)
profile._avatar_selector.prepare_crop_area({str(mine)!r})
profile._ui.avatar_update_button.set_sensitive(True)
profile._ui.avatar_update_button.clicked()
profile._ui.save_button.clicked()
"""
    )
    told = (await until("bob is told of Gajim's picture", lambda: bob.shas.get(us)))[0]
    by_pep, by_card = await bob.picture_of(us, told)
    line("AVATAR-SET", hashlib.sha1(by_pep).hexdigest() == told and by_pep[:4] == b"\x89PNG", told)
    line("VCARD", by_card == by_pep, len(by_card))
    await gajim.until("its own picture is that", f"answer = account().get_module('Contacts').get_contact({us!r}).avatar_sha == {told!r}")
    gajim.display.shot(Path(directory, "profile.png"))
    await gajim.do("profile.destroy()")


async def places(gajim, phone):
    """A bookmark of the phone's is in Gajim, and one of Gajim's on the phone."""
    await phone.keeps_bookmark(ROOM, "The play")
    names = "answer = {str(b.jid): b.name for b in account().get_module('Bookmarks').bookmarks}"
    await until("Gajim has the bookmark", lambda: has(gajim, names, {ROOM: "The play"}))
    await gajim.do(f"account().get_module('Bookmarks').add_or_modify(JID.from_string({GARDEN!r}), name='The garden', autojoin=False)")
    both = {ROOM: "The play", GARDEN: "The garden"}
    await until("the phone has Gajim's", lambda: is_so(phone.bookmarks, both))
    line("BOOKMARKS", True, both)


async def has(gajim, statements, value):
    return await gajim.do(statements) == value


async def is_so(ask, value):
    return await ask() == value


async def walls(gajim, us, phone, bob, said):
    """bob is blocked, by Gajim's window: the phone knows, bob is told, and Gajim hears of nothing. Then the phone lets him in again."""
    partner = bob.boundjid.bare
    await gajim.do(
        """
from gi.repository import Gtk
app.window.block_contact("it", PARTNER)
dialog = [w for w in Gtk.Window.list_toplevels() if isinstance(w, Gtk.MessageDialog) and w.get_visible()][-1]
"""
    )
    await gajim.do("[b for b in dialog.get_action_area().get_children() if b.get_label() == '_Block'][0].clicked()")
    await until("the phone knows that bob is blocked", lambda: phone.blocked == {partner})
    await gajim.until("it shows that bob is blocked", "answer = contact().is_blocked")
    bob.tell(us, "not heard")
    await until("bob is told", lambda: bob.errors)
    await phone.plugin["xep_0191"].unblock([partner])
    await gajim.until("it knows that bob may speak again", "answer = not contact().is_blocked")
    await gajim.do("app.window.add_chat('it', JID.from_string(PARTNER), 'contact', select=True)")
    bob.tell(us, "heard again")
    said.append("heard again")
    await gajim.shows(said)
    line("BLOCKED", "not heard" not in phone.heard, bob.errors)


async def main():
    host, port, jid, password, partner, partners, ca_file, directory = sys.argv[1:]
    phone = await Friend.come(host, port, f"{jid}/phone", password, ca_file)
    bob = await Friend.come(host, port, f"{partner}/desk", partners, ca_file)
    await phone.becomes_contact(bob)
    with open(Path(directory, "xvfb.log"), "w") as log:
        display = Xvfb(log)
    gajim = Gajim(directory, display, partner, ca_file)
    try:
        said = await talks(gajim, jid, phone, bob)
        await secrets(gajim, jid, phone, bob, said)
        await pictures(gajim, jid, bob, directory)
        await places(gajim, phone)
        display.shot(Path(directory, "chat.png"))
        await walls(gajim, jid, phone, bob, said)
        await gajim.quit()
    except BaseException:
        display.shot(Path(directory, "failed.png"))
        raise
    finally:
        display.stop()
    for friend in (phone, bob):
        await friend.disconnect()


asyncio.run(main())
