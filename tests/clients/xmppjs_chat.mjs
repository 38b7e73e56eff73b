// @xmpp/client logs in, greets its partner, waits for one answer, and logs out.
//
// Arguments: host port starttls|direct jid password partner ca-file
// (the CA file is used through NODE_EXTRA_CA_CERTS, which must be set before node starts).
import { client, xml } from "@xmpp/client";

const [host, port, mode, jid, password, partner] = process.argv.slice(2);
const [username, domain] = jid.split("@");
const scheme = mode === "direct" ? "xmpps" : "xmpp";

const xmpp = client({ service: `${scheme}://${host}:${port}`, domain, username, password });
xmpp.reconnect.stop();

function fail(error) {
  console.error(error);
  process.exit(1);
}

const deadline = setTimeout(() => fail(new Error("no answer")), 30000);
xmpp.on("error", fail);
xmpp.on("online", async (address) => {
  console.log("ONLINE", address.toString());
  await xmpp.send(xml("presence"));
  await xmpp.iqCaller.get(xml("query", "jabber:iq:roster"));
  await xmpp.send(xml("message", { type: "chat", to: partner }, xml("body", {}, `hello from xmpp.js over ${mode}`)));
});
xmpp.on("stanza", async (stanza) => {
  const body = stanza.is("message") && stanza.getChildText("body");
  // An answer of an earlier run that was not acknowledged may come again.
  if (body !== `answer to xmpp.js over ${mode}`) return;
  console.log("RECEIVED", body);
  clearTimeout(deadline);
  await xmpp.stop();
  process.exit(0);
});
await xmpp.start().catch(fail);
