// Uses OpenAI's own Node client on a running service, with nothing but its `baseURL` changed: every
// call of files, uploads, models and fine-tuning. After openai_client.py, which registers the base
// model.
//
// Usage: node openai_client.mjs URL DATA.zip

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { request } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The client lies in the folder of the tools, not beside this file.
const tools = createRequire(`${process.env.CONTRACT_TOOLS}/package.json`);
const { default: OpenAI, toFile } = await import(pathToFileURL(tools.resolve("openai")).href);

const [url, data] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "rh_none", maxRetries: 0 });
const model = "efficientnet_lite0";
const all = async (pages) => {
    const ids = [];
    for await (const one of pages) ids.push(one.id);
    return ids;
};
const until = async (job, ...wanted) => {
    for (let tries = 0; tries < 1_200; tries++) {
        const found = await client.fineTuning.jobs.retrieve(job);
        if (wanted.includes(found.status)) return found;
        assert(!["succeeded", "failed", "cancelled"].includes(found.status), JSON.stringify(found));
        await new Promise((done) => setTimeout(done, 100));
    }
    assert.fail(`${job} is none of ${wanted}`);
};

async function files() {
    const ids = [];
    for (let number = 0; number < 5; number++) {
        const file = await client.files.create({
            file: await toFile(Buffer.from("not a zip"), `${number}.zip`),
            purpose: "fine-tune",
            expires_after: { anchor: "created_at", seconds: 3600 },
        });
        assert.equal(file.expires_at - file.created_at, 3600);
        ids.push(file.id);
    }
    const listed = await all(client.files.list({ limit: 2, order: "asc", purpose: "fine-tune" }));
    assert.deepEqual(listed.filter((id) => ids.includes(id)), ids);
    assert.deepEqual(await all(client.files.list({ limit: 10_000, order: "asc", purpose: "fine-tune" })), listed);
    assert.equal(await (await client.files.content(ids[0])).text(), "not a zip");
    assert.equal((await client.files.waitForProcessing(ids[0], { pollInterval: 200 })).status, "error");
    for (const id of ids) assert((await client.files.delete(id)).deleted);
    const file = await client.files.create({ file: createReadStream(data), purpose: "fine-tune" });
    assert.equal((await client.files.waitForProcessing(file.id, { pollInterval: 200 })).status, "processed");
    return file.id;
}

async function uploads() {
    const content = readFileSync(data);
    const announced = { filename: "a.zip", purpose: "fine-tune", bytes: content.length, mime_type: "application/zip" };
    const upload = await client.uploads.create(announced);
    const half = content.length >> 1;
    const [first, second] = await Promise.all(
        [content.subarray(0, half), content.subarray(half)].map(async (part) =>
            client.uploads.parts.create(upload.id, { data: await toFile(part, "part") }),
        ),
    );
    const md5 = createHash("md5").update(content).digest("hex");
    const done = await client.uploads.complete(upload.id, { part_ids: [first.id, second.id], md5 });
    assert.equal(done.status, "completed");
    const stored = Buffer.from(await (await client.files.content(done.file.id)).arrayBuffer());
    assert(stored.equals(content));
    await client.files.delete(done.file.id);
    const other = await client.uploads.create({ ...announced, bytes: 1 });
    assert.equal((await client.uploads.cancel(other.id)).status, "cancelled");
}

async function fineTuning(file) {
    const jobs = client.fineTuning.jobs;
    const hyperparameters = { n_epochs: 3 };
    const method = { type: "supervised", supervised: { hyperparameters } };
    let job = await jobs.create({ model, training_file: file, suffix: "node", seed: 7, method });
    job = await until(job.id, "succeeded");
    assert(job.trained_tokens > 0);
    const events = await all(jobs.listEvents(job.id, { limit: 2 }));
    assert.deepEqual(await all(jobs.listEvents(job.id)), events);
    assert(events.length > 2 && (await all(jobs.checkpoints.list(job.id, { limit: 1 }))).length > 0);
    const results = await (await client.files.content(job.result_files[0])).text();
    assert(results.startsWith("step,"));

    const transfer = {
        freeze: { all_but_last_stages: 2 },
        hyperparameters: { n_epochs: 10_000, batch_size: 4 },
        early_stopping: { patience: 10_000 },
    };
    const endless = await jobs.create({ model, training_file: file, method: { type: "transfer", transfer } });
    await until(endless.id, "running");
    await jobs.pause(endless.id);
    await until(endless.id, "paused");
    assert(["queued", "running"].includes((await jobs.resume(endless.id)).status));
    await jobs.cancel(endless.id);
    await until(endless.id, "cancelled");
    assert.deepEqual((await all(jobs.list({ limit: 1 }))).slice(0, 2), [endless.id, job.id]);

    const models = await all(client.models.list());
    assert(models.includes(model) && models.includes(job.fine_tuned_model));
    assert.equal((await client.models.retrieve(job.fine_tuned_model)).id, job.fine_tuned_model);
    assert((await client.models.delete(job.fine_tuned_model)).deleted);
}

async function errors(file) {
    await assert.rejects(client.files.retrieve("file-none"), (error) => error.status === 404 && error.code === "not_found");
    await assert.rejects(
        client.fineTuning.jobs.create({ model: "none", training_file: file }),
        (error) => error.status === 422 && error.code === "unknown_model" && error.requestID !== undefined,
    );
}

// A body that is refused before it is read: the answer, not a broken pipe.
async function earlyAnswers() {
    const body = Buffer.alloc(6 << 20);
    const headers = { "content-type": "text/plain" };
    for (let round = 0; round < 5; round++) {
        const fetched = await fetch(`${url}/v1/files`, { method: "POST", body, headers });
        assert.equal(fetched.status, 415);
        assert.equal((await fetched.json()).error.code, "unsupported_media_type");
        const status = await new Promise((answered, failed) => {
            const sending = request(`${url}/v1/files`, { method: "POST", headers }, (response) => {
                response.resume().on("end", () => answered(response.statusCode)).on("error", failed);
            });
            sending.on("error", failed);
            for (let at = 0; at < body.length; at += 65_536) sending.write(body.subarray(at, at + 65_536));
            sending.end();
        });
        assert.equal(status, 415);
    }
}

const file = await files();
await uploads();
await fineTuning(file);
await errors(file);
await earlyAnswers();
const { version } = JSON.parse(readFileSync(`${process.env.CONTRACT_TOOLS}/node_modules/openai/package.json`));
console.log(`openai ${version} for Node`);
