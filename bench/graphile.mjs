// graphile-worker on an empty job: jobs per second with 16 at once. Usage: node graphile.mjs POSTGRES_URL JOBS
import { createRequire } from "node:module";

const require = createRequire(process.env.GRAPHILE_FOLDER + "/");
const { runOnce, makeWorkerUtils } = require("graphile-worker");
const { Pool } = require("pg");
const [url, jobs] = process.argv.slice(2);
// The driver takes the socket's folder as `host`, not from the URL's query.
const host = new URL(url.replace("postgres:", "http:")).searchParams.get("host");
const pgPool = new Pool({ host, user: "rehead", database: "postgres", max: 20 });
// It asks for these of every pool that it is given.
pgPool.on("error", console.error);
pgPool.on("connect", (client) => client.on("error", console.error));
const { Logger } = require("graphile-worker");
const logger = new Logger(() => (level, message) => level === "error" && console.error(message));

const utils = await makeWorkerUtils({ pgPool, logger });
await utils.migrate();
await pgPool.query(
  "select graphile_worker.add_job('nothing') from generate_series(1, $1::int)",
  [jobs],
);
await utils.release();
const begun = performance.now();
await runOnce({ pgPool, concurrency: 16, logger, taskList: { nothing: async () => {} } });
console.log((jobs / ((performance.now() - begun) / 1000)).toFixed(0));
await pgPool.query("drop schema graphile_worker cascade");
await pgPool.end();
