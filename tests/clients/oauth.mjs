// Is let in to a server over HTTP by OAuth, as a TypeScript client is, and prints what it saw as one JSON object.
//
//   TOKEN=... node oauth.mjs FLAVOUR ADDRESS
//
// FLAVOUR is "sdk" for the 1.x SDK; or, for the 2.x client, "legacy" or "auto". It asks for a secret of its own,
// and does without one where the server says so.
import process from "node:process";

const [flavour, address] = process.argv.slice(2);
const identity = { name: `oauth-${flavour}`, version: "1.0.0" };
const kept = {};

// What the user does: gives the token on the page, and is sent back to the program.
async function logIn(to) {
  const page = await fetch(to);
  const form = (await page.text()).match(/name=form value="([^"]+)"/)[1];
  const sent = await fetch(page.url, {
    method: "POST",
    redirect: "manual",
    headers: { cookie: page.headers.getSetCookie()[0].split(";")[0] },
    body: new URLSearchParams({ form, token: process.env.TOKEN, answer: "allow" }),
  });
  return new URL(sent.headers.get("location")).searchParams;
}

const authProvider = {
  redirectUrl: "http://127.0.0.1:7777/callback",
  clientMetadata: {
    client_name: identity.name,
    redirect_uris: ["http://127.0.0.1:7777/callback"],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "client_secret_post",
  },
  state: () => "a state",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  discoveryState: () => kept.discovered,
  saveDiscoveryState: (discovered) => (kept.discovered = discovered),
  redirectToAuthorization: async (to) => (kept.back = await logIn(to)),
};

async function parts() {
  if (flavour === "sdk") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    return { client: () => new Client(identity), StreamableHTTPClientTransport };
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const options = { versionNegotiation: { mode: flavour } };
  return { client: () => new Client(identity, options), StreamableHTTPClientTransport };
}

const { client: made, StreamableHTTPClientTransport } = await parts();
const transport = () => new StreamableHTTPClientTransport(new URL(address), { authProvider });
const first = transport();
const refused = await made().connect(first).then(
  () => null,
  (error) => error.constructor.name,
);
// The 2.x client takes all that came back, to compare who sent it.
await first.finishAuth(flavour === "sdk" ? kept.back.get("code") : kept.back);
const client = made();
await client.connect(transport());
await client.callTool({ name: "remember", arguments: { content: "Zoë keeps the café's ledger in Kraków 📒" } });
const recalled = await client.callTool({ name: "recall", arguments: { query: "Who keeps the ledger?" } });
await client.close();
console.log(JSON.stringify({ refused, client: kept.client, model: recalled.structuredContent }));
