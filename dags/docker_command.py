"""`refit` in a container of a Docker engine: one for each attempt of a task, hardened, and never two for one task.

The container has no more than it needs: a user without rights, a read-only root, no capabilities, no way to gain
privileges, limits on processes, memory and CPU, scratch space in memory. It stops when the task is cancelled or takes
too long. When the worker dies the engine closes the container's standard input, at which `refit` stops by itself
(`REFIT_STOP_WITH_STDIN`); what is left all the same is removed before the next attempt starts.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException
from process_death import end_with_parent
from refit_command import Command, Outcome, RefitFailure, Transcript, TransientFailure, image_of
from refit_settings import Docker, refit_home
from stage_graph import TRAINING

if TYPE_CHECKING:
    from airflow.providers.docker.operators.docker import DockerOperator
    from airflow.sdk import Context

IMAGE_USER = "10001:10001"  # of our images
LEFTOVER_SECONDS = 3600  # a container that ended so long ago has no task that still asks for its status
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD", re.IGNORECASE)
STDOUT = 1  # of the engine's stream of frames

# Libraries that insist on a folder of their own get one in the scratch space; the root is read-only and HOME may be.
SCRATCH = "/tmp"  # noqa: S108 - a tmpfs of the container's own
ENVIRONMENT = {
    "HOME": SCRATCH,
    "USER": "refit",  # the engine's users need not be known to the image
    "LOGNAME": "refit",
    "TMPDIR": SCRATCH,
    "XDG_CACHE_HOME": f"{SCRATCH}/cache",
    "XDG_CONFIG_HOME": f"{SCRATCH}/config",
    "KERAS_HOME": f"{SCRATCH}/keras",
    "MPLCONFIGDIR": f"{SCRATCH}/matplotlib",
    "PYTHONUNBUFFERED": "1",
    "REFIT_STOP_WITH_STDIN": "1",
}


def docker_command(settings: Docker) -> type[DockerOperator]:
    """A subclass of `Command` and of Airflow's `DockerOperator` for these settings."""
    import requests
    from airflow.providers.docker.operators.docker import DockerOperator
    from docker.errors import APIError, DockerException, NotFound
    from docker.types import DeviceRequest, LogConfig, Mount
    from docker.utils.socket import frames_iter

    class DockerCommand(Command, DockerOperator):
        """Run `refit` with `refit_arguments()` in a container and log what it prints."""

        def __init__(self, *, stage: str | None = None, **kwargs: Any) -> None:
            super().__init__(
                image=getattr(settings.images, image_of(stage)),
                docker_url=settings.url,
                docker_conn_id=settings.registry_connection,
                force_pull=settings.pull,
                api_version="auto",
                mount_tmp_dir=False,
                tty=False,
                user=container_user(settings),
                **kwargs,
            )
            self.stage = stage

        def execute(self, context: Context) -> Any:
            end_with_parent()
            arguments = self.refit_arguments(context)
            self.command = ["refit", *arguments]
            self.labels = labels(context, self.part)
            self.container_name = container_name(self.labels)
            self.environment = {**ENVIRONMENT, "REFIT_HOME": str(refit_home())}
            self._private_environment = given_variables(settings)
            self.log.info("Running %s in a container of %s, named %s", self.command, self.image, self.container_name)
            try:
                with explained(self.image):
                    self._make_room()
                    if not self.cli.images(name=self.image):
                        self.log.info("The engine does not have %s: pulling. `make images` builds ours.", self.image)
                    outcome = super().execute(context)
            finally:
                if self.hook.client_created:
                    self.cli.close()
            return self.conclude(context, outcome)

        def on_kill(self) -> None:
            """Airflow gives five seconds until SIGKILL; the engine goes on with the stop when we are gone."""
            if self.container is not None:
                with contextlib.suppress(APIError, requests.RequestException):
                    self.cli.stop(self.container["Id"], timeout=settings.stop_seconds)

        def host_config(self) -> dict[str, Any]:
            """What the container may do on its host, as the engine's API takes it."""
            home = settings.home or str(refit_home())
            mounts = [(home, str(refit_home()), False)]
            mounts += [(mount.source, mount.target, mount.read_only) for mount in settings.mounts]
            config: dict[str, Any] = self.cli.create_host_config(
                mounts=[
                    Mount(target, source, type="bind" if source.startswith("/") else "volume", read_only=read_only)
                    for source, target, read_only in mounts
                ],
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                privileged=False,
                init=True,  # reaps what stages leave behind and passes signals on
                tmpfs={SCRATCH: f"rw,nosuid,nodev,noexec,mode=1777,size={settings.scratch}"},
                shm_size=settings.shared_memory,
                pids_limit=settings.pids,
                nano_cpus=None if settings.cpus is None else round(settings.cpus * 1e9),
                mem_limit=settings.memory,
                memswap_limit=settings.memory,  # the two together: no swap
                network_mode=settings.network,
                device_requests=self._gpus(),
                # The task's log has it all; the engine needs none, and without a limit fills its disk.
                log_config=LogConfig(type="json-file", config={"max-size": "10m", "max-file": "1"}),
            )
            return config

        def _gpus(self) -> list[DeviceRequest] | None:
            if self.stage not in TRAINING or not settings.gpus:
                return None
            if isinstance(settings.gpus, tuple):
                return [DeviceRequest(device_ids=list(settings.gpus), capabilities=[["gpu"]])]
            return [DeviceRequest(count=-1 if settings.gpus == "all" else settings.gpus, capabilities=[["gpu"]])]

        def _run_image_with_mounts(self, target_mounts: Any, add_tmp_variable: bool) -> Outcome:
            """In place of the provider's own, which knows neither hardening nor what our exit statuses mean."""
            self.container = self.cli.create_container(
                image=self.image,
                command=self.command,
                name=self.container_name,
                labels=self.labels,
                user=self.user,
                environment={**self.environment, **self._private_environment},
                host_config=self.host_config(),
                stdin_open=True,
                tty=False,
            )
            identifier = self.container["Id"]
            for warning in self.container.get("Warnings") or ():
                self.log.warning("%s", warning)
            ended = False
            try:
                transcript = self._follow(identifier)
                try:
                    status = self.cli.wait(identifier)["StatusCode"]
                    ended = True
                    state = self.cli.inspect_container(identifier)["State"]
                except NotFound as error:
                    raise TransientFailure(
                        f"Somebody has removed the container {self.container_name}, and with it how it ended."
                    ) from error
                remark = remark_on(state, transcript.error, settings, str(self.user))
                return Outcome(status, transcript.last_line, transcript.error, remark)
            finally:
                # Also on a timeout, whose own exception must come through whatever the engine says.
                if not ended:
                    self.on_kill()
                with contextlib.suppress(APIError, requests.RequestException):
                    self.cli.remove_container(identifier, v=True, force=True)

        def _follow(self, identifier: str) -> Transcript:
            """Start the container and log its lines until it ends. Its standard input stays open while we live."""
            transcript = Transcript(self.log)
            ways = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            stream = self.cli.attach_socket(identifier, params=ways)
            try:
                self.cli.start(identifier)
                for line, number in lines(frames_iter(stream, tty=False)):
                    transcript.write(line, output=number == STDOUT)
            finally:
                if (response := getattr(stream, "_response", None)) is not None:  # docker-py leaves it to the collector
                    response.close()
                stream.close()
            return transcript

        def _make_room(self) -> None:
            """Stop and remove what earlier attempts of this task left: their worker was killed, or the engine gone."""
            own = self._containers(*(f"{key}={self.labels[key]}" for key in IDENTITY))
            for found in own:
                running = found["State"] == "running"
                self.log.warning("Removing %s, which an earlier attempt left %s.", found["Names"][0], found["State"])
                with contextlib.suppress(NotFound):
                    if running:
                        self.cli.stop(found["Id"], timeout=settings.stop_seconds)
                    self.cli.remove_container(found["Id"], v=True, force=True)
            home = f"{HOME}={self.labels[HOME]}"
            for found in self._containers(home, status="exited"):
                with contextlib.suppress(APIError):
                    if seconds_since(self.cli.inspect_container(found["Id"])["State"]["FinishedAt"]) > LEFTOVER_SECONDS:
                        self.cli.remove_container(found["Id"], v=True)

        def _containers(self, *wanted: str, **filters: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self.cli.containers(all=True, filters={"label": list(wanted), **filters})
            return found

    @contextlib.contextmanager
    def explained(image: str) -> Iterator[None]:
        """The engine's refusals as ours: a retry cures those of an engine that is away, or busy."""
        try:
            yield
        except NotFound as error:
            raise RefitFailure(
                f"The Docker engine says: {error.explanation}. Expected the image {image}, the network and the mounts "
                "of execution.docker. Fix: build the images with `make images`, or correct execution.docker."
            ) from error
        except APIError as error:
            text = str(error.explanation)
            if "could not select device driver" in text:
                raise RefitFailure(
                    f"The Docker engine has no GPUs to give: {text}. Fix: install the NVIDIA container toolkit on its "
                    "host, or set execution.docker.gpus to 0."
                ) from error
            kind = RefitFailure if error.is_client_error() and error.status_code != 409 else TransientFailure
            raise kind(f"The Docker engine, asked to run {image}, says: {text}.") from error
        except (DockerException, OSError) as error:  # also requests' own, and a reset of the stream of output
            raise TransientFailure(f"The Docker engine cannot be reached: {error}.") from error
        except AirflowException as error:
            if "Docker host" not in str(error):
                raise
            raise TransientFailure(
                f"{error} Fix: start the engine, or set execution.docker.url; the worker's user must be able to use it."
            ) from error

    return DockerCommand


HOME, DAG, RUN, TASK, MAP = "refit.home", "refit.dag", "refit.run", "refit.task", "refit.map"
IDENTITY = (HOME, DAG, RUN, TASK, MAP)


def labels(context: Context, part: str | None) -> dict[str, str]:
    """What a container is for. Those in `IDENTITY` are the same for all attempts of one task."""
    task = context["ti"]
    return {
        HOME: str(refit_home()),
        DAG: task.dag_id,
        RUN: context["run_id"],
        TASK: task.task_id,
        MAP: str(task.map_index),
        "refit.part": part or "",
        "refit.try": str(task.try_number),
    }


def container_name(labels: dict[str, str]) -> str:
    """Of all attempts of one task: an engine gives a name to one container at a time."""
    identity = [labels[key] for key in IDENTITY]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", "-".join(filter(None, (labels[TASK], labels["refit.part"]))))
    return f"refit-{readable[:60]}-{digest}"


def container_user(settings: Docker) -> str:
    if settings.user is not None:
        return settings.user
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else IMAGE_USER


def given_variables(settings: Docker) -> dict[str, str]:
    """Variables that the container gets from the worker's environment, from files and from Airflow's connection.

    Values from files, and those whose names sound secret, reach no log.

    Raises `RefitFailure` for a file that cannot be read.
    """
    from airflow.sdk.log import mask_secret

    given = {}
    for name in settings.environment:
        if path := os.environ.get(f"{name}_FILE"):
            try:
                given[name] = Path(path).read_text().strip()
            except OSError as error:
                raise RefitFailure(f"{name}_FILE: {path} cannot be read ({error.strerror}).") from None
            mask_secret(given[name])
        elif name in os.environ:
            given[name] = os.environ[name]
            if SECRET_NAME.search(name):
                mask_secret(given[name])
    if settings.aws_connection:
        given |= aws_variables(settings.aws_connection)
    return given


def aws_variables(connection: str) -> dict[str, str]:
    """What boto3 reads, from an Airflow connection of type aws: roles are assumed, so keys may last an hour only."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
    from airflow.sdk.log import mask_secret

    hook = AwsGenericHook(aws_conn_id=connection, client_type="s3")
    credentials = hook.get_credentials()
    values = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.token,
        "AWS_DEFAULT_REGION": hook.region_name,
        "AWS_ENDPOINT_URL": hook.conn_config.get_service_endpoint_url("s3"),
    }
    for secret in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if values[secret]:
            mask_secret(values[secret])
    return {name: value for name, value in values.items() if value}


def remark_on(state: dict[str, Any], error: str, settings: Docker, user: str) -> str:
    """What the engine, or who runs it, knows about a failure beyond the command's own words."""
    if state.get("OOMKilled"):
        limit = settings.memory or "the host's memory"
        return f"It ran out of memory (limit: {limit}). Fix: raise execution.docker.memory, or lower train.batch_size."
    if state.get("Error"):
        return f"The engine says: {state['Error']}."
    if re.search(r"Not allowed to use|cannot be made a directory|Permission denied", error):
        home = settings.home or str(refit_home())
        return (
            f"Containers run as {user} (execution.docker.user) and write REFIT_HOME, here {home}. "
            f"Fix: chown -R {user} {home}, or set execution.docker.user to its owner."
        )
    return ""


def lines(frames: Iterator[tuple[int, bytes]]) -> Iterator[tuple[str, int]]:
    """(line, number of its stream), in the order in which they end; what is drawn over ends in a carriage return."""
    decoders: dict[int, codecs.IncrementalDecoder] = {}
    pending: dict[int, str] = {}
    for number, data in frames:
        decoder = decoders.setdefault(number, codecs.getincrementaldecoder("utf-8")(errors="replace"))
        text = pending.pop(number, "") + decoder.decode(data)
        *complete, rest = re.split(r"(?<=\n)|(?<=\r)(?!\n)(?=.)", text, flags=re.DOTALL)
        # A carriage return at the very end may be half of a line's end.
        if rest.endswith("\n"):
            complete, rest = [*complete, rest], ""
        pending[number] = rest
        yield from ((line.replace("\r\n", "\n"), number) for line in complete if line)
    yield from ((line.rstrip("\r"), number) for number, line in pending.items() if line)


def seconds_since(timestamp: str) -> float:
    """`timestamp`: as the engine writes it, with nanoseconds, in UTC."""
    moment = datetime.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return time.time() - moment.timestamp()
