"""`python stand_in.py NAME FOLDER PORT [HOST]`: a stand-in for TensorFlow Serving, whose binary no package index has.

It loads FOLDER/1 with TensorFlow, as that does, and speaks as much of its REST interface as Refit uses
(https://www.tensorflow.org/tfx/serving/api_rest): the model's state, and predictions from rows. Like that it takes
whole numbers alone for uint8, `{"b64": …}` for bytes, and answers plain rows for a signature with one output. What it
cannot show is that TensorFlow Serving's own C++ loads the model. Prints its port; PORT 0 lets the system choose.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Model:
    """One that is being loaded, or is there."""

    def __init__(self, folder: Path) -> None:
        self.signatures: Any = None
        threading.Thread(target=self._load, args=(folder,), daemon=True).start()

    def _load(self, folder: Path) -> None:
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(folder))
        self.signatures = self._loaded.signatures

    @property
    def state(self) -> str:
        return "START" if self.signatures is None else "AVAILABLE"

    def predict(self, request: Any) -> list[Any]:
        """Raises for what TensorFlow Serving answers with status 400."""
        import numpy as np
        import tensorflow as tf

        function = self.signatures[request.get("signature_name", "serving_default")]
        [(name, spec)] = function.structured_input_signature[1].items()
        if spec.dtype == tf.string:
            tensor = tf.constant(
                [base64.b64decode(instance["b64"], validate=True) for instance in request["instances"]]
            )
        else:
            values = np.array(request["instances"])
            if values.dtype.kind != "i" or values.min() < 0 or values.max() > 255:
                raise ValueError("JSON Value is not of expected type: uint8")
            tensor = tf.constant(values.astype(np.uint8))
        [output] = function(**{name: tensor}).values()
        return output.numpy().tolist()


def handler(name: str, model: Model) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != f"/v1/models/{name}":
                return self._answer(404, {"error": f"Could not find any versions of model {self.path}"})
            status = {"error_code": "OK", "error_message": ""}
            states = [{"version": "1", "state": model.state, "status": status}]
            return self._answer(200, {"model_version_status": states})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != f"/v1/models/{name}:predict":
                return self._answer(404, {"error": "Servable not found"})
            try:
                return self._answer(200, {"predictions": model.predict(request)})
            except Exception as error:  # as TensorFlow Serving: the request is at fault
                return self._answer(400, {"error": str(error)})

        def _answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, text: str, *arguments: Any) -> None:
            pass

    return Handler


def main(name: str, folder: str, port: str, host: str = "127.0.0.1") -> None:
    server = ThreadingHTTPServer((host, int(port)), handler(name, Model(Path(folder, "1"))))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
