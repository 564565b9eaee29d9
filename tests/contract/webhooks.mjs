// Receives webhooks of a running service and verifies them with OpenAI's Node client.
//
// Usage: webhooks.mjs URL DATA.zip MODEL
// The service must allow webhooks to 127.0.0.1 (`--private-hosts 127.0.0.1:*`).

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CONTRACT_TOOLS}/package.json`);
const OpenAI = require("openai");

const [url, data, model] = process.argv.slice(2);
const events = new EventEmitter();
const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
        response.writeHead(204).end();
        events.emit("event", Buffer.concat(chunks).toString(), request.headers);
    });
});
server.listen(0, "127.0.0.1");
await once(server, "listening");

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "rh_none" });
const target = `http://127.0.0.1:${server.address().port}/hook`;
const webhook = await client.post("/webhooks", { body: { url: target } });

let received = once(events, "event");
const uploaded = await client.files.create({ file: fs.createReadStream(data), purpose: "fine-tune" });
const job = await client.fineTuning.jobs.create({ model, training_file: uploaded.id });
await client.fineTuning.jobs.cancel(job.id);
const [body, headers] = await received;
const event = await client.webhooks.unwrap(body, headers, webhook.secret);
assert.equal(event.type, "fine_tuning.job.cancelled");
assert.equal(event.data.id, job.id);
await assert.rejects(client.webhooks.unwrap(body.replace("cancelled", "failed"), headers, webhook.secret), OpenAI.InvalidWebhookSignatureError);

received = once(events, "event");
await client.post(`/webhooks/${webhook.id}/test`, { body: {} });
const test = await client.webhooks.unwrap(...(await received), webhook.secret);
assert.equal(test.type, "webhook.test");
await client.delete(`/webhooks/${webhook.id}`);
server.close();
console.log("openai for Node: webhooks verified and read");
