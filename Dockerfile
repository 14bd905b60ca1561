# Three images from one checkout; each installs what its program needs and nothing else:
#   docker build --target operator -t moe-operator/operator:0.1.0 .
#   docker build --target gateway  -t moe-operator/gateway:0.1.0 .
#   docker build --target trainer  -t moe-operator/trainer:0.1.0 .
# Packages are exactly those of requirements/, by hash. No image has a compiler or a package manager's cache;
# all run as user 65532 on a read-only root file system.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY requirements/build.txt requirements/
RUN pip install --no-deps --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY formats formats
COPY operator operator
COPY trainer trainer
COPY gateway gateway
COPY web web
COPY client client
COPY local local
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 65532 moe && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp moe
WORKDIR /tmp

FROM base AS operator
COPY requirements/operator.txt /requirements.txt
RUN pip install --no-deps --require-hashes -r /requirements.txt
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 65532:65532
ENTRYPOINT ["moe-operator"]

FROM base AS gateway
COPY requirements/gateway.txt /requirements.txt
RUN pip install --no-deps --require-hashes -r /requirements.txt
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 65532:65532
ENTRYPOINT ["moe-gateway"]

FROM base AS trainer
COPY requirements/trainer.txt /requirements.txt
RUN pip install --no-deps --require-hashes -r /requirements.txt
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 65532:65532
ENTRYPOINT ["moe-trainer"]
