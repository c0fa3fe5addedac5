// Follows all pods of all clusters: node consumer.mjs nats://127.0.0.1:4222 [last sequence]
// npm install @nats-io/transport-node @nats-io/jetstream @msgpack/msgpack
import { decode } from "@msgpack/msgpack";
import { DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { inflateSync } from "node:zlib";

const [url, after = "0"] = process.argv.slice(2);
let last = Number(after);
const connection = await connect({ servers: url, maxReconnectAttempts: -1 });
const streams = (await jetstreamManager(connection)).streams;

// The object's JSON, put together and unpacked where it was too large for a message. null: superseded meanwhile.
async function body(delta) {
  let packed = delta.object;
  if (delta.parts?.length) {
    const parts = [];
    for (const seq of delta.parts) {
      const part = await streams.getMessage("KUBEBRAID", { seq });
      if (part === null) return null;
      parts.push(part.data);
    }
    packed = Buffer.concat(parts);
  }
  return delta.compression === "zlib" ? inflateSync(packed) : Buffer.from(packed);
}

const consumer = await jetstream(connection).consumers.get("KUBEBRAID", {
  filter_subjects: ["kb.*.core.*.pods.>", "kbc.*.removed", "kbc.*.removed.*.*"],
  deliver_policy: DeliverPolicy.StartSequence,
  opt_start_seq: last + 1,
});
for await (const message of await consumer.consume()) {
  // The server's own markers have no data. A sequence that is not higher is a repetition.
  if (!message.data.length || message.seq <= last) continue;
  const delta = decode(message.data);
  if (delta.v !== 1) throw new Error(`${message.seq}: format ${delta.v} is not known here`);
  const line = { sequence: message.seq, cluster: delta.cluster, resource: delta.resource };
  if (delta.record === "removed") {
    // Everything of that type (all of the cluster, if it is empty) with a lower sequence has gone.
    line.type = "REMOVED";
  } else {
    const object = await body(delta);
    if (object === null) continue;
    Object.assign(line, { type: delta.type, name: `${delta.namespace}/${delta.name}`, uid: delta.uid });
    line.bytes = object.length;
  }
  console.log(JSON.stringify(line));
  // Keep it where its effect is kept, in the same transaction: then each change counts exactly once.
  last = message.seq;
}
