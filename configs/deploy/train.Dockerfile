# Runs every experiment: HYDRA_ARGS says which. A pod of Metaflow takes the libraries from here, and the code from its
# code package.
#   docker build --file configs/deploy/train.Dockerfile --tag fashion-train .
#   docker build --file configs/deploy/train.Dockerfile --tag fashion-train:cpu --build-arg DEVICE=cpu .
#   docker run --env HYDRA_ARGS="architecture=resnet training.num_epochs=3" --volume fashion:/home/fashion/var fashion-train
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base

FROM base AS packages
ARG UV_VERSION=0.13.9
ENV VIRTUAL_ENV=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
RUN pip install --no-cache-dir "uv==${UV_VERSION}" && uv venv "${VIRTUAL_ENV}"
COPY requirements.lock configs/deploy/without_cuda.awk /tmp/
# gpu: everything as locked, with hashes. cpu: torch and torchvision of the locked versions from PyTorch's own index,
# since PyPI has no builds without CUDA; the lock has no hashes of these two.
ARG DEVICE=gpu
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ "${DEVICE}" = cpu ]; then \
        awk -f /tmp/without_cuda.awk /tmp/requirements.lock > /tmp/cpu.lock \
        && uv pip sync /tmp/cpu.lock \
        && grep -oE '^torch(vision)?==[0-9.]+' /tmp/requirements.lock > /tmp/torch.txt \
        && uv pip install --no-deps --torch-backend cpu --requirements /tmp/torch.txt; \
    else \
        uv pip sync /tmp/requirements.lock; \
    fi

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
COPY configs /app/configs
COPY fashion /app/fashion
COPY flows /app/flows
# By number: Kubernetes cannot tell from a name whether it is root. Metaflow's pods unpack their code below WORKDIR.
USER 10001:10001
WORKDIR /home/fashion
VOLUME /home/fashion/var
CMD ["python", "/app/flows/train_flow.py", "run"]
ARG GIT_COMMIT=
ENV FASHION_GIT_COMMIT=${GIT_COMMIT}
