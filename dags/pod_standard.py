"""What in a pod's template the *restricted* Pod Security Standard forbids.

https://kubernetes.io/docs/concepts/security/pod-security-standards/. Left out is what Refit sets itself whatever the
template says: the security contexts of the pod and of its first container, the namespaces of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"  # annotations, before they became a field
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: value is None or value in allowed


# Of a container's securityContext: field, whether a value (None: not stated) is allowed, what is.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("allowPrivilegeEscalation", lambda value: value is False, "false"),
    ("privileged", lambda value: not value, "false"),
    ("capabilities.drop", lambda value: "ALL" in (value or ()), "[ALL]"),
    ("capabilities.add", lambda value: {"NET_BIND_SERVICE"}.issuperset(value or ()), "NET_BIND_SERVICE at most"),
    ("runAsNonRoot", lambda value: value in (None, True), "true"),
    ("runAsUser", lambda value: value is None or (isinstance(value, int) and value > 0), "a number above 0"),
    ("procMount", _one_of("Default"), "Default"),
    ("seccompProfile.type", _one_of("RuntimeDefault", "Localhost"), "RuntimeDefault or Localhost"),
    ("appArmorProfile.type", _one_of("RuntimeDefault", "Localhost"), "RuntimeDefault or Localhost"),
    ("seLinuxOptions.type", _one_of(*SELINUX), "a type for containers"),
    ("seLinuxOptions.user", lambda value: not value, "none"),
    ("seLinuxOptions.role", lambda value: not value, "none"),
    ("windowsOptions.hostProcess", lambda value: not value, "false"),
)


def violations(template: Any) -> Iterator[str]:
    """One line each: where, what it says, what is allowed. `template`: what the file of a pod's manifest holds."""
    if shapeless := list(_shapeless(template)):
        yield from shapeless
        return
    for name, value in (_get(template, "metadata.annotations") or {}).items():
        if name.startswith(APPARMOR) and not str(value).startswith(("runtime/default", "localhost/")):
            yield f"metadata.annotations.{name} is {value}, allowed is runtime/default or localhost/…"
    for number, volume in enumerate(_get(template, "spec.volumes") or ()):
        for kind in sorted(volume.keys() - {"name"} - VOLUMES):
            yield f"spec.volumes[{number}] is a {kind}, allowed is {', '.join(sorted(VOLUMES))}"
    for kind in ("containers", "initContainers"):
        for number, container in enumerate(_get(template, f"spec.{kind}") or ()):
            where = f"spec.{kind}[{number}]"
            for port in container.get("ports") or ():
                if port.get("hostPort"):
                    yield f"{where}.ports has hostPort {port['hostPort']}, allowed is none"
            if (kind, number) == ("containers", 0):
                continue
            for field, allows, allowed in RULES:
                value = _get(container, f"securityContext.{field}")
                if not allows(value):
                    yield f"{where}.securityContext.{field} is {value!r}, allowed is {allowed}"


def _shapeless(template: Any) -> Iterator[str]:
    """What is no pod, so that nothing else can be looked at."""
    for path in ("", "metadata", "metadata.annotations", "spec"):
        value = _get(template, path)
        if not isinstance(value, Mapping) and (value is not None or not path):
            yield f"{path or 'the file'} is {value!r}, allowed is a mapping"
    for path in ("spec.volumes", "spec.containers", "spec.initContainers"):
        value = _get(template, path) or []
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            yield f"{path} is {value!r}, allowed is a list of mappings"


def _get(value: Any, path: str) -> Any:
    for key in filter(None, path.split(".")):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
