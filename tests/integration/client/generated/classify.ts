// Classifies one picture with the types that openapi-typescript makes of docs/openapi.json.
//   node classify.js URL KEY PICTURE
import { openAsBlob } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [url, key, picture] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

const form = new FormData();
form.append("files", await openAsBlob(picture), picture);
const submitted = await client.POST("/v1/jobs", {
  params: { query: { top_k: 3 } },
  body: { files: [picture] },
  bodySerializer: () => form,
});
let job = submitted.data;
while (job && !job.completed_at) {
  job = (await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: job.id }, query: { wait: 10 } } })).data;
}
if (!job) throw new Error(JSON.stringify(submitted.error));
const { data } = await client.GET("/v1/jobs/{job_id}/results", { params: { path: { job_id: job.id } } });
if (typeof data !== "object") throw new Error("the results are not JSON");
console.log(data.items.map((item) => `${item.class} of ${item.top_k?.length}`).join());
