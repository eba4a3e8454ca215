# A slim Triton for CPUs: the real tritonserver of build-repo's embedded runtime and the backends you ask for.
#
#   docker build -f docker/cpu.Dockerfile -t build-repo/tritonserver-cpu:26.07 .
#   docker run --rm -p 127.0.0.1:8000:8000 -v $PWD/model_repository:/models:ro build-repo/tritonserver-cpu:26.07
#
# The command line is that of NVIDIA's image: … IMAGE tritonserver --model-repository=/models …
# BASE may be any Debian or Ubuntu with Python 3.11 or 3.12 and glibc 2.35. A package index of your own comes in as
# pip's configuration and does not stay in the image: --secret id=pip,src=$HOME/.config/pip/pip.conf
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
# Each model runs in a process of Python, which needs the shared libpython.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && apt-get install -y --no-install-recommends \
    "$(python3 -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')"

FROM python AS server
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends python3-venv
ARG RELEASE=26.07
ARG BACKENDS="onnxruntime openvino"
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
COPY builder /source/builder
COPY docker/lay_out_server.py /source/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    PYTHONPATH=/source PYTHONDONTWRITEBYTECODE=1 \
    python3 -u /source/lay_out_server.py /opt/tritonserver "${RELEASE}" "${BACKENDS}"

FROM python
ARG RELEASE=26.07
ARG BACKENDS="onnxruntime openvino"
LABEL org.opencontainers.image.title="Triton Inference Server for CPUs" \
      build-repo.release="${RELEASE}" \
      build-repo.backends="${BACKENDS}"
RUN useradd --uid 1000 --create-home triton-server
COPY --from=server /opt/tritonserver /opt/tritonserver
COPY docker/tritonserver docker/triton-ready /usr/local/bin/
ENV BUILD_REPO_RELEASE=${RELEASE}
USER 1000:1000
WORKDIR /models
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["triton-ready"]
CMD ["tritonserver", "--model-repository=/models"]
