"""Stop early, with the reason, where the locked packages cannot be installed. Runs on any Python 3."""

import platform
import sys

LOWEST, TOO_HIGH = (3, 11), (3, 14)
GLIBC = (2, 39)  # the TensorFlow and TFDV wheels for Python 3.12 and later want it


def problem() -> "str | None":
    version = sys.version_info[:2]
    name = f"Python {version[0]}.{version[1]}"
    if not LOWEST <= version < TOO_HIGH:
        return f"Refit needs Python 3.11, 3.12 or 3.13; {sys.executable} is {name}."
    library, release = platform.libc_ver()
    if version > LOWEST and library == "glibc" and tuple(map(int, release.split(".")[:2])) < GLIBC:
        return f"TensorFlow for {name} needs glibc 2.39 or later; this system has {release}."
    return None


if __name__ == "__main__" and (text := problem()):
    sys.exit(f"error: {text}\nFix: install Python 3.11 with its venv module and run: make PYTHON=python3.11 …")
