"""`assay train`."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.training.v1 import training_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, Wait, absolute_uri, connect, kept_or_new
from assay_cli.output import console, print_json
from assay_client.training import Spec

app = typer.Typer(help="Train: SFT, reward models, DPO, PPO.", no_args_is_help=True)

Data = Annotated[str, typer.Option(help="Preference pairs: a file, a folder or a hub id.")]
Model = Annotated[str, typer.Option("--model", help="Folder or hub id of the causal LM to start from.")]
Output = Annotated[str, typer.Option("--output", "-o", help="Folder the model is written to.")]
LearningRate = Annotated[float, typer.Option(min=0, help="0: the algorithm's default.")]
Epochs = Annotated[float, typer.Option(min=0, help="0: the algorithm's default.")]
BatchSize = Annotated[int, typer.Option(min=0, help="0: the algorithm's default.")]
Seed = Annotated[int, typer.Option(min=0)]
Threads = Annotated[int, typer.Option(min=1)]
JobId = Annotated[str, typer.Option(help="Job id; asking twice with one id is asking once.")]
Override = Annotated[str, typer.Option(help="Train though the gate fails, for this reason (recorded).")]
MinAccuracy = Annotated[float, typer.Option(min=0, max=1, help="Bar for the lower bound of the model's accuracy; 0: a coin.")]


@app.command()
def sft(
    data: Data,
    output: Output,
    model: Model,
    include_rejected: Annotated[bool, typer.Option("--include-rejected", help="Also train on the rejected answers.")] = False,
    learning_rate: LearningRate = 0.0,
    epochs: Epochs = 0.0,
    batch_size: BatchSize = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    job_id: JobId = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Supervised fine-tuning on chosen answers.

    Example: `assay train sft --model ./base --data pairs.jsonl --output ./sft`
    """
    spec = training_pb2.SftSpec(model_uri=absolute_uri(model), data_uri=absolute_uri(data), include_rejected=include_rejected)
    _train(spec, output, _optimizer(learning_rate, epochs, batch_size), seed, threads, job_id, wait, as_json, data_dir)


@app.command("reward-model")
def reward_model(
    data: Data,
    output: Output,
    model: Annotated[str, typer.Option("--model", help="Causal LM to start from; leave out for a bag of words.")] = "",
    label_flip_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of labels to flip first, for studies of noise.")] = 0.0,
    learning_rate: LearningRate = 0.0,
    epochs: Epochs = 0.0,
    batch_size: BatchSize = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    job_id: JobId = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """A Bradley-Terry reward model on preference pairs.

    Example: `assay train reward-model --model ./sft --data clean/kept.jsonl --output ./rm`
    """
    kind = training_pb2.REWARD_MODEL_KIND_SEQUENCE_CLASSIFIER if model else training_pb2.REWARD_MODEL_KIND_BAG_OF_WORDS
    spec = training_pb2.RewardModelSpec(
        kind=kind, model_uri=absolute_uri(model) if model else "", data_uri=absolute_uri(data), label_flip_rate=label_flip_rate
    )
    _train(spec, output, _optimizer(learning_rate, epochs, batch_size), seed, threads, job_id, wait, as_json, data_dir)


@app.command()
def dpo(
    data: Data,
    output: Output,
    model: Model,
    reward_model: Annotated[str, typer.Option(help="Reward model that wrote the labels; leave out for human labels.")] = "",
    min_accuracy: MinAccuracy = 0.0,
    override_gate: Override = "",
    beta: Annotated[float, typer.Option(min=0, help="Strength of the KL penalty; 0 means 0.1.")] = 0.0,
    learning_rate: LearningRate = 0.0,
    epochs: Epochs = 0.0,
    batch_size: BatchSize = 0,
    seed: Seed = 0,
    threads: Threads = 1,
    job_id: JobId = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Direct preference optimisation.

    Example: `assay train dpo --model ./sft --data clean/kept.jsonl --output ./dpo`
    """
    spec = training_pb2.DpoSpec(model_uri=absolute_uri(model), data_uri=absolute_uri(data), beta=beta)
    if reward_model:
        spec.gate.CopyFrom(training_pb2.Gate(reward_model=reward_model, min_accuracy_low=min_accuracy, override_reason=override_gate))
    _train(spec, output, _optimizer(learning_rate, epochs, batch_size), seed, threads, job_id, wait, as_json, data_dir)


@app.command()
def ppo(
    data: Data,
    output: Output,
    model: Model,
    reward_model: Annotated[str, typer.Option(help="Name of the reward model at the reward service.")],
    min_accuracy: MinAccuracy = 0.0,
    override_gate: Override = "",
    beta: Annotated[float, typer.Option(min=0, help="Strength of the KL penalty; 0 means 0.05.")] = 0.0,
    rollouts: Annotated[int, typer.Option(min=0, help="0 means 10.")] = 0,
    rollout_size: Annotated[int, typer.Option(min=0, help="Answers a rollout; 0 means 64.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="0 means 48.")] = 0,
    learning_rate: LearningRate = 0.0,
    seed: Seed = 0,
    threads: Threads = 1,
    job_id: JobId = "",
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Proximal policy optimisation against a model of the reward service; refused where the model has no quality card or fails the bar.

    Example: `assay train ppo --model ./sft --data prompts.jsonl --reward-model my-rm --output ./ppo`
    """
    spec = training_pb2.PpoSpec(
        model_uri=absolute_uri(model),
        data_uri=absolute_uri(data),
        gate=training_pb2.Gate(reward_model=reward_model, min_accuracy_low=min_accuracy, override_reason=override_gate),
        beta=beta,
        rollouts=rollouts,
        rollout_size=rollout_size,
        max_new_tokens=max_new_tokens,
    )
    _train(spec, output, _optimizer(learning_rate, 0.0, 0), seed, threads, job_id, wait, as_json, data_dir)


def _optimizer(learning_rate: float, epochs: float, batch_size: int) -> training_pb2.OptimizerOptions:
    return training_pb2.OptimizerOptions(learning_rate=learning_rate, epochs=epochs, batch_size=batch_size)


def _train(
    spec: Spec,
    output: str,
    optimizer: training_pb2.OptimizerOptions,
    seed: int,
    threads: int,
    job_id: str,
    wait: bool,
    as_json: bool,
    data_dir: DataDir,
) -> None:
    with connect(data_dir) as client:
        job = client.training.create_training_job(
            spec, absolute_uri(output, must_exist=False), optimizer=optimizer, seed=seed, threads=threads, job_id=job_id
        )
    result = kept_or_new(job, wait=wait, as_json=as_json, data_dir=data_dir, service="training")
    if result is None:
        return
    if as_json:
        print_json(result)
    else:
        console.print(f"Model in {result['model_uri']} (fingerprint {str(result['fingerprint'])[:12]})", markup=False, soft_wrap=True)
