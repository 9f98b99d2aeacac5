package assay.example;

import io.grpc.Deadline;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Calls to a service that may be full. */
final class Patience {
    private Patience() {}

    /**
     * Calls, and calls again for as long as the service is full and the deadline leaves time for the pause it asks for.
     *
     * @throws StatusRuntimeException the call failed
     */
    static <T> T whileFull(Deadline deadline, Supplier<T> call) throws InterruptedException {
        while (true) {
            StatusRuntimeException refused;
            try {
                return call.get();
            } catch (StatusRuntimeException failure) {
                refused = failure;
            }
            // RESOURCE_EXHAUSTED without RetryInfo, such as a message that is too large, stays so.
            Optional<Duration> asked = Details.retryDelay(refused);
            if (refused.getStatus().getCode() != Status.Code.RESOURCE_EXHAUSTED || asked.isEmpty()) {
                throw refused;
            }
            // Up to half as long again, so that those who were refused together do not come back together.
            long pause = (long) (asked.get().toMillis() * ThreadLocalRandom.current().nextDouble(1.0, 1.5));
            if (deadline.timeRemaining(TimeUnit.MILLISECONDS) < pause) {
                throw refused;
            }
            System.err.printf(
                    Locale.ROOT, "full, again in %.2f s: %s%n", pause / 1e3, refused.getStatus().getDescription());
            Thread.sleep(pause);
        }
    }
}
