"""The pods that the operators ask for, checked field by field against Kubernetes' API; there is no cluster here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import tenacity
import urllib3.exceptions
import yaml
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.client import models as k8s
from kubernetes_command import kubernetes_command, outcome, pod_name
from refit_command import RefitFailure, TransientFailure, tasks
from refit_settings import ROOT, Kubernetes, Settings, params_file

VALIDATE = Path(sys.executable).with_name("kubernetes-validate")

CONTEXT: dict[str, Any] = {"run_id": "manual__2026-01-01T00:00:00+00:00", "params": {}, "dag": SimpleNamespace()}
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?")


def settings(**changes: Any) -> Kubernetes:
    stated = yaml.safe_load(params_file().read_text())["execution"]["kubernetes"]
    return Kubernetes.model_validate({**stated, **changes})


def operator(stage: str = "train", part: str | None = "fold-0", keywords: Any = None, **changes: Any) -> Any:
    run = tasks(kubernetes_command(settings(**{"namespace": "refit", **changes})))
    return run.RunStage(task_id=stage, stage=stage, part=part, **(keywords or {}))


def rendered(made: Any) -> dict[str, Any]:
    """The manifest as the API gets it."""
    made.arguments = made.refit_arguments(CONTEXT)
    made.name = pod_name(made.task_id, made.part)
    made.do_xcom_push = False
    instance = SimpleNamespace(dag_id="retrain", task_id=made.task_id, map_index=0, try_number=1)
    pod = made.build_pod_request_obj({**CONTEXT, "ti": instance}, dry_run=True)
    manifest: dict[str, Any] = client().sanitize_for_serialization(pod)
    return manifest


def client() -> ApiClient:
    return ApiClient(Configuration())


def problems(value: Any, kind: str, where: str = "pod") -> Iterator[str]:
    """What of `value` is not as `kind` of the API's OpenAPI description has it: unknown fields, wrong types."""
    if matched := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: expected a list, got {value!r}"
            return
        for number, item in enumerate(value):
            yield from problems(item, matched[1], f"{where}[{number}]")
    elif matched := re.fullmatch(r"dict\[(\w+), (.*)\]", kind):
        if not isinstance(value, dict):
            yield f"{where}: expected a mapping, got {value!r}"
            return
        for key, item in value.items():
            yield from problems(item, matched[2], f"{where}.{key}")
            if where.endswith(("limits", "requests")) and not QUANTITY.fullmatch(item):
                yield f"{where}.{key}: {item!r} is no quantity"
    elif kind in {"str", "int", "bool", "float"}:
        if type(value).__name__ != kind:
            yield f"{where}: expected {kind}, got {value!r}"
    elif kind not in {"object", "datetime"}:
        model = getattr(k8s, kind)
        fields = {json: (name, model.openapi_types[name]) for name, json in model.attribute_map.items()}
        for key, item in value.items():
            if key not in fields:
                yield f"{where}: {kind} has no field {key!r}"
            else:
                yield from problems(item, fields[key][1], f"{where}.{key}")
        try:  # the model's own checks: fields that must be there, values of an enumeration
            model(**{name: value.get(json) for json, (name, _) in fields.items()})
        except ValueError as error:
            yield f"{where}: {error}"


def test_the_check_finds_what_the_api_would_refuse() -> None:
    pod = {"spec": {"containers": [{"name": "a", "imagee": "x", "tty": "yes"}], "tolerations": {}}}
    assert len(list(problems(pod, "V1Pod"))) == 3
    limits = {"spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": "8 GB"}}}]}}
    assert list(problems(limits, "V1Pod")) == ["pod.spec.containers[0].resources.limits.memory: '8 GB' is no quantity"]
    assert list(problems({"spec": {"containers": None}}, "V1Pod"))


CASES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "volume": {"home": "refit-home"},
    "bucket": {"params": "refit-params", "secrets": ["refit-s3"], "service_account": "refit-task"},
    "gpu": {
        "gpus": 2,
        "train": {
            "resources": {"requests": {"cpu": "500m", "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    },
    "template": {"template": "deploy/pod-template.yaml", "pull_secrets": ["registry"], "gpus": 1},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stage", ["ingest", "train"])
def test_every_pod_is_one_and_meets_the_restricted_standard(case: str, stage: str, refit_home: Path) -> None:
    manifest = rendered(operator(stage, **CASES[case]))
    assert list(problems(manifest, "V1Pod")) == []
    spec = manifest["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert not spec.get("hostNetwork")
    assert not {"hostPID", "hostIPC"} & spec.keys()
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {str(refit_home): "home", "/tmp": "tmp", "/dev/shm": "shm"}.items() <= mounted.items()
    assert set(mounted.values()) == {volume["name"] for volume in spec["volumes"]}
    assert container["command"] == ["refit"]
    assert container["args"][:2] == ["stage", stage]
    names = {entry["name"]: entry["value"] for entry in container["env"]}
    assert names["DVC_SITE_CACHE_DIR"] == "/tmp/dvc"
    assert names["REFIT_HOME"] == str(refit_home)
    assert "REFIT_STOP_WITH_STDIN" not in names


def test_home_is_a_claim_or_empty_with_params_from_a_config_map(refit_home: Path) -> None:
    volumes = {volume["name"]: volume for volume in rendered(operator(home="refit-home"))["spec"]["volumes"]}
    assert volumes["home"]["persistentVolumeClaim"] == {"claimName": "refit-home"}
    manifest = rendered(operator(params="refit-params", secrets=["refit-s3"]))
    volumes = {volume["name"]: volume for volume in manifest["spec"]["volumes"]}
    assert volumes["home"]["emptyDir"] == {}
    assert volumes["params"]["configMap"] == {"name": "refit-params"}
    [container] = manifest["spec"]["containers"]
    assert {
        "name": "params",
        "mountPath": f"{refit_home}/params.yaml",
        "subPath": "params.yaml",
        "readOnly": True,
    } in container["volumeMounts"]
    assert container["envFrom"] == [{"secretRef": {"name": "refit-s3"}}]


def test_training_alone_gets_gpus_and_each_image_its_nodes() -> None:
    def container(stage: str) -> dict[str, Any]:
        [found] = rendered(operator(stage, **CASES["gpu"]))["spec"]["containers"]
        return found  # type: ignore[no-any-return]

    assert container("train")["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert container("evaluate")["resources"]["limits"] == {"memory": "16Gi"}
    assert container("ingest")["resources"]["limits"] == {"memory": "8Gi"}
    images = {stage: container(stage)["image"] for stage in ("ingest", "train", "gate")}
    assert images == {"ingest": "refit-data", "train": "refit-train-gpu", "gate": "refit-train-gpu"}
    assert rendered(operator("train", **CASES["gpu"]))["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert not rendered(operator("ingest", **CASES["gpu"]))["spec"].get("nodeSelector")


def test_a_template_adds_and_softens_nothing(tmp_path: Path) -> None:
    manifest = rendered(operator(template="deploy/pod-template.yaml"))
    assert manifest["metadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert "podAntiAffinity" in manifest["spec"]["affinity"]
    soft = yaml.safe_load((ROOT / "deploy/pod-template.yaml").read_text())
    soft["spec"]["securityContext"] = {"runAsUser": 0, "runAsNonRoot": False}
    soft["spec"].update(automountServiceAccountToken=True, hostNetwork=True, hostPID=True)
    soft["spec"]["containers"][0]["securityContext"] = {"privileged": True, "readOnlyRootFilesystem": False}
    (tmp_path / "soft.yaml").write_text(yaml.safe_dump(soft))
    spec = rendered(operator(template=str(tmp_path / "soft.yaml")))["spec"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID"} & spec.keys()
    assert spec["containers"][0]["securityContext"]["privileged"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    with pytest.raises(ValueError, match=r"execution\.kubernetes\.template: .*nowhere\.yaml"):
        operator(template="nowhere.yaml")


FORBIDDEN: dict[str, Any] = {
    "spec.initContainers": [{"name": "a", "image": "x", "securityContext": {"privileged": True}}],
    "spec.containers[1].securityContext.privileged is True": {"privileged": True},
    "spec.containers[1].securityContext.allowPrivilegeEscalation is None": {"capabilities": {"drop": ["ALL"]}},
    "spec.containers[1].securityContext.capabilities.drop is None": {"allowPrivilegeEscalation": False},
    "spec.containers[1].securityContext.capabilities.add": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
    "spec.containers[1].securityContext.runAsUser is 0": {"runAsUser": 0},
    "spec.containers[1].securityContext.seccompProfile.type is 'Unconfined'": {
        "seccompProfile": {"type": "Unconfined"}
    },
    "spec.volumes[0] is a hostPath": {"name": "root", "hostPath": {"path": "/"}},
    "spec.containers[0].ports has hostPort 80": [{"containerPort": 80, "hostPort": 80}],
    "metadata.annotations.container.apparmor.security.beta.kubernetes.io/base is unconfined": "unconfined",
}


@pytest.mark.parametrize("where", FORBIDDEN)
def test_a_template_with_what_the_standard_forbids_is_refused(where: str, tmp_path: Path) -> None:
    pod = yaml.safe_load((ROOT / "deploy/pod-template.yaml").read_text())
    value = FORBIDDEN[where]
    if where.startswith("spec.initContainers"):
        pod["spec"]["initContainers"] = value
    elif where.startswith("spec.containers[1]"):
        pod["spec"]["containers"].append({"name": "b", "image": "x", "securityContext": value})
    elif where.startswith("spec.volumes"):
        pod["spec"]["volumes"] = [value]
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "root", "mountPath": "/host"}]
    elif where.startswith("spec.containers[0]"):
        pod["spec"]["containers"][0]["ports"] = value
    else:
        pod["metadata"]["annotations"]["container.apparmor.security.beta.kubernetes.io/base"] = value
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    with pytest.raises(ValueError, match=r"execution\.kubernetes\.template: expected .*" + re.escape(where)):
        operator(template=str(tmp_path / "pod.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is None, allowed is a mapping"),
        ("[1, 2]", "the file is [1, 2], allowed is a mapping"),
        ("a: [", "YAML in "),
        ("a: 1\n---\nb: 2", "expected a single document in the stream in"),
        ("ä: 1", "invalid continuation byte"),
        ("metadata: {annotations: [a]}", "metadata.annotations is ['a'], allowed is a mapping"),
        ("spec: {volumes: [3]}", "spec.volumes is [3], allowed is a list of mappings"),
        ("spec: {containers: base}", "spec.containers is 'base', allowed is a list of mappings"),
    ],
)
def test_a_template_that_is_no_pod_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"execution\.kubernetes\.template: expected .*" + re.escape(words)):
        operator(template=str(tmp_path / "pod.yaml"))


def test_a_template_may_add_containers_of_the_standard(tmp_path: Path) -> None:
    pod = yaml.safe_load((ROOT / "deploy/pod-template.yaml").read_text())
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    for kind in ("containers", "initContainers"):
        pod["spec"].setdefault(kind, []).append({"name": f"of-{kind.lower()}", "securityContext": restricted})
    pod["spec"]["volumes"] = [{"name": "source", "persistentVolumeClaim": {"claimName": "photos", "readOnly": True}}]
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    spec = rendered(operator(template=str(tmp_path / "pod.yaml")))["spec"]
    assert [container["name"] for container in spec["containers"]] == ["base", "of-containers"]
    assert [container["name"] for container in spec["initContainers"]] == ["of-initcontainers"]
    assert "source" in [volume["name"] for volume in spec["volumes"]]


def expanded(text: str, variables: dict[str, str]) -> str:
    """As the kubelet does it (third_party/forked/golang/expansion of Kubernetes)."""
    read = re.compile(r"\$\$|\$\(([^)]*)\)")
    return read.sub(lambda found: "$" if found[1] is None else variables.get(found[1], found[0]), text)


@hypothesis.settings(max_examples=30)
@given(st.lists(st.sampled_from(["$", "(", ")", "SECRET", "$(SECRET)", "ü", " "])).map("".join))
def test_the_kubelet_gives_arguments_as_they_were_entered(reason: str) -> None:
    run = tasks(kubernetes_command(settings(namespace="refit", secrets=["refit-s3"])))
    made = run.RunCommand(task_id="rollback", arguments=["rollback", f"--reason={reason}"])
    [container] = rendered(made)["spec"]["containers"]
    assert [expanded(text, {"SECRET": "leaked"}) for text in container["args"]] == ["rollback", f"--reason={reason}"]


def test_the_expansion_is_the_kubelet_s() -> None:
    """Cases of its own tests."""
    variables = {"VAR_A": "A", "VAR_B": "B"}
    cases = {
        "$(VAR_A)": "A", "$$(VAR_A)": "$(VAR_A)", "$$$(VAR_A)": "$A", "$$$$(VAR_A)": "$$(VAR_A)", "$VAR_A": "$VAR_A",
        "foo$$(VAR_A)": "foo$(VAR_A)", "$(VAR_A": "$(VAR_A", "$(VAR_A)$(VAR_B)": "AB", "$$": "$",
        "f000-$$VAR_A": "f000-$VAR_A",
    }  # fmt: skip
    assert {text: expanded(text, variables) for text in cases} == cases


def test_shipped_manifests_are_what_the_api_knows() -> None:
    kinds = {"Pod": "V1Pod", "PersistentVolumeClaim": "V1PersistentVolumeClaim", "ServiceAccount": "V1ServiceAccount"}
    found = []
    for name in ("pod-template.yaml", "workspace.yaml"):
        for manifest in yaml.safe_load_all((ROOT / "deploy" / name).read_text()):
            found.append(manifest["kind"])
            assert list(problems(manifest, kinds[manifest["kind"]], manifest["kind"])) == []
    assert sorted(found) == sorted(kinds)


def test_a_pod_ends_soon_after_the_timeout_of_its_task() -> None:
    from datetime import timedelta

    made = operator(keywords={"execution_timeout": timedelta(hours=1)})
    assert rendered(made)["spec"]["activeDeadlineSeconds"] == 3720
    assert made.durable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "expected a PersistentVolumeClaim there, or remote to be set"),
        ({"kubernetes.params": "p", "kubernetes.home": "h"}, "expected null beside kubernetes.home"),
        ({"remote": "s3://b/p", "kubernetes.user": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    execution = yaml.safe_load(params_file().read_text())["execution"] | {"mode": "kubernetes"}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (execution[section] if section else execution)[name] = value
    with pytest.raises(ValueError, match=words):
        Settings.model_validate({"airflow": {}, "execution": execution})


def status(code: int, why: str = "Completed", *, finished_at: datetime | None = None, **more: Any) -> Any:
    terminated = k8s.V1ContainerStateTerminated(exit_code=code, reason=why, finished_at=finished_at)
    state = k8s.V1ContainerState(terminated=terminated)
    one = k8s.V1ContainerStatus(
        name="base", state=state, image="i", image_id="i", ready=False, restart_count=0, last_state=None
    )
    return k8s.V1PodStatus(phase="Failed" if code else "Succeeded", container_statuses=[one], **more)


class Cluster:
    """Stands in for the pods' side: what `execute` of the provider does between asking for a pod and its end."""

    def __init__(self, status: Any, log: list[str] | Exception) -> None:
        self.status, self.log = status, log

    def read_pod_logs(self, **_: Any) -> list[bytes]:
        if isinstance(self.log, Exception):
            raise self.log
        return [line.encode() for line in self.log]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def call(status: Any, log: list[str] | Exception, error: Exception | None = None) -> Any:
        made = operator()
        made.pod_manager = Cluster(status, log)

        def execute_sync(context: Any) -> None:
            assert made.do_xcom_push is False, "no sidecar"
            if error is not None:
                raise error
            made.cleanup(None, SimpleNamespace(status=status, metadata=None) if status else None, context=context)

        made.execute_sync = execute_sync
        monkeypatch.setattr(type(made).__mro__[3], "cleanup", lambda *_, **__: None)
        instance = SimpleNamespace(dag_id="retrain", task_id="train", map_index=0, try_number=1)
        token = ExecutorSafeguard.tracker.set(made)
        try:
            return made.execute({**CONTEXT, "ti": instance})
        finally:
            ExecutorSafeguard.tracker.reset(token)
            assert made.do_xcom_push is True, "Airflow keeps the result"

    return call


def test_the_result_is_the_last_object_in_the_log(run: Callable[..., Any]) -> None:
    assert run(status(0), ["working", '{"parts": ["a"]}', "warning: on standard error"]) == {"parts": ["a"]}
    assert run(status(0), ["Done."]) is None


@pytest.mark.parametrize(
    ("ended", "log", "expected", "words"),
    [
        (status(99), ["nothing"], AirflowSkipException, "Nothing new"),
        (status(75), ["error: Busy."], TransientFailure, "status 75: error: Busy."),
        (status(65), ["error: Too few images.", "x"], RefitFailure, "status 65: error: Too few images."),
        (status(137, "OOMKilled"), [], TransientFailure, "ran out of memory"),
        (status(143, "Error", reason="DeadlineExceeded"), ["step 9"], RefitFailure, "had all of its task's time"),
        (k8s.V1PodStatus(phase="Failed", reason="DeadlineExceeded"), [], RefitFailure, "had all of its task's time"),
        (k8s.V1PodStatus(phase="Failed", reason="Evicted"), [], TransientFailure, "Evicted"),
        (None, [], TransientFailure, "nobody knows how it ended"),
        (status(0), ApiException(500, "down"), TransientFailure, "The log of the pod"),
    ],
)
def test_how_a_pod_ends_means_what_a_process_means(
    ended: Any, log: Any, expected: type[Exception], words: str, run: Callable[..., Any]
) -> None:
    with pytest.raises(Exception, match=words) as caught:
        run(ended, log)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiException(403, "Forbidden"), RefitFailure),
        (ApiException(422, "Invalid"), RefitFailure),
        (ApiException(503, "Unavailable"), TransientFailure),
        (ApiException(429, "Slow down"), TransientFailure),
    ],
)
def test_the_api_s_refusals(error: Exception, expected: type[Exception], run: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="Kubernetes says") as caught:
        run(None, [], error)
    assert type(caught.value) is expected


OUTAGE = urllib3.exceptions.MaxRetryError(None, "/api/v1", "Connection refused")  # type: ignore[arg-type]


class Api:
    """Stands in for Kubernetes' API, with what is in one namespace; the provider's own code talks to it."""

    def __init__(self, *statuses: Any, old: k8s.V1Pod | None = None) -> None:
        """The new pod has each of `statuses` once and then the last one; an exception is an answer, too.

        `old`: a pod that an earlier attempt has left, and that is slow to go.
        """
        self.statuses, self.old = list(statuses), old
        self.pods = [old] if old else []
        self.deleted: list[str] = []
        self.api_client = client()

    def create_namespaced_pod(self, body: dict[str, Any], **_: Any) -> k8s.V1Pod:
        metadata = k8s.V1ObjectMeta(**{key: body["metadata"][key] for key in ("name", "namespace", "labels")})
        containers = [k8s.V1Container(name=one["name"]) for one in body["spec"]["containers"]]
        pending = k8s.V1PodStatus(phase="Pending")
        self.pods.append(k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=containers), status=pending))
        return self.pods[-1]

    def list_namespaced_pod(self, **_: Any) -> k8s.V1PodList:
        return k8s.V1PodList(items=list(self.pods))

    def read_namespaced_pod(self, name: str, namespace: str) -> k8s.V1Pod:
        answer = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(answer, Exception):
            raise answer
        self.pods[-1].status = answer
        return self.pods[-1]

    def read_namespaced_pod_log(self, **_: Any) -> Any:
        return SimpleNamespace(stream=lambda **_: iter([b"error: what refit said\n"]))

    def list_namespaced_event(self, **_: Any) -> Any:
        return SimpleNamespace(items=[], metadata=None)

    def patch_namespaced_pod(self, **_: Any) -> None:
        pass

    def delete_namespaced_pod(self, name: str, *_: Any, **__: Any) -> None:
        self.deleted.append(name)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's retries of an API that is away do not wait."""
    for retried in (PodManager.read_pod, PodManager.read_pod_logs, KubernetesPodOperator.find_pod):
        monkeypatch.setattr(retried.retry, "wait", tenacity.wait_none())


def execute(api: Api, state: dict[str, Any] | None = None, **changes: Any) -> Any:
    made = operator(start_seconds=1, **changes)
    made.client = api
    made.startup_check_interval_seconds = 0.1
    made.hook = SimpleNamespace(is_in_cluster=False, get_pod=lambda *_: api.old)
    instance = SimpleNamespace(dag_id="retrain", task_id="train", map_index=0, try_number=2, xcom_push=lambda **_: None)
    store = SimpleNamespace(get=lambda _: state, set=lambda *_: None)
    token = ExecutorSafeguard.tracker.set(made)
    try:
        return made.execute({**CONTEXT, "ti": instance, "task_state_store": store})
    finally:
        ExecutorSafeguard.tracker.reset(token)


@pytest.mark.usefixtures("no_waiting")
def test_a_cluster_that_is_away_is_asked_again_later() -> None:
    with pytest.raises(TransientFailure, match=r"Kubernetes cannot be reached: .*Connection refused"):
        execute(Api(OUTAGE))
    # Away only when the container has ended and the end of its log is read once more.
    done = status(65, finished_at=datetime(2026, 1, 1, tzinfo=UTC))
    api = Api(done)
    log, calls = api.read_namespaced_pod_log, iter([False, True])

    def read_namespaced_pod_log(**options: Any) -> Any:
        if next(calls):
            api.statuses = [OUTAGE]
        return log(**options)

    api.read_namespaced_pod_log = read_namespaced_pod_log  # type: ignore[method-assign]
    with pytest.raises(TransientFailure, match=r"The log of the pod, .* cannot be read: .*Connection refused"):
        execute(api)


def test_an_earlier_pod_that_is_slow_to_go_is_waited_for() -> None:
    metadata = k8s.V1ObjectMeta(name="old", namespace="refit", labels={"try_number": "1"})
    api = Api(status(0), old=k8s.V1Pod(metadata=metadata, status=status(0)))
    with pytest.raises(TransientFailure, match="An earlier pod of this task is still being removed"):
        execute(api, {"name": "old", "namespace": "refit"})
    assert api.deleted == ["old"], "the new one works on, and the retry finds it"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("CreateContainerConfigError", RefitFailure),
        ("ErrImageNeverPull", RefitFailure),
        ("ContainerCreating", TransientFailure),
    ],
)
def test_what_keeps_a_pod_from_starting(reason: str, expected: type[Exception]) -> None:
    state = k8s.V1ContainerState(waiting=k8s.V1ContainerStateWaiting(reason=reason, message='secret "s" not found'))
    one = k8s.V1ContainerStatus(name="base", state=state, image="i", image_id="i", ready=False, restart_count=0)
    scheduled = k8s.V1PodCondition(type="PodScheduled", status="True")
    api = Api(k8s.V1PodStatus(phase="Pending", container_statuses=[one], conditions=[scheduled]))
    with pytest.raises(
        expected, match="did not start within 1 s" if expected is TransientFailure else reason
    ) as caught:
        execute(api)
    assert expected is TransientFailure or 'secret "s" not found' in str(caught.value)
    assert api.deleted


def test_a_running_container_has_no_outcome() -> None:
    state = k8s.V1ContainerState(running=k8s.V1ContainerStateRunning())
    one = k8s.V1ContainerStatus(name="base", state=state, image="i", image_id="i", ready=True, restart_count=0)
    assert outcome(k8s.V1PodStatus(container_statuses=[one]), "base", ["x"]) is None


@pytest.mark.parametrize(
    ("task", "part", "name"), [("train", "fold-0", "refit-train-fold-0"), ("a.B_c", None, "refit-a-b-c")]
)
def test_pods_are_named_after_their_task(task: str, part: str | None, name: str) -> None:
    assert pod_name(task, part) == name
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", pod_name("x" * 200 + "-", "ü"))


def test_pods_and_manifests_keep_to_the_published_schema(tmp_path: Path) -> None:
    """Kubernetes' own OpenAPI description, with unknown fields refused."""
    for number, (stage, case) in enumerate((stage, case) for stage in ("ingest", "train") for case in CASES):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(rendered(operator(stage, **CASES[case]))))
    paths = [*sorted(tmp_path.glob("*.yaml")), ROOT / "deploy/pod-template.yaml", ROOT / "deploy/workspace.yaml"]
    command = [str(VALIDATE), "--strict", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "wrong.yaml").write_text(
        (ROOT / "deploy/pod-template.yaml").read_text().replace("affinity:", "afinity:")
    )
    command = [str(VALIDATE), "--strict", str(tmp_path / "wrong.yaml")]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
