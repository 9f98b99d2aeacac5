"""`assay models`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from assay.reward.v1 import reward_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, absolute_uri, connect
from assay_cli.commands.shadow import shadow
from assay_cli.output import console, print_json, print_table

app = typer.Typer(help="Models of the reward and policy services: list, load, unload, alias, shadow.", no_args_is_help=True)
app.command("shadow")(shadow)


class Service(StrEnum):
    """Services that hold models."""

    REWARD = "reward"
    POLICY = "policy"


Name = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command("list")
def show(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List reward models with where they stand, what they take and what was measured about them; and policies.

    Example: `assay models list`
    """
    with connect(data_dir) as client:
        rewards, policies = client.reward.list_models(), client.policy.list_models()
    if as_json:
        print_json({"reward": list(rewards), "policy": list(policies)})
        return
    rows = []
    for model in rewards:
        accuracy = model.quality_card.accuracy
        measured = (
            f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}] n={accuracy.n}" if model.HasField("quality_card") else "–"
        )
        state = reward_pb2.ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower()
        rows.append([model.name, model.revision, model.kind, state, ", ".join(model.aliases), _memory(model.memory_bytes), measured])
    print_table("Reward models", ["name", "revision", "kind", "state", "aliases", "memory", "accuracy"], rows)
    for model in rewards:
        if model.failure:
            console.print(f"{model.name}: {model.failure}", markup=False, soft_wrap=True)
    print_table("Policies", ["name", "revision", "uri"], [[model.name, model.revision, model.uri] for model in policies])


@app.command()
def load(
    service: Service,
    name: Name,
    uri: Annotated[str, typer.Argument(help="Folder, hub id, or (policy) http://host:port.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Load a model while the service runs.

    Example: `assay models load reward my-rm ./checkpoint`
    """
    with connect(data_dir) as client:
        model = (client.reward if service is Service.REWARD else client.policy).load_model(name, absolute_uri(uri))
    console.print(f"{model.name} {model.revision} is loaded", soft_wrap=True)


@app.command()
def unload(service: Service, name: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Unload a model after its calls in flight.

    Example: `assay models unload policy demo.sft`
    """
    with connect(data_dir) as client:
        (client.reward if service is Service.REWARD else client.policy).unload_model(name)
    console.print(f"{name} is unloaded")


@app.command()
def alias(name: Annotated[str, typer.Argument(help="The alias.")], model: Name, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Move an alias of the reward service, such as `default`, to a loaded model.

    Example: `assay models alias default my-rm`
    """
    with connect(data_dir) as client:
        client.reward.set_alias(name, model)
    console.print(f"{name} is {model} now")


def _memory(size: int) -> str:
    """In MiB; a dash where nothing is in memory."""
    return f"{size / 2**20:,.1f} MiB" if size else "–"
