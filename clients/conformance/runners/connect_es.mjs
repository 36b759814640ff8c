// Runs the scenario's calls with connect-es over gRPC: `node connect_es.mjs GENERATED TARGET`, where GENERATED is the
// folder that protoc-gen-es wrote the contract to.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { createRegistry, fromJson, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

const [generated, target] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${generated}/${file}`));
const { AgentService } = await load("parley/v1/agent_service_pb.js");
const { ErrorInfoSchema, file_google_rpc_error_details } = await load("google/rpc/error_details_pb.js");
const registry = createRegistry(file_google_rpc_error_details);
const transport = createGrpcTransport({ baseUrl: `http://${target}`, defaultTimeoutMs: 30_000 });
const client = createClient(AgentService, transport);

// Makes one call; what came of it is { code, reason, messages }.
async function outcome({ rpc, request, cut_after, api_key }) {
  const method = AgentService.methods.find((each) => each.name === rpc);
  const headers = api_key ? { authorization: `Bearer ${api_key}` } : {};
  const cut = new AbortController();
  const messages = [];
  try {
    const answer = client[method.localName](fromJson(method.input, request), { headers, signal: cut.signal });
    for await (const message of method.methodKind === "unary" ? [await answer] : answer) {
      messages.push(toJson(method.output, message, { registry }));
      if (messages.length === cut_after) {
        cut.abort();
        return { code: "CUT", messages };
      }
    }
    return { code: "OK", messages };
  } catch (error) {
    const failure = ConnectError.from(error);
    const [info] = failure.findDetails(ErrorInfoSchema);
    return { code: constant(Code[failure.code]), reason: info?.reason, messages };
  }
}

// NotFound is NOT_FOUND.
const constant = (name) => name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await outcome(JSON.parse(line))));
}
// The open connection, and the timer of the call that was cut, would keep the process alive.
process.exit();
