// A tool host by plain stubs, with @grpc/grpc-js: `node grpc_js.mjs PROTOS LISTEN`; TOOL_HOST_TOKEN is its token.
// The protos are read when it starts, and it says where it listens.
import { createHash, timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [protos, listen] = process.argv.slice(2);
const definition = loadSync(["parley/v1/tool_host_service.proto", "parley/v1/request_context.proto"], {
  includeDirs: [protos, `${protos}/third_party/googleapis`, `${protos}/third_party/protovalidate`],
  keepCase: true,
  longs: String,
  enums: String,
});
const { ToolHostService } = grpc.loadPackageDefinition(definition).parley.v1;
const RequestContext = definition["parley.v1.RequestContext"];

// A tool: what the model reads, and what it does for `user` until `signal` says that nobody waits any more.
const tools = new Map();
function addTool(description, run) {
  const spec_hash = createHash("sha256").update(JSON.stringify(description)).digest("hex");
  tools.set(description.name, { description: { ...description, spec_hash }, run });
}

addTool(
  {
    name: "word_count",
    description: "Count the words of a text.",
    input_schema_json: JSON.stringify({
      type: "object",
      properties: { text: { type: "string" } },
      required: ["text"],
      additionalProperties: false,
    }),
    effect: "TOOL_EFFECT_READ",
    timeout: { seconds: 10 },
  },
  async ({ text }, { user, progress, signal }) => {
    if (typeof text !== "string") {
      const fields = [{ path: "text", problem: "must be a text" }];
      throw { code: "invalid_arguments", message: "The arguments do not fit the tool.", fields };
    }
    progress("counting", 0.5);
    await sleep(20, undefined, { signal });
    return { words: text.split(/\s+/).filter(Boolean).length, for: user.user_id };
  },
);

function isAllowed(metadata) {
  const [given = ""] = metadata.get("authorization");
  const wanted = Buffer.from(`Bearer ${process.env.TOOL_HOST_TOKEN}`);
  const sent = Buffer.from(given);
  return sent.length === wanted.length && timingSafeEqual(sent, wanted);
}

function describeTools(call, answer) {
  if (!isAllowed(call.metadata)) return answer({ code: grpc.status.UNAUTHENTICATED, details: "the token is not valid" });
  answer(null, { tools: [...tools.values()].map((tool) => tool.description) });
}

async function callTool(call) {
  const refuse = (code, details) => call.destroy(Object.assign(new Error(details), { code, details }));
  if (!isAllowed(call.metadata)) return refuse(grpc.status.UNAUTHENTICATED, "the token is not valid");
  const tool = tools.get(call.request.name);
  if (!tool) return refuse(grpc.status.NOT_FOUND, "there is no such tool");
  if (call.request.spec_hash !== tool.description.spec_hash) {
    return refuse(grpc.status.FAILED_PRECONDITION, "the tool has changed");
  }
  const aborting = new AbortController();
  call.on("cancelled", () => aborting.abort());
  try {
    const result = await tool.run(JSON.parse(call.request.arguments_json), {
      user: RequestContext.deserialize(call.metadata.get("parley-context-bin")[0]),
      progress: (message, fraction) => call.write({ progress: { message, fraction } }),
      signal: aborting.signal,
    });
    call.write({ result: { result_json: JSON.stringify(result) } });
  } catch (error) {
    // A tool throws { code, message }; what else is thrown is nothing for the model.
    if (error instanceof Error) console.error(error);
    call.write({ error: error instanceof Error ? { code: "internal", message: "The tool failed." } : error });
  }
  call.end();
}

const server = new grpc.Server();
server.addService(ToolHostService.service, { DescribeTools: describeTools, CallTool: callTool });
server.bindAsync(listen, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on ${listen.replace(/:\d+$/, `:${port}`)}`);
});
process.on("SIGTERM", () => server.tryShutdown(() => process.exit(0)));
