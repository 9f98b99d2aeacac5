"""`assay generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.policy.v1 import policy_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, connect, conversation_of
from assay_cli.output import console, print_json, print_table
from assay_client.errors import item_failed


def generate(
    prompt: Annotated[str, typer.Argument(help="A question, or an HH-RLHF transcript.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Policy; else the first one loaded.")] = "",
    n: Annotated[int, typer.Option("-n", min=1, max=256, help="Answers to sample.")] = 1,
    best_by: Annotated[str, typer.Option(help="Reward model that chooses the best of n.")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Sample answers, or the best of n by a reward model.

    Example: `assay generate "How do I bake bread?" --model demo.sft -n 16 --best-by demo.gold`
    """
    sampling = policy_pb2.SamplingOptions(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    turns = conversation_of(prompt, system)
    with connect(data_dir) as client:
        if best_by:
            best = client.policy.best_of_n(turns, n=n, policy=model, reward_model=best_by, sampling=sampling, include_all=True)
            if as_json:
                print_json(best)
                return
            rows = [[each.score, each.completion.text] for each in sorted(best.all, key=lambda each: -each.score)]
            print_table(f"Best of {n} by {best_by}, KL {best.kl:.2f} nats", ["score", "answer"], rows)
            return
        answer = client.policy.generate([turns], model=model, n=n, sampling=sampling)
    generation = answer.generations[0]
    if generation.HasField("error"):
        raise item_failed(generation.error)
    if as_json:
        print_json(answer)
    elif n == 1:
        console.print(generation.completions[0].text, markup=False, soft_wrap=True)
    else:
        rows = [[len(completion.tokens.ids), completion.text] for completion in generation.completions]
        print_table(f"{n} answers", ["tokens", "answer"], rows)
