// @xmpp/client logs in, with a token if it has one and with a password if it does not, loses its connection, and resumes its stream
// with the token.
//
// Arguments: host port starttls|direct|wss jid password token-file. An empty password: it has only the token. The token file holds
// what the server gave out last. Says ONLINE with its address, RESUMED, or REFUSED with the condition.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { client, xml } from "@xmpp/client";

const [host, port, mode, jid, password, tokenFile] = process.argv.slice(2);
const [username, domain] = jid.split("@");
const service = {
  starttls: `xmpp://${host}:${port}`,
  direct: `xmpps://${host}:${port}`,
  wss: `wss://${host}:${port}/xmpp-websocket`,
}[mode];

const credentials = { username };
if (password) credentials.password = password;
const userAgent = xml("user-agent", { id: "d4565fa7-4d72-4749-b3d3-740edbf87770" }, xml("software", {}, "xmpp.js"));
const xmpp = client({ service, domain, username, credentials, userAgent });
// Its two seconds are too few for a machine that is busy with tests.
xmpp.timeout = 20_000;

xmpp.fast.fetchToken = async () => (existsSync(tokenFile) ? JSON.parse(readFileSync(tokenFile)) : undefined);
xmpp.fast.saveToken = async (token) => writeFileSync(tokenFile, JSON.stringify(token));
xmpp.fast.deleteToken = async () => existsSync(tokenFile) && console.log("FORGOTTEN");
xmpp.reconnect.delay = 100;

let over = false;
function end(code, text) {
  if (over) return;
  over = true;
  console.log(text);
  xmpp.reconnect.stop();
  setTimeout(() => process.exit(code), 500);
  xmpp.stop().finally(() => process.exit(code));
}
setTimeout(() => end(1, "TIMEOUT"), 30000);

xmpp.on("error", (error) => {
  if (error.condition) end(2, `REFUSED ${error.condition}`);
});
xmpp.streamManagement.on("resumed", () => end(0, "RESUMED"));
let times = 0;
xmpp.on("online", async (address) => {
  if (++times > 1) return;
  console.log("ONLINE", address.toString());
  // It says so before it has seen that stream management is on: what is sent now would not be counted.
  while (!xmpp.streamManagement.enabled) await new Promise((resolve) => setTimeout(resolve, 10));
  await xmpp.send(xml("presence"));
  await xmpp.iqCaller.get(xml("query", "jabber:iq:roster"));
  // The line is cut: no end of the stream, no goodbye.
  const socket = xmpp.socket.socket ?? xmpp.socket;
  socket.destroy ? socket.destroy() : socket.close();
});
xmpp.start().catch((error) => end(2, `REFUSED ${error.condition ?? error}`));
