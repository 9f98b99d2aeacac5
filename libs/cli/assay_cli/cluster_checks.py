"""What `assay doctor --cluster` looks at: an installed release, from outside by the API server and from within by its own pods."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from assay_cli.checks import Finding
from assay_cli.kubectl import Kubectl, KubectlFailed, Object, condition

COMPONENT = "app.kubernetes.io/component"
SERVICES = ("cleaning", "reward", "policy", "training", "evaluation")
DAYS_LEFT_WANTED = 14
_ORDINARY = {"cpu", "memory", "ephemeral-storage"}
_WAITING = {
    "ImagePullBackOff": "Is the image in the registry, and may the cluster pull it (global.imageRegistry, global.imagePullSecrets)?",
    "ErrImagePull": "Is the image in the registry, and may the cluster pull it (global.imageRegistry, global.imagePullSecrets)?",
    "CreateContainerConfigError": "A secret or ConfigMap that the pod names is not there.",
}
_EXITS = {2: "A setting is wrong: the last line of the log names it.", 137: "It was killed: more memory (resources.limits.memory)?"}


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is looked at."""

    kubectl: Kubectl
    name: str
    prometheus: str = ""
    """Address of a Prometheus that should scrape it; empty asks none."""
    inside: bool = True
    """Whether pods are asked too, by `kubectl exec`."""

    def listed(self, kind: str) -> list[Object]:
        """The release's objects of a kind."""
        return self.kubectl.listed(kind, f"app.kubernetes.io/instance={self.name}")


def check_release(release: Release) -> list[Finding]:
    """Everything, in the order in which one thing stands on another."""
    try:
        workloads = [one for kind in ("deployments", "statefulsets") for one in release.listed(kind) if _component(one) in SERVICES]
    except KubectlFailed as error:
        remedy = "`kubectl config current-context` and `kubectl auth can-i get pods` say who asks where."
        return [Finding(what="cluster", good=False, found=str(error), remedy=remedy)]
    if not workloads:
        found = f"no release {release.name} in namespace {release.kubectl.namespace}"
        return [
            Finding(
                what="release", good=False, found=found, remedy="`helm list --all-namespaces` lists them; see --release and --namespace."
            )
        ]
    findings: list[Finding] = []
    for check in (check_workloads, check_services, check_claims, check_certificates, check_kafka):
        try:
            findings += check(release)
        except KubectlFailed as error:
            remedy = "Ask for the right to look at it, or let somebody look who has it."
            findings.append(Finding(what=check.__name__.removeprefix("check_"), good=False, found=str(error), remedy=remedy))
    if release.inside:
        findings += check_inside(release)
    if release.prometheus:
        findings += check_prometheus(release, sorted(_component(one) for one in workloads))
    return findings


def _component(thing: Object) -> str:
    return str(thing["metadata"].get("labels", {}).get(COMPONENT, ""))


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def check_workloads(release: Release) -> Iterator[Finding]:
    """As many pods are ready as are wanted, and of the newest revision; else why not."""
    pods = release.listed("pods")
    for workload in [*release.listed("deployments"), *release.listed("statefulsets")]:
        component, status = _component(workload), workload.get("status", {})
        wanted, ready = int(workload["spec"].get("replicas", 1)), int(status.get("readyReplicas", 0))
        reasons = [reason for pod in pods if _component(pod) == component for reason in _trouble(pod)]
        good = ready >= wanted and not reasons and status.get("observedGeneration") == workload["metadata"]["generation"]
        found, remedies = (
            f"{ready} of {wanted} ready",
            [f"kubectl --namespace {release.kubectl.namespace} describe pods -l {COMPONENT}={component}"],
        )
        if reasons:
            found += "; " + "; ".join(sorted({what for what, _ in reasons}))
            remedies = sorted({remedy for _, remedy in reasons})
        yield Finding(what=f"{component} pods", good=good, found=found, remedy=" ".join(remedies))


def _trouble(pod: Object) -> Iterator[tuple[str, str]]:
    """What holds a pod up, and what to do about it."""
    if pod["metadata"].get("deletionTimestamp"):
        return
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        asks = sorted(
            {name for one in pod["spec"]["containers"] for name in one.get("resources", {}).get("limits", {}) if name not in _ORDINARY}
        )
        remedy = "Has a node pool room for it, and does the component tolerate its taints (placement, accelerator.tolerations)?"
        if asks:
            remedy = f"It asks for {', '.join(asks)}: is a node of that pool there, with the device plugin running? " + remedy
        yield f"{_name(pod)} has no node: {scheduled.get('message', '')}", remedy
    for status in [*pod.get("status", {}).get("initContainerStatuses", []), *pod.get("status", {}).get("containerStatuses", [])]:
        waiting = status.get("state", {}).get("waiting", {}).get("reason", "")
        if waiting in _WAITING:
            yield f"{_name(pod)}: {waiting}", _WAITING[waiting]
        elif waiting == "CrashLoopBackOff":
            code = status.get("lastState", {}).get("terminated", {}).get("exitCode", "?")
            remedy = f"{_EXITS.get(code, 'Its log says why.')} kubectl logs {_name(pod)} --previous"
            yield f"{_name(pod)} ends with exit code {code} again and again", remedy


def check_services(release: Release) -> Iterator[Finding]:
    """Each Service has ready pods behind its name; the headless one is what callers resolve."""
    slices = release.kubectl.listed("endpointslices")
    for service in release.listed("services"):
        behind = [one for one in slices if one["metadata"].get("labels", {}).get("kubernetes.io/service-name") == _name(service)]
        ready = sum(end.get("conditions", {}).get("ready") is not False for one in behind for end in one.get("endpoints") or [])
        remedy = f"No ready pod has the labels it selects: look at the {_component(service)} pods."
        yield Finding(what=f"service {_name(service)}", good=ready > 0, found=f"{ready} ready", remedy=remedy)


def check_claims(release: Release) -> Iterator[Finding]:
    """Each claim has its volume."""
    for claim in release.listed("persistentvolumeclaims"):
        phase = str(claim.get("status", {}).get("phase", "Pending"))
        storage = claim["spec"].get("storageClassName") or "the cluster's default class"
        modes = ", ".join(claim["spec"]["accessModes"])
        remedy = f"Does {storage} give {modes}? `kubectl describe pvc {_name(claim)}` says what it waits for."
        yield Finding(what=f"claim {_name(claim)}", good=phase == "Bound", found=phase, remedy=remedy)


def check_certificates(release: Release) -> Iterator[Finding]:
    """Each certificate is there and has time to go."""
    for certificate in release.listed("certificates.cert-manager.io"):
        remedy = f"`kubectl describe certificate {_name(certificate)}`; is cert-manager there, and the issuer ready?"
        ready, ends = condition(certificate, "Ready"), certificate.get("status", {}).get("notAfter", "")
        if ready.get("status") != "True" or not ends:
            found = str(ready.get("message") or "nobody has made it")
            yield Finding(what=f"certificate {_name(certificate)}", good=False, found=found, remedy=remedy)
            continue
        days = (datetime.fromisoformat(ends) - datetime.now(UTC)).days
        found = f"good for {days} days"
        yield Finding(what=f"certificate {_name(certificate)}", good=days >= DAYS_LEFT_WANTED, found=found, remedy=remedy)


def check_kafka(release: Release) -> Iterator[Finding]:
    """Strimzi has made the topics and users."""
    for kind, what in (("kafkatopics.kafka.strimzi.io", "topics"), ("kafkausers.kafka.strimzi.io", "users")):
        things = release.listed(kind)
        amiss = {
            _name(one): str(condition(one, "Ready").get("message") or "not yet")
            for one in things
            if condition(one, "Ready").get("status") != "True"
        }
        found = "; ".join(f"{name}: {why}" for name, why in sorted(amiss.items())) or f"all {len(things)} are ready"
        remedy = (
            "Does Strimzi's entity operator run for this cluster (kafka.strimzi.cluster) in this namespace? Its log says what it refuses."
        )
        if things:
            yield Finding(what=f"Kafka {what}", good=not amiss, found=found, remedy=remedy)


def check_inside(release: Release) -> list[Finding]:
    """What one ready pod of each component sees itself."""
    one_each: dict[str, Object] = {}
    for pod in release.listed("pods"):
        if _component(pod) in SERVICES and condition(pod, "Ready").get("status") == "True" and not pod["metadata"].get("deletionTimestamp"):
            one_each.setdefault(_component(pod), pod)
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        answers = pool.map(lambda item: _seen_by(release, *item), sorted(one_each.items()))
    return [finding for answer in answers for finding in answer]


def _seen_by(release: Release, component: str, pod: Object) -> list[Finding]:
    container = pod["spec"]["containers"][0]
    device = set(container.get("resources", {}).get("limits", {})) - _ORDINARY or pod["spec"].get("resourceClaims")
    command = ["python", "-m", "assay_kit.self_check", component, *(["--device"] if device else [])]
    try:
        seen = json.loads(release.kubectl.within(_name(pod), command, str(container["name"])).strip().splitlines()[-1])
    except (KubectlFailed, ValueError, IndexError) as error:
        remedy = "Whoever asks needs the right to create pods/exec here; --outside looks without it."
        return [Finding(what=f"within {component}", good=False, found=f"{_name(pod)}: {error}", remedy=remedy)]
    return [Finding(what=f"{component}: {one['what']}", good=one["good"], found=one["found"], remedy=one["remedy"]) for one in seen]


def check_prometheus(release: Release, components: list[str]) -> list[Finding]:
    """Prometheus has a target that is up for each component."""
    url = f"{release.prometheus.rstrip('/')}/api/v1/query?" + urllib.parse.urlencode(
        {"query": f'up{{namespace="{release.kubectl.namespace}"}}'}
    )
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            answer: dict[str, Any] = json.load(page)
    except (OSError, ValueError) as error:
        remedy = "From outside the cluster: kubectl port-forward svc/prometheus-operated 9090:9090, and --prometheus http://localhost:9090"
        return [Finding(what="Prometheus", good=False, found=f"{release.prometheus}: {error}", remedy=remedy)]
    up = {str(one["metric"].get("job", "")): one["value"][1] == "1" for one in answer["data"]["result"]}
    findings = []
    for component in components:
        states = [is_up for job, is_up in up.items() if job.endswith(f"-{component}")]
        found = "scraped" if any(states) else "its target is down" if states else "Prometheus has no target for it"
        remedy = "Does Prometheus take these monitors (monitoring.*), and may it reach port 9090 (networkPolicy.prometheus)?"
        findings.append(Finding(what=f"metrics of {component}", good=any(states), found=found, remedy=remedy))
    return findings
