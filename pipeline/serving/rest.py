"""TensorFlow Serving's REST interface, as a client: is the model there, and what does it answer?

https://www.tensorflow.org/tfx/serving/api_rest: `GET /v1/models/NAME` and `POST /v1/models/NAME:predict` with
`{"signature_name", "instances"}`, where bytes are `{"b64": …}`. A signature with one output answers plain rows.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_REQUEST_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_IN_ONE_REQUEST = 4  # an image of 224 x 224 is 0.6 MB as JSON numbers


class NoAnswer(Exception):
    """The server does not answer, or not as it should; the text is a sentence."""


def wait(port: int, model: str, *, limit: float, alive: Callable[[], bool]) -> None:
    """Until the server on 127.0.0.1 says that the model is available.

    Raises `NoAnswer` after `limit` seconds, or as soon as `alive` says that the server is gone.
    """
    end, last = time.monotonic() + limit, "nothing"
    while time.monotonic() < end:
        try:
            status, content = _ask(port, "GET", f"/v1/models/{model}", None)
            states = [version.get("state") for version in content.get("model_version_status", [])]
            if status == 200 and "AVAILABLE" in states:
                return
            last = f"status {status}, states {states}"
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            last = f"{type(error).__name__}: {error}"
        if not alive():
            raise NoAnswer(f"The server ended before the model was available (last heard: {last}).")
        time.sleep(_PAUSE_SECONDS)
    raise NoAnswer(f"The model was not available after {limit:.0f} seconds (last heard: {last}).")


def by_image(port: int, model: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 [N, classes] of images uint8 [N, S, S, 3], at least one. Raises `NoAnswer`."""
    return _in_parts(port, model, "serving_default", images.tolist())


def by_file(port: int, model: str, contents: Sequence[bytes]) -> NDArray[np.float32]:
    """Probabilities float32 [N, classes] of image files, at least one. Raises `NoAnswer`."""
    instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
    return _in_parts(port, model, "encoded", instances)


def _in_parts(port: int, model: str, signature: str, instances: list[Any]) -> NDArray[np.float32]:
    starts = range(0, len(instances), _IN_ONE_REQUEST)
    parts = [_predict(port, model, signature, instances[start : start + _IN_ONE_REQUEST]) for start in starts]
    return np.concatenate(parts)


def _predict(port: int, model: str, signature: str, instances: list[Any]) -> NDArray[np.float32]:
    body = json.dumps({"signature_name": signature, "instances": instances})
    try:
        status, content = _ask(port, "POST", f"/v1/models/{model}:predict", body)
        if status != 200:
            raise NoAnswer(f"Signature {signature}: status {status}, {content.get('error', content)!s:.200}")
        rows = np.array(content["predictions"], np.float32)
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise NoAnswer(f"Signature {signature}: {type(error).__name__}: {error}") from error
    if rows.ndim != 2 or len(rows) != len(instances):
        raise NoAnswer(f"Signature {signature}: expected {len(instances)} rows of probabilities, got {rows.shape}.")
    return rows


def _ask(port: int, method: str, path: str, body: str | None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
