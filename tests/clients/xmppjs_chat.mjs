// @xmpp/client logs in, greets its partner, waits for answers, and logs out.
//
// Arguments: host port starttls|direct|wss jid password partner ca-file [answers]
// (the CA file is used through NODE_EXTRA_CA_CERTS, which must be set before node starts). After each answer but the last it
// says that it is still there. A connection that is lost is a failure.
import { client, xml } from "@xmpp/client";

const [host, port, mode, jid, password, partner, , answers = "1"] = process.argv.slice(2);
const [username, domain] = jid.split("@");
const service = {
  starttls: `xmpp://${host}:${port}`,
  direct: `xmpps://${host}:${port}`,
  wss: `wss://${host}:${port}/xmpp-websocket`,
}[mode];

const xmpp = client({ service, domain, username, password });
// Its two seconds are too few for a machine that is busy with tests.
xmpp.timeout = 20_000;
xmpp.reconnect.stop();

function fail(error) {
  console.error(error);
  process.exit(1);
}

const say = (text) => xmpp.send(xml("message", { type: "chat", to: partner }, xml("body", {}, text)));

const deadline = setTimeout(() => fail(new Error("no answer")), 60000);
let left = Number(answers);
xmpp.on("error", fail);
xmpp.on("disconnect", () => left > 0 && fail(new Error("disconnected")));
xmpp.on("online", async (address) => {
  console.log("ONLINE", address.toString());
  await xmpp.send(xml("presence"));
  await xmpp.iqCaller.get(xml("query", "jabber:iq:roster"));
  await say(`hello from xmpp.js over ${mode}`);
});
xmpp.on("stanza", async (stanza) => {
  const body = stanza.is("message") && stanza.getChildText("body");
  // An answer of an earlier run that was not acknowledged may come again.
  if (body !== `answer to xmpp.js over ${mode}`) return;
  console.log("RECEIVED", body);
  left -= 1;
  if (left > 0) return say(`xmpp.js is still there, ${left} to come`);
  clearTimeout(deadline);
  await xmpp.stop();
  process.exit(0);
});
await xmpp.start().catch(fail);
