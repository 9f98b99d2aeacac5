/** What the service says of a failed call beyond its code and message: the google.rpc details. */
import type { ServiceError } from "@grpc/grpc-js";

import { BadRequest, BadRequest_FieldViolation, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** Milliseconds that a full service asks to be left alone; undefined where it asks for none. */
export function retryDelay(error: ServiceError): number | undefined {
  const packed = detail(error, "google.rpc.RetryInfo");
  const delay = packed && RetryInfo.decode(packed).retryDelay;
  return delay && delay.seconds * 1e3 + delay.nanos / 1e6;
}

/** The fields that an INVALID_ARGUMENT is about. */
export function violations(error: ServiceError): BadRequest_FieldViolation[] {
  const packed = detail(error, "google.rpc.BadRequest");
  return packed ? BadRequest.decode(packed).fieldViolations : [];
}

function detail(error: ServiceError, type: string): Uint8Array | undefined {
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  if (!(trailer instanceof Uint8Array)) {
    return undefined;
  }
  return Status.decode(trailer).details.find((any) => any.typeUrl === `type.googleapis.com/${type}`)?.value;
}
