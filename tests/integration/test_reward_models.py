"""Models come, go and change places while others score: over real gRPC, with calls under way."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from support.reward_service import RewardClient, details, group, reward_service, selector
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_reward.models import AnyModel, LoadOptions, load_folder

ANSWERS = ["Mix flour and water.", "Buy it.", "Ask a baker, and listen."]
CALLERS = 4
SWAPS = 20


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("models")
    return [write_tiny_reward_model(home / f"m{seed}", seed) for seed in range(3)]


async def scores_of(client: RewardClient, name: str) -> tuple[float, ...]:
    reply = await client.reward.ScoreGroup(group(ANSWERS, model=selector(name)))
    return tuple(score.raw for score in reply.scores)


class Callers:
    """Threads that ask for the same group again and again, each over a channel of its own."""

    def __init__(self, target: str, name: str) -> None:
        self._target, self._name = target, name
        self._stop = threading.Event()
        self._loop, self._answered = asyncio.get_running_loop(), asyncio.Semaphore(0)
        self.replies: list[reward_pb2.ScoreGroupResponse] = []
        self.failures: list[grpc.RpcError] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    async def __aenter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def some_more(self) -> None:
        """Waits until more calls have been answered than were under way."""
        for _ in range(2 * CALLERS):
            await asyncio.wait_for(self._answered.acquire(), 60)

    def _call(self) -> None:
        with grpc.insecure_channel(self._target, options=[("grpc.enable_retries", 0)]) as channel:
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            while not self._stop.is_set():
                try:
                    self.replies.append(stub.ScoreGroup(group(ANSWERS, model=selector(self._name)), timeout=60))
                except grpc.RpcError as error:
                    self.failures.append(error)
                self._loop.call_soon_threadsafe(self._answered.release)


async def test_an_alias_moves_between_loaded_models_under_load_and_no_call_fails(tmp_path: Path, folders: list[Path]) -> None:
    async with reward_service(tmp_path) as client:
        infos = [await client.load(name, folder) for name, folder in zip(("one", "two"), folders, strict=False)]
        expected = {info.provenance.fingerprint: (info.name, info.revision, await scores_of(client, info.name)) for info in infos}
        assert len(expected) == len({scores for _, _, scores in expected.values()}) == 2
        await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="live", model=selector("one")))
        async with Callers(client.target, "live") as callers:
            for swap in range(SWAPS):
                await callers.some_more()
                await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="live", model=selector(("two", "one")[swap % 2])))
        assert callers.failures == []
        seen = set()
        for reply in callers.replies:
            provenance = reply.provenance
            found = (provenance.model, provenance.revision, tuple(score.raw for score in reply.scores))
            assert found == expected[provenance.fingerprint]
            seen.add(provenance.fingerprint)
        assert seen == set(expected)


async def test_new_content_takes_a_name_under_load_no_call_fails_and_the_old_leaves_memory(tmp_path: Path, folders: list[Path]) -> None:
    made: list[weakref.ref[AnyModel]] = []
    async with reward_service(tmp_path) as client:
        expected = {}
        for index, folder in enumerate(folders):
            info = await client.load(f"fixed{index}", folder)
            expected[info.provenance.fingerprint] = await scores_of(client, info.name)
        with pytest.MonkeyPatch.context() as patch:

            def load(folder: Path, options: LoadOptions) -> AnyModel:
                model = load_folder(folder, options)
                made.append(weakref.ref(model))
                return model

            patch.setattr("assay_reward.reading.load_folder", load)
            await client.load("rm", folders[0])
            async with Callers(client.target, "rm") as callers:
                for swap in range(1, 6):
                    await callers.some_more()
                    await client.load("rm", folders[swap % 3])
                await callers.some_more()
        assert callers.failures == []
        fingerprints = [reply.provenance.fingerprint for reply in callers.replies]
        assert set(fingerprints) == set(expected)
        assert all(expected[reply.provenance.fingerprint] == tuple(score.raw for score in reply.scores) for reply in callers.replies)
        await scores_of(client, "rm")
        gc.collect()  # frames of calls that have ended may be in cycles
        assert [model() is not None for model in made] == [False] * 5 + [True]


class Gate:
    """Lets a model be read only when it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, only: Path) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

        def load(folder: Path, options: LoadOptions) -> AnyModel:
            if folder == only:
                self.reached.set()
                assert self.open.wait(60)
            return load_folder(folder, options)

        monkeypatch.setattr("assay_reward.reading.load_folder", load)


async def test_while_a_model_loads_all_else_is_served(tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async with reward_service(tmp_path) as client:
        await client.load("one", folders[0])
        await client.load("two", folders[1])
        gate = Gate(monkeypatch, folders[2])
        # Far more than there are threads for other work: they wait for each other.
        loads = [asyncio.ensure_future(client.load("slow", folders[2])) for _ in range(40)]
        try:
            assert await asyncio.to_thread(gate.reached.wait, 30)
            await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="default", model=selector("two")), timeout=20)
            assert (await client.reward.ScoreGroup(group(ANSWERS), timeout=20)).provenance.model == "two"
            listed = await client.reward.ListModels(reward_pb2.ListModelsRequest())
            states = {model.name: model.state for model in listed.models}
            assert states == {
                "one": reward_pb2.MODEL_STATE_READY,
                "two": reward_pb2.MODEL_STATE_READY,
                "slow": reward_pb2.MODEL_STATE_LOADING,
            }
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await scores_of(client, "slow")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and "slow is loading" in str(caught.value.details())
            health = health_pb2_grpc.HealthStub(client.channel)
            for service in ("", "assay.reward.v1.RewardService", "assay.reward.v1.ModelAdminService"):
                reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            assert not any(load.done() for load in loads)
        finally:
            gate.open.set()
        infos = await asyncio.gather(*loads)
        assert len({info.loaded_at.ToNanoseconds() for info in infos}) == 1  # it was loaded once


async def test_a_caller_who_goes_away_does_not_stop_a_load(tmp_path: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async with reward_service(tmp_path) as client:
        gate = Gate(monkeypatch, folders[0])
        load = client.admin.LoadModel(reward_pb2.LoadModelRequest(name="rm", uri=str(folders[0])))
        assert await asyncio.to_thread(gate.reached.wait, 30)
        load.cancel()
        gate.open.set()
        await client.load("rm", folders[0])
        assert len(await scores_of(client, "rm")) == len(ANSWERS)


async def test_memory_is_told_and_the_budget_kept_through_the_door(tmp_path: Path, folders: list[Path]) -> None:
    big = [write_tiny_reward_model(tmp_path / f"big{seed}", seed, hidden_size=128) for seed in range(3)]
    async with reward_service(tmp_path / "state", reward_memory_mib=5, reward_evict=True) as client:
        infos = [await client.load(f"big{index}", folder) for index, folder in enumerate(big[:2])]
        assert all(1 << 20 < info.memory_bytes < 5 << 19 for info in infos)
        metric = REGISTRY.get_sample_value("assay_reward_model_memory_bytes", {"model": "big0", "revision": infos[0].revision})
        assert metric == infos[0].memory_bytes
        await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="other", model=selector("big1")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.load("big2", big[2])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "in memory are: big" in str(caught.value.details()) and details(caught.value) == ({}, None)
        await client.admin.SetAlias(reward_pb2.SetAliasRequest(alias="other", model=selector("big0")))
        await client.load("big2", big[2])
        gone = (await client.reward.GetModel(reward_pb2.GetModelRequest(model=selector("big1")))).model
        assert gone.state == reward_pb2.MODEL_STATE_EVICTED and gone.memory_bytes == 0 and "make room for big2" in gone.failure
        assert gone.provenance.fingerprint == "" and list(gone.aliases) == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scores_of(client, "big1")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND and "load it again" in str(caught.value.details())
        unload = reward_pb2.UnloadModelRequest(model=selector("big2"), drain_timeout=duration_pb2.Duration())
        await client.admin.UnloadModel(unload)
        await client.load("big1", big[1])
        assert len(await scores_of(client, "big1")) == len(ANSWERS)
