package assay.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** What the service says of a failed call beyond its code and message: the google.rpc details. */
final class Details {
    private Details() {}

    /** How long a full service asks to be left alone. */
    static Optional<Duration> retryDelay(StatusRuntimeException failure) {
        return detail(failure, RetryInfo.class)
                .map(RetryInfo::getRetryDelay)
                .map(delay -> Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
    }

    /** The fields that an INVALID_ARGUMENT is about. */
    static List<BadRequest.FieldViolation> violations(StatusRuntimeException failure) {
        return detail(failure, BadRequest.class).map(BadRequest::getFieldViolationsList).orElse(List.of());
    }

    private static <T extends Message> Optional<T> detail(StatusRuntimeException failure, Class<T> kind) {
        Status status = StatusProto.fromThrowable(failure);
        for (Any any : status.getDetailsList()) {
            if (any.is(kind)) {
                try {
                    return Optional.of(any.unpack(kind));
                } catch (InvalidProtocolBufferException broken) {
                    throw new IllegalStateException("the service sent a broken " + kind.getSimpleName(), broken);
                }
            }
        }
        return Optional.empty();
    }
}
