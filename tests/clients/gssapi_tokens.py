"""The client's end of a GSSAPI exchange (RFC 4752), by MIT krb5 through Debian's python3-gssapi.

Arguments: service (xmpp@host), authorization identity (may be empty), security layer (1: none)
Prints one message a line in base64, reads the server's the same way. KRB5_CONFIG and KRB5CCNAME say who we are.
"""

import base64
import sys

import gssapi

service, authzid, layer = sys.argv[1:]
context = gssapi.SecurityContext(
    name=gssapi.Name(service, gssapi.NameType.hostbased_service),
    mech=gssapi.MechType.kerberos,
    flags=[gssapi.RequirementFlag.mutual_authentication, gssapi.RequirementFlag.integrity],
    usage="initiate",
)


def say(message):
    print(base64.b64encode(message or b"").decode(), flush=True)


say(context.step())
for line in sys.stdin:
    message = base64.b64decode(line.strip())
    if not context.complete:
        say(context.step(message))
        continue
    offer = context.unwrap(message).message
    assert offer == b"\x01\x00\x00\x00", offer
    choice = bytes([int(layer), 0, 0, 0]) + authzid.encode()
    say(context.wrap(choice, False).message)
