# The gateway: `visiongate serve`, without PyTorch and without Triton. Build it from the project's folder:
#   docker build --file deploy/docker/gateway.Dockerfile --tag visiongate-gateway .
# With extras of the client it runs batch jobs too, 0.2 GB more:
#   docker build --file deploy/docker/gateway.Dockerfile --build-arg EXTRAS=batch --tag visiongate-batch .
# BASE may be any image of Debian's kind with Python 3.11 or newer, its module venv, and certificates.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# For strip. This stage is not kept, so the newest will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /project
COPY requirements.lock pyproject.toml README.md LICENSE ./
# hadolint ignore=DL3013,DL3042
RUN python3 -m venv /uv && /uv/bin/pip install --quiet "$(grep '^uv==' requirements.lock)" cyclonedx-bom==7.5.0
COPY proto proto
COPY gateway gateway
COPY export export
COPY deploy/docker/overrides.txt deploy/docker/overrides.txt
ARG EXTRAS=
RUN /uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/visiongate \
    && /uv/bin/uv pip install --quiet --python /opt/visiongate/bin/python --no-cache --no-sources \
        --constraint requirements.lock --overrides deploy/docker/overrides.txt \
        "./proto${EXTRAS:+[${EXTRAS}]}" .
# 90 MB that serving does not need: the demo's weights and models, the tests of packages, and symbols for debuggers.
# What is below *.libs stays as it is: its headers were rewritten once, and strip may break such files.
WORKDIR /opt/visiongate/lib
RUN rm -r python3.*/site-packages/export/demo/repository python3.*/site-packages/export/demo/weights \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find . -type f -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && rm ../.lock
# Nothing can be compiled later: the root is read-only. (The one file that is left out is for Python 2.)
RUN /opt/visiongate/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x load_config_py2 . \
    && /uv/bin/cyclonedx-py environment --output-reproducible --output-file /visiongate-gateway.cdx.json \
        /opt/visiongate/bin/python

FROM ${BASE}
# Its name is for a label below.
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="visiongate-gateway" \
      org.opencontainers.image.description="gRPC and HTTP gateway of vision models on NVIDIA Triton" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /opt/visiongate /opt/visiongate
COPY --from=build /visiongate-gateway.cdx.json /usr/share/sbom/visiongate-gateway.cdx.json
ENV PATH=/opt/visiongate/bin:${PATH} \
    HOME=/tmp
# No program of the base may change its user. And the base may come without compiled modules of Python's own
# library (that of python:3.11-slim does): importing the server keeps those that it needs.
RUN useradd --no-log-init --no-create-home --home-dir /tmp --uid 10001 --user-group visiongate \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && visiongate settings > /dev/null \
    && python -c 'import gateway.processes, gateway.http.front'
USER 10001:10001
# No jemalloc: glibc, as gateway/heap.py sets it, holds less. With JPEGs of up to 12 megapixels from 8 callers, means
# of two runs: 651 MB at the most and 390 MB after it; glibc by default 701 and 638; with MALLOC_ARENA_MAX=2 alone
# 647 and 568; with jemalloc 5.3 608 and 429, for 6 % more processor time.
# Of settings, a variable goes before a file: what is set here is changed by a variable, not in VISIONGATE_CONFIG.
ENV VISIONGATE_HOST=0.0.0.0 \
    VISIONGATE_HTTP_HOST=0.0.0.0 \
    VISIONGATE_HTTP_PORT=8080 \
    VISIONGATE_METRICS_HOST=0.0.0.0 \
    VISIONGATE_METRICS_PORT=9090 \
    VISIONGATE_REPOSITORY=/models \
    VISIONGATE_LOG_FORMAT=json \
    VISIONGATE_DRAIN_S=5
EXPOSE 50051 8080 9090
WORKDIR /tmp
ENTRYPOINT ["visiongate"]
CMD ["serve"]
