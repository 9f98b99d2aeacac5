"""Kafka for services: transactional workers, events, followers. The parts are in the `kafka_…` modules beside this one."""

from assay_kit.kafka_access import KafkaAccess
from assay_kit.kafka_batches import Answer, Handler
from assay_kit.kafka_connection import KafkaConnection, end_offsets, ensure_topics
from assay_kit.kafka_follower import TopicFollower, collect
from assay_kit.kafka_producer import EventProducer
from assay_kit.kafka_records import MessageTooLarge, Output, Record, Rejected
from assay_kit.kafka_worker import TransactionalWorker

__all__ = [
    "Answer",
    "EventProducer",
    "Handler",
    "KafkaAccess",
    "KafkaConnection",
    "MessageTooLarge",
    "Output",
    "Record",
    "Rejected",
    "TopicFollower",
    "TransactionalWorker",
    "collect",
    "end_offsets",
    "ensure_topics",
]
