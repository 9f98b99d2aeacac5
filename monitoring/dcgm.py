"""A page as the NVIDIA DCGM exporter shows it, for machines without a GPU: published names and labels, figures made up.

Names, types and labels are those of dcgm-exporter's `default-counters.csv` and of its output on Kubernetes, where `pod` and `namespace`
name who uses the GPU; Prometheus puts them into `exported_pod` and `exported_namespace`, since the exporter's own pod has labels too.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_FAMILIES = {
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer memory used (in MiB).",
    "DCGM_FI_DEV_POWER_USAGE": "Power draw (in W).",
}


def page(pod: str, namespace: str, at: float) -> str:
    """The page at a time in seconds, of a node with one GPU that a pod uses."""
    busy = 55 + 40 * math.sin(at / 25)
    figures = {"DCGM_FI_DEV_GPU_UTIL": round(busy), "DCGM_FI_DEV_FB_USED": 61_440, "DCGM_FI_DEV_POWER_USAGE": round(180 + 5 * busy, 3)}
    labels = (
        'gpu="0",UUID="GPU-00000000-0000-0000-0000-000000000000",pci_bus_id="00000000:04:00.0",device="nvidia0",'
        f'modelName="NVIDIA H100 80GB HBM3",Hostname="gpu-node-0",container="reward",namespace="{namespace}",pod="{pod}"'
    )
    lines = []
    for name, about in _FAMILIES.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name}{{{labels}}} {figures[name]}"]
    return "\n".join(lines) + "\n"


@contextmanager
def exporter(pod: str, namespace: str) -> Iterator[str]:
    """Serves the page while the context is open; gives its host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page(pod, namespace, time.time()).encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
