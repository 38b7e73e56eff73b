"""A device of somebody shows a picture (XEP-0084) and waits for that of a contact, whose client may know vCards alone (XEP-0398).

Arguments: host port jid password contact ca-file
Says SHOWN and the hash; exits 0 when the contact's picture was what the nodes and the vCard say.
"""

import asyncio
import hashlib
import sys

from slixmpp_friend import Friend, line, picture, until


async def main():
    host, port, jid, password, contact, ca_file = sys.argv[1:]
    friend = await Friend.come(host, port, f"{jid}/camera", password, ca_file)
    print("SHOWN", await friend.shows_picture(picture(200, 30, 30)), flush=True)
    told = (await until("the contact's picture is there", lambda: friend.shas.get(contact)))[0]
    by_pep, by_card = await friend.picture_of(contact, told)
    line("SEEN", hashlib.sha1(by_pep).hexdigest() == told and by_pep[:4] == b"\x89PNG" and by_card == by_pep, told)
    await friend.disconnect()


asyncio.run(main())
