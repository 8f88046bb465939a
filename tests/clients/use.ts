// Predict, train and wait with the client that openapi-typescript and openapi-fetch make.
import createClient from "openapi-fetch";
import type { components, paths } from "./linserve.js";

type Job = components["schemas"]["JobView"];

declare const process: { argv: string[] };

// Answers in JSON, and problems. The service has other formats of tables, too.
type Format = "application/json" | "application/problem+json";

const client = createClient<paths, Format>({ baseUrl: process.argv[2] });

const rows = [[1], [2], [3], [4]];
const targets = [[3], [5], [7], [9]];

async function ended(job: Job): Promise<Job> {
  while (job.status === "queued" || job.status === "running") {
    const { data, error } = await client.GET("/jobs/{job}", { params: { path: { job: job.id } } });
    if (error) throw new Error(error.detail);
    job = data;
  }
  return job;
}

async function train(solver?: components["schemas"]["TrainRequest"]["solver"], prefer?: string): Promise<Job> {
  const { data, error } = await client.POST("/train", {
    params: { header: { Prefer: prefer } },
    body: { model: "typescript", instances: rows, targets, feature_names: ["x"], target_names: ["y"], solver },
  });
  if (error) throw new Error(error.detail);
  return ended(data);
}

const shipped = await client.POST("/predict", {
  body: { instances: [{ temp: 75, rainfall: 63, humidity: 44 }], interval: 0.95 },
});
if (shipped.error) throw new Error(shipped.error.detail);

const jobs = [
  await train({ kind: "gradient_descent", epochs: 2, start: { weights: [[0]], intercept: [0] } }, "wait=30"),
  await train({ l2: 0.5 }),
  await train(),
];

const own = await client.POST("/models/{model}/predict", {
  params: { path: { model: "typescript" } },
  body: { instances: [[10]] },
});
if (own.error) throw new Error(own.error.detail);

const refused = await client.POST("/predict", { body: { instances: [[1]] } });

console.log(
  JSON.stringify({
    shipped: shipped.data.predictions,
    jobs: jobs.map((job) => [job.status, job.version]),
    own: own.data.predictions,
    refused: refused.error?.title,
  }),
);
