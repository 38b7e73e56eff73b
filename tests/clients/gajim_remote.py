"""A Gajim of one account under an Xvfb of its own (`gajim_driven.py`), with everything it keeps in one directory."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

from slixmpp_friend import PATIENCE, dies_with_us, until

START = """
from gajim.common import app
from gajim.gtk.util import open_window
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.protocol import JID
def account():
    return app.get_client("it")
def chat():
    return app.window.get_chat_stack().get_chat_control()
def contact():
    return account().get_module("Contacts").get_contact(PARTNER)
def shown():
    return [row.text for row in chat()._scrolled_view.iter_rows() if row.type == "chat"]
"""
ONLINE = "answer = account().state.is_available and account().get_module('MAM').is_catch_up_finished(str(account().get_own_jid().bare))"


class Xvfb:
    """A display with a number that was free."""

    def __init__(self, log):
        reading, writing = os.pipe()
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=[writing], preexec_fn=dies_with_us())
        os.close(writing)
        with os.fdopen(reading) as said:
            self.number = int(said.readline())

    def shot(self, path):
        subprocess.run(["import", "-display", f":{self.number}", "-window", "root", str(path)], check=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


class Gajim:
    def __init__(self, directory, display, partner, ca_file):
        self.home = Path(directory)
        self.display = display
        self.partner = partner
        self.log = open(self.home / "gajim.log", "a")
        self.places = {
            "HOME": self.home, "XDG_CONFIG_HOME": self.home / "config", "XDG_DATA_HOME": self.home / "data",
            "XDG_CACHE_HOME": self.home / "cache", "XDG_RUNTIME_DIR": self.home / "run",
        }
        # The certificate of the test is its own authority: somebody has looked at it and said that it is right.
        trusted = self.home / "data/gajim/cert_store"
        for place in [*self.places.values(), trusted]:
            place.mkdir(parents=True, exist_ok=True)
        shutil.copy(ca_file, trusted / "test")

    async def start(self):
        here = Path(__file__).parent
        socket = self.home / "socket"
        socket.unlink(missing_ok=True)
        # The one that Gajim needs does not look for a bus, nor for the keys of whoever runs the test.
        env = os.environ | {name: str(place) for name, place in self.places.items()}
        env |= {"DISPLAY": f":{self.display.number}", "GDK_BACKEND": "x11", "NO_AT_BRIDGE": "1", "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
        env |= {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            ["/usr/bin/python3", here / "gajim_driven.py", socket],
            env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=dies_with_us(signal.SIGKILL),
        )
        await until("Gajim listens", socket.exists)
        self.reader, self.writer = await asyncio.open_unix_connection(socket)
        await self.do(f"PARTNER = {self.partner!r}\n" + START)
        await self.until("its window is there", "answer = getattr(app, 'window', None) is not None and app.window.get_visible()")

    async def do(self, statements):
        self.writer.write((json.dumps(statements) + "\n").encode())
        answer = json.loads(await asyncio.wait_for(self.reader.readline(), PATIENCE))
        if "error" in answer:
            raise SystemExit(f"Gajim, asked to do {statements!r}: {answer['error']}")
        return answer["is"]

    async def until(self, what, statements):
        return await until(f"Gajim: {what}", lambda: self.do(statements))

    async def sign_up(self, host, port, jid, password):
        """The account, as its wizard makes it."""
        user, domain = jid.split("@")
        await self.do(
            f"""
for window in app.app.get_windows():
    if window is not app.window:
        window.destroy()
app.settings.set("use_keyring", False)
app.app.create_account("it", {user!r}, {domain!r}, {password!r}, None,
    ("{host}:{port}", ConnectionProtocol.TCP, ConnectionType.START_TLS))
app.app.enable_account("it")
"""
        )

    async def online(self):
        await self.until("it is online and has what it missed", ONLINE)
        # There is nothing on this display that would make the window large.
        await self.do("app.window.resize(1200, 860); app.window.add_chat('it', JID.from_string(PARTNER), 'contact', select=True)")

    async def says(self, body):
        """Written into the entry of the chat, and Enter."""
        await self.do(
            f"""
box = app.window.get_chat_stack().get_message_action_box()
box.msg_textview.get_buffer().set_text({body!r})
app.window.get_action("send-message").activate()
"""
        )

    async def shows(self, bodies):
        """The chat on the screen, and the database of all it ever had."""
        try:
            await self.until(f"it shows {bodies}", f"answer = shown() == {bodies!r}")
        except SystemExit as error:
            raise SystemExit(f"{error}; but {await self.do('answer = shown()')}") from error
        await until("Gajim keeps what it shows", lambda: self.kept() == bodies)

    def kept(self):
        with sqlite3.connect(f"file:{self.home}/data/gajim/logs.db?mode=ro", uri=True) as database:
            rows = database.execute("SELECT message FROM logs WHERE message IS NOT NULL ORDER BY time, log_line_id")
            return [row[0] for row in rows]

    async def quit(self):
        """As by its menu, with nothing left to be asked."""
        await self.do("from gi.repository import GLib; GLib.idle_add(lambda: app.app.start_shutdown() and False)")
        await until("Gajim has quit", lambda: self.process.poll() is not None)
        self.writer.close()
