"""What is served over HTTP: OpenRLHF's POST /get_reward and vLLM's POST /classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.reward.v1 import reward_pb2
from assay_kit.errors import InvalidArgument
from assay_kit.tls import https_context
from assay_reward.doors.http_bodies import Classify, GetReward, classify_body, parsed, rewards_body
from assay_reward.doors.http_server import Answer, HttpLimits, HttpServer, Post
from assay_reward.doors.texts import Scores, Words, score_texts
from assay_reward.scoring import Scoring
from assay_reward.settings import RewardSettings


def http_door(settings: RewardSettings, scoring: Scoring) -> HttpServer | None:
    """The server, where it is asked for; over HTTPS where the service has a certificate.

    Raises:
        CertificateError: TLS is asked for with files of no use.
    """
    if settings.reward_http_port is None:
        return None
    return HttpServer(
        host=settings.reward_http_host,
        port=settings.reward_http_port,
        limits=HttpLimits(
            body_bytes=settings.grpc_max_message_bytes,
            held_bytes=settings.reward_queue_mib * 1024 * 1024,
            seconds=settings.reward_http_timeout_seconds,
            drain_seconds=settings.drain_seconds,
        ),
        routes=routes(scoring),
        tls=None if settings.tls_dir is None else https_context(settings.tls_dir),
    )


def routes(scoring: Scoring) -> dict[str, Answer]:
    """What is posted where."""

    async def get_reward(post: Post) -> dict[str, Any]:
        _check_query(post.query, ("model", "revision"))
        asked = parsed(GetReward, post.body)
        model, revision = post.query.get("model", ""), post.query.get("revision", "")
        return rewards_body(await scored(post, asked.query, Words(item="query", model="model", revision="revision"), model, revision))

    async def classify(post: Post) -> dict[str, Any]:
        _check_query(post.query, ())
        asked = parsed(Classify, post.body)
        scores = await scored(post, asked.input, Words(item="input", model="model", revision="model"), asked.model, "")
        return classify_body(scores, use_activation=asked.use_activation)

    async def scored(post: Post, texts: list[str], words: Words, model: str, revision: str) -> Scores:
        items = [reward_pb2.ScoreItem(raw_text=text) for text in texts]
        return await score_texts(
            scoring, items, model=model, revision=revision, words=words, door="http", caller=post.caller, deadline=post.deadline
        )

    return {"/get_reward": get_reward, "/classify": classify}


def _check_query(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    """A parameter that is not understood may change what is meant, so it is not passed over."""
    unknown = sorted(set(query) - set(known))
    if unknown:
        raise InvalidArgument(unknown[0], f"is no parameter of this URL; {', '.join(known) or 'none'} is")
