"""`refit` in a pod: one for each task, which a retry finds again if only the worker has died.

The pod meets the *restricted* Pod Security Standard: a user without rights, a read-only root, no capabilities, no
token of its service account. There is no sidecar for the result: Airflow's needs an image and a shell of its own, and
a pod's termination message ends after 4096 bytes. The result is the last line of the log that is a JSON object, read
once more when the container has ended, so that a broken log connection loses nothing. A pod's log does not tell
standard output from error; `refit` prints no other line that is a JSON object.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.sdk.exceptions import AirflowException
from docker_command import ENVIRONMENT, SCRATCH
from pod_standard import violations
from process_death import end_with_parent
from refit_command import ERROR, Command, Outcome, RefitFailure, TransientFailure, image_of, json_object
from refit_settings import ROOT, Kubernetes, refit_home
from stage_graph import TRAINING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk import Context

TAIL_LINES = 200  # of the log, in which result and error line are looked for
DEADLINE_MARGIN = 120  # seconds after a task's timeout at which the cluster ends its pod, worker or not
MISCONFIGURED = "CreateContainerConfigError"  # a Secret or ConfigMap that is not there, or lacks a key
# No retry cures these.
FOREVER = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", MISCONFIGURED}


def kubernetes_command(settings: Kubernetes) -> type[KubernetesPodOperator]:
    """A subclass of `Command` and of Airflow's `KubernetesPodOperator` for these settings."""
    from airflow.providers.cncf.kubernetes.operators.pod import FoundMoreThanOnePodFailure, KubernetesPodOperator
    from airflow.providers.cncf.kubernetes.utils.pod_manager import (
        KubernetesApiException,
        PodLaunchFailedException,
        PodLaunchTimeoutException,
    )
    from kubernetes.client import ApiException
    from kubernetes.client import models as k8s
    from urllib3.exceptions import HTTPError

    base = template(settings)

    class KubernetesCommand(Command, KubernetesPodOperator):
        """Run `refit` with `refit_arguments()` in a pod and log what it prints."""

        _outcome: Outcome | None = None
        _unread: str | None = None  # why the log could not be read

        def __init__(self, *, stage: str | None = None, **kwargs: Any) -> None:
            kind = image_of(stage)
            asked = getattr(settings, kind)
            limits = dict(asked.resources.limits)
            if stage in TRAINING and settings.gpus:
                limits[settings.gpu_resource] = str(settings.gpus)
            kwargs.setdefault("do_xcom_push", True)
            super().__init__(
                kubernetes_conn_id=settings.connection,
                namespace=settings.namespace,
                image=getattr(settings.images, kind),
                image_pull_policy=settings.pull_policy,
                image_pull_secrets=[k8s.V1LocalObjectReference(name) for name in settings.pull_secrets],
                cmds=["refit"],
                pod_template_file=base,
                full_pod_spec=k8s.V1Pod(
                    spec=k8s.V1PodSpec(
                        containers=[],
                        share_process_namespace=True,  # its first process reaps what stages leave behind
                    )
                ),
                labels={"app.kubernetes.io/name": "refit", "app.kubernetes.io/component": stage or "command"},
                env_vars=environment(),
                env_from=[
                    k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name)) for name in settings.secrets
                ],
                volumes=[
                    home_volume(settings, k8s),
                    k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit=settings.scratch)),
                    k8s.V1Volume(
                        name="shm",
                        empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=settings.shared_memory),
                    ),
                    *params_volume(settings, k8s),
                ],
                volume_mounts=[
                    k8s.V1VolumeMount(name="home", mount_path=str(refit_home())),
                    k8s.V1VolumeMount(name="tmp", mount_path=SCRATCH),
                    k8s.V1VolumeMount(name="shm", mount_path="/dev/shm"),  # noqa: S108 - the pod's own
                    *params_mount(settings, k8s),
                ],
                container_resources=k8s.V1ResourceRequirements(requests=dict(asked.resources.requests), limits=limits),
                node_selector=dict(asked.node_selector),
                tolerations=[dict(toleration) for toleration in asked.tolerations],
                service_account_name=settings.service_account,
                automount_service_account_token=False,
                security_context=k8s.V1PodSecurityContext(
                    run_as_non_root=True,
                    run_as_user=settings.user,
                    run_as_group=settings.user,
                    fs_group=settings.user,
                    fs_group_change_policy="OnRootMismatch",
                    seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
                ),
                container_security_context=k8s.V1SecurityContext(
                    allow_privilege_escalation=False,
                    privileged=False,
                    read_only_root_filesystem=True,
                    capabilities=k8s.V1Capabilities(drop=["ALL"]),
                ),
                durable=True,
                on_finish_action="delete_pod",
                startup_timeout_seconds=settings.start_seconds,
                termination_grace_period=settings.stop_seconds,
                container_name_log_prefix_enabled=False,
                log_events_on_failure=True,
                log_pod_spec_on_failure=False,
                **kwargs,
            )
            self.stage = stage
            if self.execution_timeout is not None:
                self.active_deadline_seconds = int(self.execution_timeout.total_seconds()) + DEADLINE_MARGIN

        def execute(self, context: Context) -> Any:
            end_with_parent()
            self.arguments = self.refit_arguments(context)
            self.name = pod_name(context["ti"].task_id, self.part)
            self.log.info("Running refit %s in a pod of %s", self.arguments, self.image)
            pushes, self.do_xcom_push = self.do_xcom_push, False  # to the provider it means the sidecar
            try:
                super().execute(context)
            except PodLaunchTimeoutException as error:
                raise TransientFailure(f"The pod did not start within {settings.start_seconds} s: {error}") from error
            except PodLaunchFailedException as error:
                kind = RefitFailure if any(reason in str(error) for reason in FOREVER) else TransientFailure
                raise kind(f"The pod cannot start: {error} Fix: correct execution.kubernetes.") from error
            except ApiException as error:
                lasting = error.status is not None and 400 <= error.status < 500 and error.status not in {404, 409, 429}
                kind = RefitFailure if lasting else TransientFailure
                raise kind(f"Kubernetes says {error.status} {error.reason}: {error.body}") from error
            except (HTTPError, KubernetesApiException) as error:  # the latter is how the provider raises the former
                raise TransientFailure(f"Kubernetes cannot be reached: {error}") from error
            except FoundMoreThanOnePodFailure as error:  # one of an earlier attempt ends yet
                raise TransientFailure(f"An earlier pod of this task is still being removed: {error}") from error
            finally:
                self.do_xcom_push = pushes
            if self._unread is not None:
                raise TransientFailure(f"The log of the pod, and with it the result, cannot be read: {self._unread}")
            if self._outcome is None:
                raise TransientFailure("The pod is gone and nobody knows how it ended: evicted, or deleted by hand?")
            return self.conclude(context, self._outcome)

        def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
            """As the provider does; but where it joins pods, a template's true goes before a false."""
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
            pod.spec.automount_service_account_token = pod.spec.enable_service_links = False
            pod.spec.host_network = pod.spec.host_pid = pod.spec.host_ipc = None
            container = next(one for one in pod.spec.containers if one.name == self.base_container_name)
            container.args = [literal(text) for text in container.args or ()]
            return pod

        def await_pod_start(self, pod: Any) -> None:
            """As the provider does, which takes a container that lacks its Secret for one that takes its time."""
            try:
                super().await_pod_start(pod)
            except PodLaunchTimeoutException as error:
                for one in self.pod_manager.read_pod(pod).status.container_statuses or ():
                    if (waiting := one.state.waiting) and waiting.reason == MISCONFIGURED:
                        raise PodLaunchFailedException(f"{waiting.reason}: {waiting.message}.") from error
                raise

        def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Context | None = None) -> None:
            """Keep how the container ended before its pod is deleted. What that means is said in `execute`."""
            if remote_pod is not None and not self._killed:
                self._outcome = self._ended(remote_pod)
            try:
                super().cleanup(pod, remote_pod, xcom_result=xcom_result, context=context)
            except AirflowException as error:  # "Pod … returned a failure", which would hide what `refit` said
                self.log.debug("%s", error)

        def _ended(self, pod: Any) -> Outcome | None:
            try:
                log = [
                    line.decode("utf-8", errors="replace") if isinstance(line, bytes) else str(line)
                    for line in self.pod_manager.read_pod_logs(
                        pod=pod, container_name=self.base_container_name, tail_lines=TAIL_LINES, follow=False
                    )
                ]
            except (ApiException, HTTPError, KubernetesApiException) as error:
                self._unread = str(error)
                log = []
            return outcome(pod.status, self.base_container_name, log)

    return KubernetesCommand


def outcome(status: Any, container: str, log: Iterable[str]) -> Outcome | None:
    """From a pod's status (V1PodStatus) and the end of its log; None if its container has not ended."""
    lines = [line.rstrip() for line in log if line.strip()]
    error = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
    last = next((line for line in reversed(lines) if json_object(line) is not None), lines[-1] if lines else "")
    reason = " ".join(filter(None, (status.reason, status.message)))
    ended = next((one.state.terminated for one in status.container_statuses or () if one.name == container), None)
    if status.reason == "DeadlineExceeded":  # seen only after its worker has died: an execution_timeout comes first
        remark = f"It has had all of its task's time and {DEADLINE_MARGIN} s more. Fix: give it less to do."
        return Outcome(ended.exit_code if ended else -9, last, error, remark, final=True)
    if ended is None:  # evicted, preempted, or its node is lost
        return Outcome(-9, last, error, f"The cluster ended the pod: {reason}.") if reason else None
    remark = f"The cluster says: {reason}." if reason else ""
    if ended.reason == "OOMKilled":
        remark = (
            "It ran out of memory. Fix: raise execution.kubernetes.{data,train}.resources.limits.memory, or lower "
            "train.batch_size."
        )
    elif re.search(r"Not allowed to use|cannot be made a directory|Permission denied", error):
        remark = "Fix: let execution.kubernetes.user write the volume of execution.kubernetes.home."
    return Outcome(ended.exit_code, last, error, remark)


def environment() -> dict[str, str]:
    """As in containers; but a pod's standard input has ended before it begins, and another node may work on the same
    run: SQLite's write-ahead log, in which DVC keeps what it knows of files, is for one machine."""
    given = {name: value for name, value in ENVIRONMENT.items() if name != "REFIT_STOP_WITH_STDIN"}
    return {**given, "REFIT_HOME": str(refit_home()), "DVC_SITE_CACHE_DIR": f"{SCRATCH}/dvc"}


def literal(text: str) -> str:
    """An argument for the kubelet, which replaces $(NAME) by the container's variables, also by those of Secrets.

    It makes every $$ a plain $ (k8s.io/kubernetes/third_party/forked/golang/expansion).
    """
    return text.replace("$", "$$")


def template(settings: Kubernetes) -> str | None:
    """Raises `ValueError`, which Airflow shows as the DAG's import error."""
    if settings.template is None:
        return None
    path = ROOT / settings.template  # an absolute one stays as it is
    if not path.is_file():
        raise ValueError(f"execution.kubernetes.template: expected a file with a pod, found none at {path}")
    try:
        pod = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())  # YAML's errors have several lines
        raise ValueError(f"execution.kubernetes.template: expected YAML in {path}, got: {what}") from None
    if found := list(violations(pod)):
        raise ValueError(
            f"execution.kubernetes.template: expected a pod of the restricted Pod Security Standard, got in {path}: "
            f"{'; '.join(found)}. Fix: change or remove these in the template."
        )
    return str(path)


def home_volume(settings: Kubernetes, k8s: Any) -> Any:
    if settings.home is None:
        return k8s.V1Volume(name="home", empty_dir=k8s.V1EmptyDirVolumeSource())
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=settings.home)
    return k8s.V1Volume(name="home", persistent_volume_claim=claim)


def params_volume(settings: Kubernetes, k8s: Any) -> list[Any]:
    if settings.params is None:
        return []
    return [k8s.V1Volume(name="params", config_map=k8s.V1ConfigMapVolumeSource(name=settings.params))]


def params_mount(settings: Kubernetes, k8s: Any) -> list[Any]:
    if settings.params is None:
        return []
    path = str(refit_home() / "params.yaml")
    return [k8s.V1VolumeMount(name="params", mount_path=path, sub_path=Path(path).name, read_only=True)]


def pod_name(task_id: str, part: str | None) -> str:
    """A DNS label, which the provider makes unique."""
    text = "-".join(filter(None, ("refit", task_id, part))).lower()
    return re.sub(r"[^a-z0-9]+", "-", text)[:50].strip("-")
