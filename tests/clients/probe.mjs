// Connects as the AI SDK does, which goes on with a handshake if no answer to its probe comes in a second.
//
//   node probe.mjs COMMAND [ARGUMENT...]
import process from "node:process";
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport as StdioTransport } from "@ai-sdk/mcp/mcp-stdio";

const [command, ...args] = process.argv.slice(2);
const client = await createMCPClient({ transport: new StdioTransport({ command, args }) });
const tools = await client.tools();
const answer = await tools.list_prompts.execute({}, { toolCallId: "first", messages: [] });
await client.close();
console.log(JSON.stringify({ server: client.serverInfo.name, tools: Object.keys(tools), answer }));
