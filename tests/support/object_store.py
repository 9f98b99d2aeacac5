"""An S3 object store: a server in a thread that keeps to the published contract, spoken to by the real client over loopback."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import boto3
import fsspec
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer


@contextlib.contextmanager
def bucket() -> Iterator[str]:
    """An empty bucket, as the environment of this process and its children tells where and as whom; gives its s3:// URI."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").clear_instance_cache()
        name = f"assay-{uuid.uuid4().hex[:12]}"
        boto3.client("s3").create_bucket(Bucket=name)
        try:
            yield f"s3://{name}"
        finally:
            fsspec.filesystem("s3").clear_instance_cache()
            server.stop()
