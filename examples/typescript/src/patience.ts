/** Calls to a service that may be full. */
import { setTimeout } from "node:timers/promises";

import { status, type ServiceError } from "@grpc/grpc-js";

import { retryDelay } from "./details.js";

/**
 * Calls, and calls again for as long as the service is full and the deadline leaves time for the pause it asks for.
 *
 * Rejects with the ServiceError of the last attempt.
 */
export async function whileFull<T>(deadline: Date, call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      // RESOURCE_EXHAUSTED without RetryInfo, such as a message that is too large, stays so.
      const asked = isServiceError(error) && error.code === status.RESOURCE_EXHAUSTED ? retryDelay(error) : undefined;
      if (asked === undefined) {
        throw error;
      }
      // Up to half as long again, so that those who were refused together do not come back together.
      const pause = asked * (1 + Math.random() / 2);
      if (Date.now() + pause > deadline.getTime()) {
        throw error;
      }
      console.error(`full, again in ${(pause / 1e3).toFixed(2)} s: ${(error as ServiceError).details}`);
      await setTimeout(pause);
    }
  }
}

/** Whether a call of gRPC ended in this. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}
