#!/usr/bin/env node
/** Asks Assay's reward service how good each answer to a prompt is. */
import { parseArgs } from "node:util";

import { credentials, Metadata, status } from "@grpc/grpc-js";

import { violations } from "./details.js";
import { Role } from "./gen/assay/common/v1/common.js";
import { RewardServiceClient, ScoreGroupRequest, ScoreGroupResponse } from "./gen/assay/reward/v1/reward.js";
import { isServiceError, whileFull } from "./patience.js";

const USAGE = "usage: score --target host:port [--model name] [--timeout seconds] --prompt text answer...";
const WRONG_COMMAND_LINE = 2;
const EXIT_CODES: ReadonlyMap<status, number> = new Map([
  [status.INVALID_ARGUMENT, 3],
  [status.DEADLINE_EXCEEDED, 4],
  [status.RESOURCE_EXHAUSTED, 5],
]);

interface CommandLine {
  target: string;
  /** Reward model; empty: the alias "default". */
  model: string;
  prompt: string;
  /** Until the call must be done, retries included; above 0. */
  timeoutSeconds: number;
  answers: string[];
}

function commandLine(): CommandLine {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      target: { type: "string", default: "" },
      model: { type: "string", default: "" },
      prompt: { type: "string", default: "" },
      timeout: { type: "string", default: "10" },
    },
  });
  const timeoutSeconds = Number(values.timeout);
  if (!values.target || !values.prompt || !(timeoutSeconds > 0) || positionals.length === 0) {
    throw new TypeError("a target, a prompt, an answer and a timeout above 0 are needed");
  }
  return { target: values.target, model: values.model, prompt: values.prompt, timeoutSeconds, answers: positionals };
}

/** Calls the service; the deadline holds for all attempts together, and travels to the service with each. */
async function score(line: CommandLine): Promise<ScoreGroupResponse> {
  const request = ScoreGroupRequest.fromPartial({
    model: { name: line.model },
    conversation: { messages: [{ role: Role.ROLE_USER, content: line.prompt }] },
    candidates: line.answers.map((text) => ({ text })),
  });
  const deadline = new Date(Date.now() + line.timeoutSeconds * 1e3);
  const client = new RewardServiceClient(line.target, credentials.createInsecure());
  const call = (): Promise<ScoreGroupResponse> =>
    new Promise((resolve, reject) => {
      client.scoreGroup(request, new Metadata(), { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
    });
  try {
    return await whileFull(deadline, call);
  } finally {
    client.close();
  }
}

function show(response: ScoreGroupResponse): void {
  response.scores.forEach((one, index) => console.log(`candidates[${index}]\t${one.value}`));
  console.log(`best\tcandidates[${response.bestIndex}]`);
  const { provenance } = response;
  if (provenance) {
    console.log(`model\t${provenance.model}@${provenance.revision}`);
    console.log(`fingerprint\t${provenance.fingerprint}`);
    console.log(`dtype\t${provenance.dtype}`);
    console.log(`engine\t${provenance.engineVersion}`);
  }
}

async function main(): Promise<number> {
  let line: CommandLine;
  try {
    line = commandLine();
  } catch (wrong) {
    console.error(`${(wrong as Error).message}\n${USAGE}`);
    return WRONG_COMMAND_LINE;
  }
  try {
    show(await score(line));
    return 0;
  } catch (error) {
    if (!isServiceError(error)) {
      throw error;
    }
    console.error(`${status[error.code]}: ${error.details}`);
    violations(error).forEach((one) => console.error(`  ${one.field}: ${one.description}`));
    return EXIT_CODES.get(error.code) ?? 1;
  }
}

process.exitCode = await main();
