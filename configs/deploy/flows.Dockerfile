# Runs DeployFlow, DriftFlow and PredictFlow, the drift schedule of compose.yaml, and `mlflow server`: no torch.
#   docker build --file configs/deploy/flows.Dockerfile --tag fashion-flows .
#   docker run --env HYDRA_ARGS="rows=1000" --volume fashion:/home/fashion/var fashion-flows
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base

FROM base AS packages
ARG UV_VERSION=0.13.9
ENV VIRTUAL_ENV=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
RUN pip install --no-cache-dir "uv==${UV_VERSION}" && uv venv "${VIRTUAL_ENV}"
COPY requirements-flows.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip sync /tmp/requirements-flows.lock

FROM base
RUN groupadd --gid 10001 fashion \
    && useradd --uid 10001 --gid fashion --create-home fashion \
    && install --directory --owner=fashion --group=fashion /home/fashion/var
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} PYTHONPATH=/app PYTHONUNBUFFERED=1 \
    # What a pod would otherwise install at its start is in the lock: the clients of Google Cloud Storage and S3.
    METAFLOW_SKIP_INSTALL_DEPENDENCIES=1 \
    # State: mount a volume here, or name servers and buckets.
    FASHION_HOME=/home/fashion/var
COPY README.md requirements-serve.lock /app/
COPY configs /app/configs
COPY fashion /app/fashion
COPY bentos /app/bentos
COPY flows /app/flows
# By number: Kubernetes cannot tell from a name whether it is root. Metaflow's pods unpack their code below WORKDIR.
USER 10001:10001
WORKDIR /home/fashion
VOLUME /home/fashion/var
CMD ["python", "/app/flows/drift_flow.py", "run"]
ARG GIT_COMMIT=
ENV FASHION_GIT_COMMIT=${GIT_COMMIT}
