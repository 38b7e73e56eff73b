"""Gajim itself, which does what it is told over a Unix socket: what its windows and its own code can do, and nothing else is changed.

Arguments: socket, and Gajim's own. Each line that comes is a JSON string of Python statements, run between two events of Gajim's main
loop; the answer is a line of JSON, `{"is": value of `answer`}` or `{"error": traceback}`. With Debian's Python, to which Gajim belongs.
"""

import json
import sys
import traceback

from gajim import gajim
from gi.repository import Gio, GLib

NAMES = {}


def do(statements):
    NAMES["answer"] = None
    try:
        exec(statements, NAMES)
        return {"is": NAMES["answer"]}
    except Exception:
        return {"error": traceback.format_exc()}


def read(stream, result, connection):
    line, _length = stream.read_line_finish_utf8(result)
    if line is None:
        return
    answer = json.dumps(do(json.loads(line)), default=str) + "\n"
    connection.get_output_stream().write_all(answer.encode(), None)
    stream.read_line_async(GLib.PRIORITY_DEFAULT, None, read, connection)


def comes(_service, connection, _source):
    stream = Gio.DataInputStream.new(connection.get_input_stream())
    stream.read_line_async(GLib.PRIORITY_DEFAULT, None, read, connection)


service = Gio.SocketService()
service.add_address(Gio.UnixSocketAddress.new(sys.argv.pop(1)), Gio.SocketType.STREAM, Gio.SocketProtocol.DEFAULT, None)
service.connect("incoming", comes)
service.start()
# What its main() does, but that it refuses to run as root.
gajim._check_required_deps()
gajim._set_env_vars()
gajim._init_gui("GTK")
gajim._run_app()
