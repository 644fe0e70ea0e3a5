"""Run `refit` as a step of a Kubeflow pipeline, and hand on what its last line or its exit status says.

A step's container gets this file's text as `python -c`, so it needs nothing but Python. Arguments: NAME=PATH for each
output, then `--` and those of `refit`, of which `--key=` without a value is left out and `--key*=[...]` stands for one
`--key=` per item of the JSON list. Outputs: `new`, "yes" or "no", whether there is something new; any other is that key
of the JSON object on the last line that `refit` prints.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

NOTHING_NEW = 99  # refit's exit status


def main(arguments: list[str]) -> int:
    separator = arguments.index("--")
    outputs = dict(text.split("=", 1) for text in arguments[:separator])
    last = ""
    command = ["refit", *expanded(arguments[separator + 1 :])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    status = process.returncode
    nothing_new = status == NOTHING_NEW and "new" in outputs
    if status and not nothing_new:
        return status if status > 0 else 128 - status
    for name, path in outputs.items():
        value = ("no" if nothing_new else "yes") if name == "new" else json.loads(last)[name]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(value if isinstance(value, str) else json.dumps(value))
    return 0


def expanded(arguments: list[str]) -> list[str]:
    found = []
    for text in arguments:
        key, _, value = text.partition("=")
        if key.endswith("*"):
            found += [f"{key[:-1]}={item}" for item in json.loads(value)]
        elif value or "=" not in text:
            found.append(text)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
