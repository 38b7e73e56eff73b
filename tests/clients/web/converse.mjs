// Converse.js in headless Chromium: two browsers of alice and one of bob. They log in, become contacts, chat with carbons and history in step,
// go on while the server is killed, block, read what is encrypted for both, share a bookmark, and see each other's pictures.
//
// Arguments: wss-address alice-password bob-password directory-for-screenshots. Says KILL when the server is to be killed and started
// again, and waits for a file `restarted` in that directory; says PICTURE when another client of bob's is to show one, and the hash of the one
// that alice shows; says DONE when everything was as it should be.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import puppeteer from "puppeteer-core";

const [ws, alicePassword, bobPassword, shots] = process.argv.slice(2);
const here = path.dirname(new URL(import.meta.url).pathname);
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm" };
const PATIENCE = 30000;

const files = http.createServer(async (request, response) => {
  let name = path.normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  // Looked for beside the page.
  if (name.endsWith(".wasm")) name = `/node_modules/converse.js/dist/${path.basename(name)}`;
  try {
    const bytes = await readFile(path.join(here, name));
    response.writeHead(200, { "content-type": types[path.extname(name)] ?? "application/octet-stream" });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => files.listen(0, "127.0.0.1", resolve));
// The certificate of the test is nobody's.
const args = ["--no-sandbox", "--ignore-certificate-errors", "--disable-gpu"];
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args });

async function open(name, jid, password) {
  const page = await (await browser.createBrowserContext()).newPage();
  await page.setViewport({ width: 1200, height: 800 });
  page.on("pageerror", (error) => console.log(name, "error", String(error).slice(0, 300)));
  const ask = new URLSearchParams({ ws, jid, password });
  await page.goto(`http://localhost:${files.address().port}/page.html?${ask}`);
  await page.waitForFunction(() => window._converse?.api?.connection?.connected() && _converse.state?.roster, { timeout: PATIENCE });
  console.log(name, "is online");
  return { name, page };
}

/// Runs in the page until it says yes.
async function until(who, what, condition, ...args) {
  try {
    await who.page.waitForFunction(condition, { timeout: PATIENCE, polling: 200 }, ...args);
  } catch (error) {
    const said = await who.page.evaluate(() => ({
      chats: _converse.state.chatboxes.models.map((c) => [c.id, c.messages?.map((m) => m.get("body"))]),
      roster: _converse.state.roster.models.map((c) => [c.attributes, c.presence?.attributes]),
    }));
    throw new Error(`${who.name}: not so within ${PATIENCE} ms: ${what}; it has ${JSON.stringify(said)}: ${error}`);
  }
  console.log(who.name, "-", what);
}

const say = (who, to, body) =>
  who.page.evaluate(async (to, body) => (await _converse.api.chats.open(to)).sendMessage({ body }), to, body);
const has = (who, chat, bodies) =>
  until(
    who,
    `has ${bodies.length} messages with ${chat}`,
    (chat, bodies) => {
      const all = _converse.state.chatboxes.get(chat)?.messages?.map((m) => m.get("body")) ?? [];
      return JSON.stringify(all.filter(Boolean)) === JSON.stringify(bodies);
    },
    chat,
    bodies,
  );
const [ALICE, BOB] = ["alice@localhost", "bob@localhost"];
const both = async (alices, bob, bodies) => {
  for (const alice of alices) await has(alice, BOB, bodies);
  await has(bob, ALICE, bodies);
};

try {
  const first = await open("alice's first browser", ALICE, alicePassword);
  const bob = await open("bob's browser", BOB, bobPassword);

  // They become contacts, and see each other.
  await first.page.evaluate((jid) => _converse.api.contacts.add({ jid }), BOB);
  await until(bob, "is asked by alice", (jid) => _converse.state.roster.get(jid)?.get("requesting"), ALICE);
  await bob.page.evaluate(async (jid) => {
    _converse.state.roster.get(jid).authorize();
    await _converse.api.contacts.add({ jid });
  }, ALICE);
  for (const [who, jid] of [[first, BOB], [bob, ALICE]]) {
    await until(who, `sees ${jid} online`, (jid) => _converse.state.roster.get(jid)?.get("subscription") === "both" && _converse.state.roster.get(jid).presence?.get("presence") === "online", jid);
  }

  // Converse.js looks once, when a chat is opened, whether the other can read what is encrypted: they must have said so before.
  for (const [who, jid] of [[first, BOB], [bob, ALICE]]) {
    await until(who, `is told the devices of ${jid}`, (jid) => _converse.state.devicelists.get(jid)?.devices?.length > 0, jid);
  }
  const bodies = ["hello from the browser"];
  await say(first, BOB, bodies[0]);
  await both([first], bob, bodies);
  bodies.push("and hello back");
  await say(bob, ALICE, bodies[1]);
  await both([first], bob, bodies);

  // Another browser of alice has the history, and from then on every message, sent or received.
  const second = await open("alice's second browser", ALICE, alicePassword);
  await second.page.evaluate((jid) => _converse.api.chats.open(jid), BOB);
  await both([first, second], bob, bodies);
  for (const [who, to, body] of [[bob, ALICE, "to both of your browsers"], [first, BOB, "said in the first"], [second, BOB, "said in the second"]]) {
    bodies.push(body);
    await say(who, to, body);
    await both([first, second], bob, bodies);
  }
  await first.page.screenshot({ path: `${shots}/alice-first.png` });
  await bob.page.screenshot({ path: `${shots}/bob.png` });

  // The server is killed: nobody is disconnected, and what is said meanwhile arrives.
  for (const who of [first, second, bob]) {
    await who.page.evaluate(() => { window.lost = 0; _converse.api.listen.on("will-reconnect", () => { window.lost += 1; }); });
  }
  console.log("KILL");
  bodies.push("said while the server was away");
  await say(bob, ALICE, bodies.at(-1));
  while (!existsSync(`${shots}/restarted`)) await new Promise((resolve) => setTimeout(resolve, 100));
  await both([first, second], bob, bodies);
  for (const who of [first, second, bob]) {
    if (await who.page.evaluate(() => window.lost)) throw new Error(`${who.name} was disconnected`);
  }

  // Who is blocked is not heard, in any browser; after that he is.
  await first.page.evaluate((jid) => _converse.api.blocklist.add(jid), BOB);
  await until(second, "knows that bob is blocked", async (jid) => !!(await _converse.api.blocklist.get()).get(jid), BOB);
  await say(bob, ALICE, "not heard");
  await until(bob, "is told that it was not delivered", (jid) => _converse.state.chatboxes.get(jid).messages.models.some((m) => m.get("body") === "not heard" && (m.get("error") || m.get("error_type"))), ALICE);
  await second.page.evaluate((jid) => _converse.api.blocklist.remove(jid), BOB);
  await until(first, "knows that bob is not blocked any more", async (jid) => !(await _converse.api.blocklist.get()).get(jid), BOB);
  bodies.push("heard again");
  await say(bob, ALICE, bodies.at(-1));
  for (const alice of [first, second]) await has(alice, BOB, bodies);

  // Encrypted (OMEMO, whose keys are in PEP): both of alice's browsers can read it, and the server could not.
  for (const [who, jid] of [[first, BOB], [second, BOB], [bob, ALICE]]) {
    await until(who, `knows the keys of ${jid}`, (jid) => _converse.state.chatboxes.get(jid).get("omemo_supported"), jid);
  }
  await until(bob, "knows both devices of alice", (jid) => _converse.state.devicelists.get(jid)?.devices?.length === 2, ALICE);
  await bob.page.evaluate(async (jid) => {
    const chat = await _converse.api.chats.open(jid);
    chat.save({ omemo_active: true });
    await chat.sendMessage({ body: "for your eyes only" });
  }, ALICE);
  for (const alice of [first, second]) {
    await until(alice, "reads what is encrypted", (jid) => _converse.state.chatboxes.get(jid).messages.models.some((m) => m.get("is_encrypted") && m.get("plaintext") === "for your eyes only"), BOB);
  }

  // A bookmark made in one browser is there in one that comes later. (This version asks to be told of bookmarks of the old kind, and
  // reads only those of the new one where the server has both.)
  await first.page.evaluate(() => _converse.api.bookmarks.set({ jid: "garden@conference.localhost", name: "The garden", nick: "al", autojoin: false }));
  const third = await open("alice's third browser", ALICE, alicePassword);
  await until(third, "has the bookmark", async () => (await _converse.api.bookmarks.get("garden@conference.localhost"))?.get("name") === "The garden");
  // Another client of bob's shows a picture as it is done nowadays (XEP-0084). Converse.js knows those of vCards (XEP-0153), and shows it.
  console.log("PICTURE");
  const shown = (jid) => [...document.querySelectorAll("converse-avatar")].some((a) => a.model?.get("jid") === jid && a.querySelector("image, img"));
  for (const alice of [first, second]) {
    await until(alice, "shows bob's picture", (jid) => _converse.state.vcards.get(jid)?.get("image_type") === "image/png" && !!_converse.state.vcards.get(jid).get("image"), BOB);
  }
  await until(second, "has bob's picture on the screen", shown, BOB);
  // And one set in the browser is what the other browsers and the other client see.
  const hash = await first.page.evaluate(async (jid) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 96, height: 96 });
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(30, 120, 30)";
    context.fillRect(0, 0, 96, 96);
    const image = canvas.toDataURL("image/png").split(",")[1];
    await _converse.api.vcard.set(jid, { fn: "Alice", image, image_type: "image/png" });
    return _converse.state.vcards.get(jid).get("image_hash");
  }, ALICE);
  console.log("HASH", hash);
  for (const who of [second, third, bob]) {
    await until(who, "has alice's picture", (jid, hash) => _converse.state.vcards.get(jid)?.get("image_hash") === hash, ALICE, hash);
  }
  await until(bob, "has alice's picture on the screen", shown, ALICE);
  await second.page.screenshot({ path: `${shots}/alice-second.png` });
  await bob.page.screenshot({ path: `${shots}/bob-pictures.png` });
  console.log("DONE");
} catch (error) {
  console.log("FAILED", error);
  process.exitCode = 1;
} finally {
  await browser.close();
  files.close();
}
