package assay.example;

import assay.common.v1.Common.Conversation;
import assay.common.v1.Common.Message;
import assay.common.v1.Common.ModelSelector;
import assay.common.v1.Common.Role;
import assay.reward.v1.Reward.Candidate;
import assay.reward.v1.Reward.Provenance;
import assay.reward.v1.Reward.ScoreGroupRequest;
import assay.reward.v1.Reward.ScoreGroupResponse;
import assay.reward.v1.RewardServiceGrpc;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Asks Assay's reward service how good each answer to a prompt is. */
public final class Score {
    private Score() {}

    /**
     * Prints the scores.
     *
     * @param arguments as {@link CommandLine#USAGE} says
     */
    public static void main(String[] arguments) throws InterruptedException {
        CommandLine line;
        try {
            line = CommandLine.of(arguments);
        } catch (IllegalArgumentException wrong) {
            System.err.println(wrong.getMessage() + "\n" + CommandLine.USAGE);
            System.exit(2);
            return;
        }
        try {
            show(score(line.target(), request(line.model(), line.prompt(), line.answers()), line.timeoutSeconds()));
        } catch (StatusRuntimeException failure) {
            complain(failure);
            System.exit(exitCode(failure));
        }
    }

    private static ScoreGroupRequest request(String model, String prompt, List<String> answers) {
        return ScoreGroupRequest.newBuilder()
                .setModel(ModelSelector.newBuilder().setName(model))
                .setConversation(Conversation.newBuilder()
                        .addMessages(Message.newBuilder().setRole(Role.ROLE_USER).setContent(prompt)))
                .addAllCandidates(answers.stream().map(text -> Candidate.newBuilder().setText(text).build()).toList())
                .build();
    }

    /** Calls the service; the deadline holds for all attempts together, and travels to the service with each. */
    private static ScoreGroupResponse score(String target, ScoreGroupRequest request, double timeoutSeconds)
            throws InterruptedException {
        ManagedChannel channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
        try {
            var stub = RewardServiceGrpc.newBlockingStub(channel);
            Deadline deadline = Deadline.after((long) (timeoutSeconds * 1e9), TimeUnit.NANOSECONDS);
            return Patience.whileFull(deadline, () -> stub.withDeadline(deadline).scoreGroup(request));
        } finally {
            channel.shutdownNow();
        }
    }

    private static void show(ScoreGroupResponse response) {
        for (int index = 0; index < response.getScoresCount(); index++) {
            System.out.println("candidates[" + index + "]\t" + response.getScores(index).getValue());
        }
        Provenance provenance = response.getProvenance();
        System.out.println("best\tcandidates[" + response.getBestIndex() + "]");
        System.out.println("model\t" + provenance.getModel() + "@" + provenance.getRevision());
        System.out.println("fingerprint\t" + provenance.getFingerprint());
        System.out.println("dtype\t" + provenance.getDtype());
        System.out.println("engine\t" + provenance.getEngineVersion());
    }

    /** Says what went wrong, and which fields of the request it was where the service names them. */
    private static void complain(StatusRuntimeException failure) {
        System.err.println(failure.getStatus().getCode() + ": " + failure.getStatus().getDescription());
        Details.violations(failure)
                .forEach(one -> System.err.println("  " + one.getField() + ": " + one.getDescription()));
    }

    private static int exitCode(StatusRuntimeException failure) {
        return switch (failure.getStatus().getCode()) {
            case INVALID_ARGUMENT -> 3;
            case DEADLINE_EXCEEDED -> 4;
            case RESOURCE_EXHAUSTED -> 5;
            default -> 1;
        };
    }
}
