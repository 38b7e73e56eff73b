"""A profanity in a terminal of its own (tmux), with everything it keeps in one directory."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

from slixmpp_friend import until


class Profanity:
    def __init__(self, directory, host, port, jid, password):
        self.host, self.port, self.jid, self.password = host, port, jid, password
        self.home = Path(directory)
        self.socket = self.home / "tmux.sock"
        config = self.home / "config/profanity"
        config.mkdir(parents=True)
        (config / "profrc").write_text("[ui]\nsplash=false\nenc.warn=false\n[logging]\nrotate=false\n")

    def tmux(self, *words):
        env = os.environ | {
            "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"), "XDG_DATA_HOME": str(self.home / "data"),
            "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color",
        }
        return subprocess.run(["tmux", "-S", self.socket, *words], env=env, check=True, capture_output=True, text=True).stdout

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "it")

    async def until(self, *texts):
        """Until all of it is on the screen."""
        try:
            await until(f"profanity shows {texts}", lambda: all(text in self.screen() for text in texts))
        except SystemExit as error:
            raise SystemExit(f"{error}; but\n{self.screen()}") from error

    def types(self, text):
        self.tmux("send-keys", "-t", "it", "-l", "--", text)
        self.tmux("send-keys", "-t", "it", "Enter")

    async def start(self):
        """With a keeper beside it, that ends the terminal when this process is gone."""
        self.tmux("new-session", "-d", "-s", "it", "-x", "160", "-y", "50", "profanity", "-l", "DEBUG")
        pid = self.tmux("display-message", "-p", "-t", "it", "#{pid}").strip()
        self.keeper = subprocess.Popen(["sh", "-c", 'read _; kill "$0"', pid], stdin=subprocess.PIPE, start_new_session=True)
        await self.until("Profanity")

    async def log_in(self):
        self.types(f"/connect {self.jid} server {self.host} port {self.port} tls force")
        await self.until("Enter password")
        self.types(self.password)
        # The certificate of the test signs itself: a person reads it and says yes.
        await self.until("Use '/tls allow'")
        self.types("/tls allow")
        await self.until("logged in successfully")

    async def comes_back(self):
        """Quits, and is started again."""
        await self.quit()
        await self.start()
        await self.log_in()

    async def chat(self, partner):
        self.types(f"/msg {partner}")
        await self.until(f"{partner}")

    def kept(self):
        """What its database has, oldest first."""
        found = list(self.home.glob("data/profanity/database/*/chatlog.db"))
        if not found:
            return []
        with contextlib.closing(sqlite3.connect(f"file:{found[0]}?mode=ro", uri=True)) as database:
            return [row[0] for row in database.execute("SELECT message FROM ChatLogs ORDER BY id")]

    async def keeps(self, bodies):
        try:
            await until("profanity keeps it", lambda: self.kept() == bodies)
        except SystemExit as error:
            raise SystemExit(f"{error}: {bodies}, but {self.kept()}") from error

    async def quit(self):
        self.types("/quit")
        await until("profanity has quit", self.gone)
        self.keeper.kill()
        self.keeper.wait()

    def gone(self):
        return subprocess.run(["tmux", "-S", self.socket, "has-session"], capture_output=True).returncode != 0

    def stop(self):
        """However far it came."""
        if self.keeper.poll() is None:
            self.keeper.communicate()
