"""The reward service's Kafka door against its gRPC door: the same requests, the same process, in one run."""
