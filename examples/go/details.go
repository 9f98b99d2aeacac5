package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// whileFull calls, and calls again for as long as the service is full and the context's deadline leaves time for the pause it asks for.
func whileFull[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for {
		response, err := call()
		pause, full := retryAfter(err)
		if !full {
			return response, err
		}
		// Up to half as long again, so that those who were refused together do not come back together.
		pause += time.Duration(rand.Int64N(int64(pause)/2 + 1))
		if deadline, has := ctx.Deadline(); has && time.Until(deadline) < pause {
			return response, err
		}
		fmt.Fprintf(os.Stderr, "full, again in %.2f s: %s\n", pause.Seconds(), status.Convert(err).Message())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return response, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// retryAfter is the pause that a full service asks for. RESOURCE_EXHAUSTED without RetryInfo, such as a message that is too large, stays so.
func retryAfter(err error) (time.Duration, bool) {
	if status.Code(err) != codes.ResourceExhausted {
		return 0, false
	}
	for _, detail := range status.Convert(err).Details() {
		if retry, is := detail.(*errdetails.RetryInfo); is {
			return retry.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// violations are the fields that an INVALID_ARGUMENT is about.
func violations(err error) []*errdetails.BadRequest_FieldViolation {
	for _, detail := range status.Convert(err).Details() {
		if bad, is := detail.(*errdetails.BadRequest); is {
			return bad.GetFieldViolations()
		}
	}
	return nil
}

// canonical is the code as every language writes it, for example DEADLINE_EXCEEDED.
func canonical(one codes.Code) string {
	return code.Code(one).String()
}
