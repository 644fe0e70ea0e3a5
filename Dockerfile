# Four images from one file; `docker build --target NAME`:
#   airflow    schedules; no TensorFlow
#   data       ingest, profile, validate, shard
#   train-cpu  train, evaluate, diagnose, serve, gate; no Airflow
#   train-gpu  the same with CUDA from PyPI; the host brings the driver
# Needs BuildKit. The base may be any Debian 13; extra certificates in its /usr/local/share/ca-certificates are used.
# A private package index: --secret id=uv,src=uv.toml --secret id=pip,src=pip.conf; neither reaches an image.
ARG BASE_IMAGE=debian:trixie-slim

# The virtual environments link to this Python, so every stage has it in the same place.
FROM ${BASE_IMAGE} AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# Compilers and caches stay in the builders. pyfarmhash, which TFDV needs, comes as source only.
FROM python AS builder
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    sed -n '/^uv==/,/# via/p' requirements.lock > uv.lock \
 && python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement uv.lock
# The images run on a read-only root, so bytecode is compiled here: Airflow then starts in 2.2 s instead of 6.0 s.
ENV PATH=/opt/uv/bin:$PATH \
    VIRTUAL_ENV=/opt/venv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_REQUIRE_HASHES=1 \
    UV_SYSTEM_CERTS=1
# `refit` lies beside the interpreter, where Airflow's tasks look for it; its code comes in the last layer.
RUN uv venv --python /usr/bin/python3 /opt/venv \
 && printf '#!/opt/venv/bin/python\nfrom pipeline.cli.main import app\n\napp()\n' > /opt/venv/bin/refit \
 && chmod 755 /opt/venv/bin/refit
COPY pyproject.toml ./

# One environment each: what pyproject.toml asks for, at the versions and hashes of the lock and nothing beside it.
# TensorFlow's headers (430 MB) serve only those who compile against it.
FROM builder AS packages-airflow
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    uv pip install --requirement pyproject.toml --group airflow --group deployment --constraint requirements.lock

FROM builder AS packages-data
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    uv pip install --requirement pyproject.toml --group data --constraint requirements.lock \
        --build-constraint requirements.lock \
 && rm -r /opt/venv/lib/python3.13/site-packages/tensorflow/include

FROM builder AS packages-train-cpu
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    uv pip install --requirement pyproject.toml --group train --group onnx --constraint requirements.lock \
 && rm -r /opt/venv/lib/python3.13/site-packages/tensorflow/include

FROM builder AS packages-train-gpu
COPY requirements-gpu.lock ./
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    uv pip install --requirement pyproject.toml --group train --group gpu \
        --constraint requirements.lock --constraint requirements-gpu.lock \
 && rm -r /opt/venv/lib/python3.13/site-packages/tensorflow/include

FROM scratch AS code
COPY .dvcignore dvc.yaml params.yaml pyproject.toml /
COPY pipeline /pipeline
COPY components /components

FROM python AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /refit --shell /usr/sbin/nologin refit \
 && install --directory --owner refit --group refit /refit
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/refit \
    REFIT_HOME=/refit
WORKDIR /refit
CMD ["refit", "--help"]

FROM runtime AS airflow
COPY --from=packages-airflow /opt/venv /opt/venv
COPY --from=code / /opt/refit/
COPY dags /opt/refit/dags
COPY plugins /opt/refit/plugins
COPY deploy/pod-template.yaml /opt/refit/deploy/
# The triggerer imports watchers without a DAG folder on its path.
ENV AIRFLOW_HOME=/refit/airflow \
    PYTHONPATH=/opt/refit:/opt/refit/dags \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/refit/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/refit/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
USER 10001:10001
CMD ["airflow", "version"]

FROM runtime AS data
COPY --from=packages-data /opt/venv /opt/venv
COPY --from=code / /opt/refit/
USER 10001:10001

FROM runtime AS train-cpu
COPY --from=packages-train-cpu /opt/venv /opt/venv
COPY --from=code / /opt/refit/
USER 10001:10001

FROM runtime AS train-gpu
COPY --from=packages-train-gpu /opt/venv /opt/venv
COPY --from=code / /opt/refit/
# The container toolkit hands over CUDA's driver libraries only when they are asked for.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
