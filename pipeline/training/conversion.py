"""`python -m pipeline.training.conversion FOLDER FORM...`: the forms of FOLDER/model.keras, written by TensorFlow.

For training under another backend of Keras, which can write none of them. FOLDER holds `answers.npz`: `images`,
uint8 [N, S, S, 3], and the trained model's `probabilities`, float32 [N, classes]. Prints one line of JSON: file to the
largest difference of a probability, or `problem` and `fix`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import runtime
from pipeline.errors import RefitError

ANSWERS = "answers.npz"


def main(folder: Path, names: Sequence[str]) -> None:
    runtime.prepare(backend="tensorflow")
    import numpy as np

    from pipeline.training import export, forms, parity  # import Keras, so after the preparation

    with np.load(folder / ANSWERS) as trained:
        images, expected = trained["images"], trained["probabilities"]
    try:
        model = export.load(folder / forms.KERAS)
        moved = parity.check(f"{forms.KERAS} in TensorFlow", lambda _: expected, model.predict_on_batch, images)
        # A form lies no further from the trained model than the sum of the two steps.
        found = {
            name: parity.within(name, moved + difference)
            for name, difference in forms.convert(model, folder, names, images).items()
        }
        print(json.dumps(found))
    except RefitError as error:
        print(json.dumps({"problem": error.problem, "fix": error.fix}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
