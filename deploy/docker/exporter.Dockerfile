# The exporter: `visiongate export` with PyTorch, which writes a model repository to /models. From the project's folder:
#   docker build --file deploy/docker/exporter.Dockerfile --tag visiongate-exporter .
#   docker run --volume ./models:/models visiongate-exporter all
# The volume must be writable for user 10001.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /project
COPY requirements.lock pyproject.toml README.md LICENSE ./
# hadolint ignore=DL3013,DL3042
RUN python3 -m venv /uv && /uv/bin/pip install --quiet "$(grep '^uv==' requirements.lock)"
COPY proto proto
COPY gateway gateway
COPY export export
# export: all models, with PyTorch. onnx and ocr: ready ONNX files alone, a tenth of the size.
ARG EXTRAS=export,heic
# Which PyTorch: cpu, or one for CUDA such as cu130. Empty: the one of the package index, for CUDA.
ARG TORCH_BACKEND=cpu
RUN /uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/visiongate \
    && /uv/bin/uv pip install --quiet --python /opt/visiongate/bin/python --no-cache --no-sources \
        ${TORCH_BACKEND:+--torch-backend "${TORCH_BACKEND}"} --constraint requirements.lock ./proto ".[${EXTRAS}]" \
    && rm /opt/visiongate/.lock

FROM ${BASE}
# Its name is for a label below.
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visiongate-exporter" \
      org.opencontainers.image.description="Exports vision models to a repository of NVIDIA Triton" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /opt/visiongate /opt/visiongate
# No program of the base may change its user.
RUN useradd --no-log-init --no-create-home --home-dir /tmp --uid 10001 --user-group visiongate \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && install --directory --owner 10001 --group 10001 /models
USER 10001:10001
# Downloads of the hub go below HOME.
ENV PATH=/opt/visiongate/bin:${PATH} \
    HOME=/tmp \
    VISIONGATE_REPOSITORY=/models
WORKDIR /tmp
ENTRYPOINT ["visiongate", "export"]
CMD ["--list"]
