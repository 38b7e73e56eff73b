"""slixmpp logs in and runs ad-hoc commands with its own client (xep_0050, xep_0133).

Arguments: host port jid password ca-file, and a JSON list of steps. A step is one command: its node behind the `#`, what is filled
into its form, and whether its pages are read to the end or given up:
{"command": "add-user", "fields": {"accountjid": "romeo@localhost"}, "cancel": false}.
Prints a line of JSON for each: a list of stages, each with status, actions, notes, and the fields of its form; or the error.
"""

import asyncio
import json
import sys

import slixmpp

ADMIN = "http://jabber.org/protocol/admin#"


class Admin(slixmpp.ClientXMPP):
    def __init__(self, jid, password, steps):
        super().__init__(jid, password)
        self.steps = steps
        self.done = asyncio.get_event_loop().create_future()
        for plugin in ["xep_0004", "xep_0030", "xep_0050", "xep_0133"]:
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("failed_all_auth", lambda _: self.fail("no mechanism worked"))
        self.add_event_handler("connection_failed", lambda e: self.fail(f"connection failed: {e}"))

    def fail(self, why):
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    async def start(self, _event):
        try:
            for step in self.steps:
                print(json.dumps(await self.run(step)), flush=True)
            self.done.set_result(None)
        except Exception as error:  # the test shows it
            self.fail(repr(error))

    async def run(self, step):
        if step["command"] == "list":
            try:
                found = await self.plugin["xep_0133"].get_commands()
            except slixmpp.exceptions.IqError as error:
                return [{"error": error.condition}]
            return [node.removeprefix(ADMIN) for _, node, _ in found["disco_items"]["items"]]
        stages = []
        end = asyncio.get_event_loop().create_future()

        def error(iq, session):
            stages.append({"error": iq["error"]["condition"]})
            self.plugin["xep_0050"].terminate_command(session)
            end.set_result(None)

        def next_stage(iq, session):
            command = iq["command"]
            form = command.get_plugin("form", check=True)
            stages.append({
                "status": command["status"],
                "actions": sorted(command["actions"]),
                "notes": [text for _, text in command["notes"]],
                "fields": {var: field.get_value(convert=False) for var, field in form.get_fields().items()} if form else {},
            })
            if command["status"] != "executing":
                end.set_result(None)
            elif form and form["type"] == "form":
                answer = self.plugin["xep_0004"].make_form(ftype="submit")
                answer.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/admin")
                for var, value in step.get("fields", {}).items():
                    answer.add_field(var=var, value=value)
                session["payload"] = [answer]
                self.plugin["xep_0050"].complete_command(session)
            else:
                session["payload"] = None
                if "next" in command["actions"]:
                    self.plugin["xep_0050"].continue_command(session)
                elif step.get("cancel"):
                    self.plugin["xep_0050"].cancel_command(session)
                else:
                    self.plugin["xep_0050"].complete_command(session)

        session = {"next": next_stage, "error": error}
        method = getattr(self.plugin["xep_0133"], step["command"].replace("-", "_"), None)
        if method:
            method(session=session)
        else:
            # Those that the plugin does not know by these names.
            self.plugin["xep_0050"].start_command(self.boundjid.server, ADMIN + step["command"], session)
        await asyncio.wait_for(end, 60)
        return stages


async def main():
    host, port, jid, password, ca_file, steps = sys.argv[1:]
    client = Admin(jid, password, json.loads(steps))
    client.enable_direct_tls = False
    client.enable_starttls = True
    client.enable_plaintext = False
    client.ca_certs = ca_file
    client.connect(host, int(port))
    await asyncio.wait_for(client.done, 120)
    await client.disconnect()


asyncio.run(main())
