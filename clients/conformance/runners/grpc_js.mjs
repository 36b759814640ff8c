// Runs the scenario's calls with @grpc/grpc-js; the protos are read when it starts: `node grpc_js.mjs PROTOS TARGET`.
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [protos, target] = process.argv.slice(2);
const definition = loadSync(
  ["parley/v1/agent_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  {
    includeDirs: [protos, `${protos}/third_party/googleapis`, `${protos}/third_party/protovalidate`],
    longs: String,
    enums: String,
  },
);
const { AgentService } = grpc.loadPackageDefinition(definition).parley.v1;
const client = new AgentService(target, grpc.credentials.createInsecure());

// Makes one call; what came of it is { code, reason, messages }.
function outcome({ rpc, request, cut_after, api_key }) {
  const metadata = new grpc.Metadata();
  if (api_key) metadata.set("authorization", `Bearer ${api_key}`);
  const options = { deadline: Date.now() + 30_000 };
  if (!AgentService.service[rpc].responseStream) {
    return new Promise((resolve) =>
      client[rpc](request, metadata, options, (error, message) =>
        resolve(error ? failure(error, []) : { code: "OK", messages: [message] }),
      ),
    );
  }
  return new Promise((resolve) => {
    const messages = [];
    const call = client[rpc](request, metadata, options);
    call.on("data", (message) => {
      messages.push(message);
      if (messages.length === cut_after) {
        call.cancel();
        resolve({ code: "CUT", messages: [...messages] });
      }
    });
    call.on("error", (error) => resolve(failure(error, messages)));
    call.on("end", () => resolve({ code: "OK", messages }));
  });
}

function failure(error, messages) {
  const code = grpc.status[error.code];
  const [raw] = error.metadata.get("grpc-status-details-bin");
  if (!raw) return { code, reason: error.details, messages };
  const { details } = definition["google.rpc.Status"].deserialize(raw);
  const info = details.find((detail) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  return { code, reason: definition["google.rpc.ErrorInfo"].deserialize(info.value).reason, messages };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await outcome(JSON.parse(line))));
}
client.close();
