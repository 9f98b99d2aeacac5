package assay.example;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;

/**
 * What was asked for.
 *
 * @param target host:port of the reward service
 * @param model reward model; empty: the alias "default"
 * @param prompt what the answers answer
 * @param timeoutSeconds until the call must be done, retries included; above 0
 * @param answers at least one
 */
record CommandLine(String target, String model, String prompt, double timeoutSeconds, List<String> answers) {
    static final String USAGE =
            "usage: score --target host:port [--model name] [--timeout seconds] --prompt text answer...";

    /**
     * Reads the arguments: options first, then the answers.
     *
     * @throws IllegalArgumentException where they are wrong; says how
     */
    static CommandLine of(String[] arguments) {
        String target = "";
        String model = "";
        String prompt = "";
        double timeout = 10;
        List<String> answers = new ArrayList<>();
        Iterator<String> left = Arrays.asList(arguments).iterator();
        while (left.hasNext()) {
            String argument = left.next();
            if (!answers.isEmpty() || !argument.startsWith("--")) {
                answers.add(argument);
                continue;
            }
            if (argument.equals("--")) {
                left.forEachRemaining(answers::add);
                break;
            }
            if (!left.hasNext()) {
                throw new IllegalArgumentException(argument + " needs a value");
            }
            String value = left.next();
            switch (argument) {
                case "--target" -> target = value;
                case "--model" -> model = value;
                case "--prompt" -> prompt = value;
                case "--timeout" -> timeout = Double.parseDouble(value);
                default -> throw new IllegalArgumentException("there is no option " + argument);
            }
        }
        if (target.isEmpty() || prompt.isEmpty() || !(timeout > 0) || answers.isEmpty()) {
            throw new IllegalArgumentException("a target, a prompt, an answer and a timeout above 0 are needed");
        }
        return new CommandLine(target, model, prompt, timeout, List.copyOf(answers));
    }
}
