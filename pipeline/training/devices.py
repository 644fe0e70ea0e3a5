"""What training runs on, and what changes with it: a CPU or GPU, all GPUs of a host, or several hosts.

`current` looks; call it before anything else of TensorFlow runs, as a cluster can only be joined then. One global batch
is dealt out over `replicas`: a batch of 32 stays one of 32, however many take part (`ADR 0019`).

                       variables            batches are dealt out by     gradients are added up by
    alone              plain                -                            -
    mirrored           in `scope`           Keras                        Keras
    workers            plain, all alike     `feed`, `Worker`             `connect`
    data_parallel      JAX's sharding       Keras                        XLA
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.errors import SettingsError, TransientError

if TYPE_CHECKING:
    from pipeline.dataset.records import Worker

logger = logging.getLogger(__name__)

_CLUSTER = '{"cluster": {"worker": ["host-0:12345", "host-1:12345"]}, "task": {"type": "worker", "index": 0}}'


_CHUNK = 64 << 20  # bytes in one message


@dataclass(frozen=True)
class Devices:
    """`names`: what this process computes on. `number`, `count`: of this process among the workers. `replicas`: of
    the model, over all workers."""

    names: tuple[str, ...]
    kind: Literal["alone", "mirrored", "workers", "data_parallel"] = "alone"
    number: int = 0
    count: int = 1
    replicas: int = 1
    strategy: Any = None  # of TensorFlow

    @property
    def chief(self) -> bool:
        """Whether this process writes models, checkpoints and logs. The others train and end."""
        return self.number == 0

    @property
    def worker(self) -> Worker:
        """Whose part of the shards this process reads."""
        from pipeline.dataset.records import Worker  # imports TensorFlow

        return Worker(self.number, self.count)

    def describe(self) -> dict[str, Any]:
        """For history.json."""
        return {"strategy": self.kind, "devices": list(self.names), "workers": self.count, "replicas": self.replicas}

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Models, optimizers and metrics are made, compiled and read from files inside."""
        if self.kind == "mirrored":
            with self.strategy.scope():
                yield
        else:
            yield

    def batch_size(self, wanted: int) -> int:
        """Images in a global batch: `wanted`, or the next multiple of `replicas`."""
        size = -(-wanted // self.replicas) * self.replicas
        if size != wanted:
            logger.info("batches of %d images instead of %d: a multiple of %d replicas", size, wanted, self.replicas)
        return size

    def share(self, batch_size: int) -> int:
        """Images of a global batch that this worker reads: the batch size for `records.batches` and Keras."""
        return batch_size // self.count

    def even(self, count: int) -> int:
        """How many of so many images the model can be measured on. JAX only takes batches that can be dealt out evenly,
        the last one too, so up to `replicas` - 1 images are left out of those that early stopping goes by."""
        return count // self.replicas * self.replicas if self.kind == "data_parallel" else count

    def feed(self, data: Any) -> Any:
        """This worker's rows of `data`: of every global batch of a `PyDataset`, or of a tuple of (dicts of) arrays.

        A tf.data pipeline is not cut here, since it had then read everything: give it `worker` and `share`, or `even`.
        """
        if isinstance(data, tuple):
            count = self.even(len(keras.tree.flatten(data)[0]))
            # With fewer rows than workers all take all of them, and the sums stay in proportion.
            part = slice(self.number, count, self.count) if count >= self.count else slice(0, count)
            return keras.tree.map_structure(lambda rows: rows[part], data)
        if isinstance(data, keras.utils.PyDataset):
            return _Part(data, self.number, self.count) if self.kind == "workers" else data
        raise TypeError(f"expected a PyDataset or a tuple of arrays, received {type(data).__name__}")

    def connect(self, model: keras.Model) -> list[keras.callbacks.Callback]:
        """Let a compiled `model` learn together with the other replicas. Returns callbacks that `fit` gets *first*.

        Call it inside `scope`, after `compile` and after a checkpoint is loaded, before the model takes its first step,
        once per compilation. Workers begin with the chief's weights and optimizer state. They must take as many steps
        and epochs each; curves, and with them early stopping, are then the same everywhere.
        """
        if self.kind == "workers":
            model.jit_compile = False  # XLA cannot compile what waits for other workers
            model.optimizer.build(model.trainable_variables)
            _average_gradients(model.optimizer, functools.partial(_reduce, self.strategy, "MEAN"))
            variables = [*model.variables, *model.optimizer.variables]
            for variable, value in zip(variables, self.first(variables), strict=True):
                variable.assign(value)
            return [_Together(self)]
        if self.kind == "mirrored":
            _clip_together(model.optimizer, self.strategy.num_replicas_in_sync)
        return []

    def mean(self, values: Sequence[Any]) -> list[NDArray[Any]]:
        """The mean over the workers of each of some float arrays or numbers. A collective operation: all must call it,
        in the same order. So may workers agree: `devices.mean([interrupted])[0] > 0`."""
        return self._eagerly(values, "MEAN")

    def sum(self, values: Sequence[Any]) -> list[NDArray[Any]]:
        """As `mean`, the sum."""
        return self._eagerly(values, "SUM")

    def first(self, values: Sequence[Any]) -> list[NDArray[Any]]:
        """The chief's values, of arrays that have the same shapes on all workers. A collective operation."""
        arrays = [keras.ops.convert_to_numpy(value) for value in values]
        wide = [array if array.dtype.kind == "f" else array.astype(np.int64) for array in arrays]
        sums = self.sum([array if self.chief else np.zeros_like(array) for array in wide])
        return [found.astype(array.dtype) for found, array in zip(sums, arrays, strict=True)]

    def hand_out(self, *paths: Path) -> None:
        """Give all workers the chief's files of these names, so that they go on from one checkpoint; what the chief
        does not have is removed. A collective operation."""
        if self.kind != "workers":
            return
        for path in paths:
            here = path.read_bytes() if self.chief and path.is_file() else None
            size = int(self.first([np.int64(-1 if here is None else len(here))])[0])
            if size < 0:
                path.unlink(missing_ok=True)
                continue
            parts = [self._chunk(here, start, min(_CHUNK, size - start)) for start in range(0, size, _CHUNK)]
            if not self.chief:
                with files.replacing(path) as temporary:
                    temporary.write_bytes(b"".join(parts))

    def _chunk(self, here: bytes | None, start: int, length: int) -> bytes:
        # As int64: neither NCCL nor TensorFlow's reductions take bytes.
        words = np.zeros(-(-length // 8) * 8, np.uint8)
        if here is not None:
            words[:length] = np.frombuffer(here, np.uint8, length, start)
        return self.sum([words.view(np.int64)])[0].tobytes()[:length]

    @contextlib.contextmanager
    def directory(self, target: Path) -> Iterator[Path]:
        """As `files.replacing_directory` for the chief; for other workers a folder that goes away. All leave together,
        so a worker that ends well says that the chief has written everything. A collective operation."""
        if self.chief:
            with files.replacing_directory(target) as folder:
                yield folder
        else:
            with tempfile.TemporaryDirectory() as name:
                yield Path(name)
        self.mean([0.0])

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the loss of another worker becomes a `TransientError`: all of them are to be started again."""
        if self.kind != "workers":
            yield
            return
        import tensorflow as tf

        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
        try:
            yield
        except (*lost, tf.errors.DeadlineExceededError, tf.errors.InternalError) as error:
            raise TransientError(
                f"Worker {self.number} of {self.count} lost another one: {error.message.splitlines()[-1]:.200}",
                fix="start all workers again; they go on from the chief's last checkpoint",
            ) from error

    def _eagerly(self, values: Sequence[Any], operation: str) -> list[NDArray[Any]]:
        if self.kind != "workers":
            return [np.asarray(value) for value in values]
        reduced = _reducer(self.strategy, operation)([keras.ops.convert_to_tensor(value) for value in values])
        return [tensor.numpy() for tensor in reduced]


ALONE = Devices(("CPU:0",))


def current() -> Devices:
    """All that is visible to this process, joined with others where `TF_CONFIG` names a cluster of workers.

    In a cluster it waits for all workers to come, and until they have, only SIGKILL ends it. Raises `SettingsError`
    when `TF_CONFIG` is not as it should be, or a worker sees more than one GPU.
    """
    found = _with_jax() if keras.backend.backend() == "jax" else _with_tensorflow()
    logger.info("training on %s%s", ", ".join(found.names), f", {found.kind}" if found.kind != "alone" else "")
    return found


def _with_jax() -> Devices:
    devices = keras.distribution.list_devices()
    if len(devices) == 1:
        return Devices(tuple(devices))
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )  # Keras asks for it when a model learns, too
    return Devices(tuple(devices), "data_parallel", replicas=len(devices))


def _with_tensorflow() -> Devices:
    import tensorflow as tf

    if (place := _place_in_cluster()) is not None:
        number, count = place
        logger.info("worker %d of %d waits for the others", number, count)
        handler = signal.getsignal(signal.SIGTERM)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        signal.signal(signal.SIGTERM, handler)  # TensorFlow has taken it, to tell the others, and does not end by it
        if strategy.num_replicas_in_sync != count:
            raise SettingsError(
                f"TF_CONFIG: expected one GPU per worker, worker {number} of {count} makes it"
                f" {strategy.num_replicas_in_sync} replicas.",
                fix="start a worker for each GPU, with CUDA_VISIBLE_DEVICES set to the number of that GPU",
            )
        return Devices(_names()[:1], "workers", number, count, replicas=count, strategy=strategy)
    names = _names()
    if len(names) == 1:
        return Devices(names)
    strategy = tf.distribute.MirroredStrategy([name.partition(" ")[0] for name in names])
    return Devices(names, "mirrored", replicas=len(names), strategy=strategy)


def _names() -> tuple[str, ...]:
    """GPU:0 and what it is called, of every GPU, or else of every CPU."""
    import tensorflow as tf

    physical = tf.config.list_physical_devices("GPU")
    if not physical:
        return tuple(f"CPU:{number}" for number, _ in enumerate(tf.config.list_logical_devices("CPU")))
    models = [tf.config.experimental.get_device_details(device).get("device_name", "") for device in physical]
    return tuple(f"GPU:{number} {model}".strip() for number, model in enumerate(models))


def _place_in_cluster() -> tuple[int, int] | None:
    """Number of this worker and count of all, from TF_CONFIG; None where it names no second one."""
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        cluster, task, index = resolver.cluster_spec(), resolver.task_type, resolver.task_id
        counts = {job: cluster.num_tasks(job) for job in cluster.jobs}
        if not counts:
            return None
        chiefs, count = counts.get("chief", 0), sum(counts.values())
        known = set(counts) <= {"chief", "worker"} and chiefs <= 1
        if not known or task not in counts or not 0 <= index < counts[task]:
            raise ValueError(f"task {task} {index} of {counts}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(
            f"TF_CONFIG: expected a cluster of workers and this one's place in it, received {error}.",
            fix=f"unset it, or set it like {_CLUSTER}",
        ) from None
    return (index + (chiefs if task == "worker" else 0), count) if count > 1 else None


@functools.cache
def _reducer(strategy: Any, operation: str) -> Any:
    import tensorflow as tf

    return tf.function(functools.partial(_reduce, strategy, operation), autograph=False)


def _reduce(strategy: Any, operation: str, tensors: Sequence[Any]) -> list[Any]:
    """Reduce tensors of TensorFlow's over the workers, within a graph."""
    import tensorflow as tf

    def together(*local: Any) -> Any:
        # `identity` puts them on a device of the strategy; without one there is nowhere to reduce to.
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp[operation], [tf.identity(tensor) for tensor in local])

    reduced = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # packed into one message, which has one dtype
        alike = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
        found = strategy.run(together, args=tuple(tensors[number] for number in alike))
        for number, tensor in zip(alike, found, strict=True):
            reduced[number] = tensor
    return reduced


def _average_gradients(optimizer: keras.Optimizer, mean: Any) -> None:
    """Average them before anything is done with them, so that clipping, and the search for infinities under
    mixed_float16, see what a single process would."""
    apply = optimizer.apply

    def averaged(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        known = [number for number, gradient in enumerate(grads) if gradient is not None]
        means = dict(zip(known, mean([grads[number] for number in known]), strict=True))
        return apply([means.get(number) for number in range(len(grads))], trainable_variables)

    optimizer.apply = averaged


def _clip_together(optimizer: keras.Optimizer, replicas: int) -> None:
    """Make a mirrored optimizer clip the sum of the replicas' gradients; Keras clips each one's before it adds them up.

    Keras adds up again what it is given, so it gets a replica's share of the sum, to clip at a share of the norm.
    """
    import tensorflow as tf

    inner = getattr(optimizer, "inner_optimizer", optimizer)
    limits = [name for name in ("clipnorm", "global_clipnorm", "clipvalue") if getattr(inner, name, None)]
    if not limits:
        return
    for name in limits:
        setattr(inner, name, getattr(inner, name) / replicas)
    apply = optimizer.apply

    def shared(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        context = tf.distribute.get_replica_context()
        known = [number for number, gradient in enumerate(grads) if gradient is not None]
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [grads[number] for number in known])
        shares = {number: total / replicas for number, total in zip(known, sums, strict=True)}
        return apply([shares.get(number) for number in range(len(grads))], trainable_variables)

    optimizer.apply = shared


class _Together(keras.callbacks.Callback):
    """Before the model is measured, workers average the statistics of BatchNorm; then, their measurements.

    A moving average is linear, so averaging at the end of the epoch gives what averaging in every step would.
    """

    def __init__(self, devices: Devices) -> None:
        super().__init__()
        self.devices = devices
        self.measured: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.measured = {}

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._average_statistics()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        # Parts differ in size: what metrics have counted is added up, rather than their results averaged.
        variables = [variable for metric in self.model.metrics for variable in metric.variables]
        for variable, value in zip(variables, self.devices.sum(variables), strict=True):
            variable.assign(value)
        self.measured = {f"val_{name}": float(value) for name, value in self.model.get_metrics_result().items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        if not self.measured:
            self._average_statistics()
        learned = sorted(set(logs) - set(self.measured))
        means = self.devices.mean([np.float32(logs[name]) for name in learned])
        logs.update({name: float(value) for name, value in zip(learned, means, strict=True)}, **self.measured)

    def _average_statistics(self) -> None:
        moving = [
            variable
            for layer in _layers(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
            for variable in layer.non_trainable_variables
        ]
        if moving:
            for variable, value in zip(moving, self.devices.mean(moving), strict=True):
                variable.assign(value)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """With those of models within."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


class _Part(keras.utils.PyDataset):
    """One worker's rows of the batches of another dataset, which lives through its epochs."""

    def __init__(self, whole: keras.utils.PyDataset, number: int, count: int) -> None:
        super().__init__()
        self.whole, self.number, self.count = whole, number, count

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        return keras.tree.map_structure(lambda rows: rows[self.number :: self.count], self.whole[index])

    def on_epoch_begin(self) -> None:
        self.whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.whole.on_epoch_end()
