"""The test node does with a pod what a kubelet does: what the tests of the installed chart rest on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from cluster.kubernetes_api import KubernetesApi, Object, condition, until
from cluster.running_node import SELECTOR, TOLERATION, RunningNode

_ANSWER = """
import http.server, os
class Door(http.server.BaseHTTPRequestHandler):
    sick = False
    def do_GET(self):
        if self.path == "/sicken": Door.sick = True
        self.send_response(500 if Door.sick and self.path == "/alive" else 200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Door).serve_forever()
"""
_POLITE = """
import signal, sys, time
def leave(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
while True: time.sleep(0.1)
"""
_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True: time.sleep(0.1)
"""
_CALL = (
    "import socket, urllib.request; print(socket.gethostbyname('{name}'), urllib.request.urlopen('http://{name}:8000/').read().decode())"
)


def _pod(
    name: str, code: str, *, labels: dict[str, str] | None = None, policy: str = "Always", grace: int = 30, **container: Any
) -> Object:
    secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    main = {"name": "main", "image": "test", "command": ["python", "-c", code], "securityContext": secure}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "nodeSelector": SELECTOR,
            "tolerations": [TOLERATION],
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": grace,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [main | {"volumeMounts": [{"name": "data", "mountPath": "/data"}]} | container],
        },
    }


class _Pods:
    def __init__(self, api: KubernetesApi, node: RunningNode, namespace: str) -> None:
        self.api, self.node, self.path = api, node, f"/api/v1/namespaces/{namespace}/pods"
        self.namespace = namespace

    def start(self, pod: Object) -> None:
        self.api.create(self.path, pod)

    def get(self, name: str) -> Object:
        return self.api.get(f"{self.path}/{name}")

    def ready(self, name: str) -> Object:
        until(f"pod {name} is ready", lambda: condition(self.get(name), "Ready") == "True", timeout_s=30)
        return self.get(name)

    def restarts(self, name: str) -> int:
        return int(self.get(name)["status"]["containerStatuses"][0]["restartCount"])

    def output(self, name: str) -> str:
        """Waits until the pod has ended and gives what it wrote."""
        until(f"pod {name} ends", lambda: self.get(name)["status"]["phase"] in ("Succeeded", "Failed"), timeout_s=30)
        return self.node.log_of(self.get(name))


@pytest.fixture
def pods(api: KubernetesApi, node: RunningNode, namespace: str) -> _Pods:
    return _Pods(api, node, namespace)


def test_a_pod_has_its_variables_volumes_user_and_process_numbers(pods: _Pods) -> None:
    base = f"/api/v1/namespaces/{pods.namespace}"
    pods.api.create(f"{base}/configmaps", {"metadata": {"name": "settings"}, "data": {"COLOUR": "green", "page": "text"}})
    pods.api.create(f"{base}/secrets", {"metadata": {"name": "key"}, "stringData": {"password": "hush"}})
    code = (
        "import os; e = os.environ; print(e['COLOUR'], e['PASSWORD'], e['WHO'], e['BOTH'], open('/settings/page').read(), os.getuid(),"
        " os.getpid(), e['IP'] == open('/etc/hosts').read().split()[-2]); open('/data/x', 'w').close(); open('/forbidden', 'w')"
    )
    pod = _pod(
        "one",
        code,
        policy="Never",
        envFrom=[{"configMapRef": {"name": "settings"}}],
        env=[
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['who']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "BOTH", "value": "$(WHO)-$(COLOUR)-$$(WHO)"},
        ],
        labels={"who": "me"},
    )
    pod["spec"]["volumes"].append({"name": "settings", "configMap": {"name": "settings"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "settings", "mountPath": "/settings"})
    pods.start(pod)
    output = pods.output("one")
    assert "green hush me me-green-$(WHO) text 10001 1 True\n" in output
    assert "Read-only file system: '/forbidden'" in output
    assert pods.get("one")["status"]["phase"] == "Failed"


def test_a_service_name_gives_the_pods_that_are_ready_and_no_others(pods: _Pods) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 8000}]}
    pods.api.create(f"/api/v1/namespaces/{pods.namespace}/services", {"metadata": {"name": "web"}, "spec": spec | {"clusterIP": "None"}})
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    pods.start(_pod("good", _ANSWER, labels={"app": "web"}, readinessProbe={"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}))
    pods.start(_pod("bad", _ANSWER, labels={"app": "web"}, readinessProbe=never))
    good = pods.ready("good")
    for number, name in enumerate(("web", f"web.{pods.namespace}.svc", f"web.{pods.namespace}.svc.cluster.local")):
        pods.start(_pod(f"caller-{number}", _CALL.format(name=name), policy="OnFailure"))
    for number in range(3):
        assert pods.output(f"caller-{number}").splitlines()[-1] == f"{good['status']['podIP']} good"
    pods.start(_pod("lost", _CALL.format(name=f"nowhere.{pods.namespace}.svc"), policy="Never"))
    assert "gaierror" in pods.output("lost")


def test_a_container_that_dies_or_fails_its_liveness_probe_is_started_again(pods: _Pods) -> None:
    alive = {"httpGet": {"path": "/alive", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
    pods.start(_pod("web", _ANSWER, livenessProbe=alive, startupProbe={"tcpSocket": {"port": 8000}, "periodSeconds": 1}))
    first = pods.ready("web")
    pods.node.kill(first)
    until("it is started again", lambda: pods.restarts("web") == 1)
    again = pods.ready("web")
    assert again["status"]["podIP"] == first["status"]["podIP"]
    assert again["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137
    httpx.get(f"http://{first['status']['podIP']}:8000/sicken")
    until("it is started again", lambda: pods.restarts("web") == 2)
    pods.ready("web")


def test_a_pod_that_is_asked_to_go_is_told_first_and_killed_when_its_grace_is_over(pods: _Pods) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo told > /data/told; sleep 1"]}}}
    pods.start(_pod("polite", _POLITE, lifecycle=hook))
    pods.start(_pod("stubborn", _STUBBORN, grace=2))
    for name in ("polite", "stubborn"):
        pods.ready(name)
        pods.api.delete(f"{pods.path}/{name}")
    until("both have gone", lambda: not pods.api.list(pods.path), timeout_s=30)
    ends = {end["pod"]: end for end in pods.node.ends(pods.namespace)}
    assert (ends["polite"]["killed"], ends["polite"]["codes"]) == ([], {"main": 0})
    assert 1 <= ends["polite"]["seconds"] < 30
    assert (ends["stubborn"]["killed"], ends["stubborn"]["codes"]) == (["main"], {"main": 137})
    assert ends["stubborn"]["seconds"] >= 2
