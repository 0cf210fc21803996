// Drives a server over stdio as a TypeScript client does, and prints what it saw as one JSON object.
//
//   node drive.mjs FLAVOUR COMMAND [ARGUMENT...]
//
// FLAVOUR is "sdk" for the 1.x SDK; or, for the 2.x client, "legacy", "auto" or a protocol version to pin.
import process from "node:process";

const [flavour, command, ...args] = process.argv.slice(2);
const identity = { name: `drive-${flavour}`, version: "1.0.0" };
const server = { command, args, stderr: "inherit" };

async function connectFirst() {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
  const client = new Client(identity);
  const transport = new StdioClientTransport(server);
  let protocol;
  transport.setProtocolVersion = (version) => (protocol = version);
  await client.connect(transport);
  const { ResourceUpdatedNotificationSchema: updated } = await import("@modelcontextprotocol/sdk/types.js");
  return { client, protocol, updated };
}

async function connectSecond() {
  const { Client } = await import("@modelcontextprotocol/client");
  const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
  const mode = ["legacy", "auto"].includes(flavour) ? flavour : { pin: flavour };
  const client = new Client(identity, { versionNegotiation: { mode } });
  await client.connect(new StdioClientTransport(server));
  return { client, protocol: client.getNegotiatedProtocolVersion(), updated: "notifications/resources/updated" };
}

const { client, protocol, updated } = await (flavour === "sdk" ? connectFirst() : connectSecond());
const call = (name, values) => client.callTool({ name, arguments: values });
const read = (uri) => client.readResource({ uri });

// Resolves once the client is told that a resource changed.
async function subscribed(uri) {
  const told = new Promise((resolve) =>
    client.setNotificationHandler(updated, ({ params }) => params.uri === uri && resolve(params.uri)),
  );
  if (protocol === "2026-07-28") {
    await client.listen({ resourceSubscriptions: [uri] });
  } else {
    await client.subscribeResource({ uri });
  }
  return { told };
}

// So many memories are forgotten that a backup is made before, which tells how far it is.
async function toldOfForgetting() {
  const numbers = Array.from({ length: 150 }, (_, index) => index + 2); // #1 is kept
  await call("remember", { memories: numbers.map((number) => ({ content: `Number ${number}.` })) });
  const told = [];
  const onprogress = ({ progress, message }) => told.push([progress, message]);
  const parameters = { name: "change_memory", arguments: { action: "forget", memory_ids: numbers } };
  const options = { onprogress };
  await (flavour === "sdk" ? client.callTool(parameters, undefined, options) : client.callTool(parameters, options));
  return told;
}

// Once the tools are listed, the client holds every answer against the tool's output schema.
const { tools } = await client.listTools();
const thread = await call("create_thread", { title: "Café ledger" });
const thread_id = thread.structuredContent.id;
const subscription = await subscribed(`soulkeep://threads/${thread_id}`);
const content = "Zoë keeps the café's ledger in Kraków 📒";
const seen = {
  server: client.getServerVersion(),
  instructions: client.getInstructions(),
  protocol,
  tools,
  thread,
  remembered: await call("remember", { content, thread_id }),
  recalled: await call("recall", { query: "Who keeps the ledger?", thread_id }),
  refused: await call("recall", { query: "ledger", limit: 1000 }),
  prompts: await call("list_prompts", {}),
  updated: await subscription.told,
  progress: await toldOfForgetting(),
  resources: (await client.listResources()).resources,
  documents: [await read("soulkeep://SOUL.md"), await read("soulkeep://MEMORY.md")],
};
await client.close();
console.log(JSON.stringify(seen));
