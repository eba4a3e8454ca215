# build-repo on NVIDIA's own image: the TensorRT engines that are built in it are those that this very image loads.
#
#   docker build -f docker/builder.Dockerfile -t build-repo/builder:26.07 .
#   docker run --rm --gpus all -v "$PWD:/work" -u "$(id -u):$(id -g)" build-repo/builder:26.07 \
#     build-repo build models.yaml -o model_repository
#
# BASE is the image that will serve. An engine needs the TensorRT that made it, to the last number: it is read from the
# image and installed for Python in the same version.
ARG BASE=nvcr.io/nvidia/tritonserver:26.07-py3
FROM ${BASE}
USER 0:0
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && apt-get install -y --no-install-recommends \
    "$(python3 -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')"
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG EXTRAS="openvino,tensorrt"
# The server's TensorRT where the image does not say it itself, as X.Y.Z.W.
ARG TENSORRT_VERSION=""
COPY docker/tensorrt-requirement /usr/local/bin/
COPY pyproject.toml constraints.txt README.md CHANGELOG.md /source/
COPY builder /source/builder
COPY templates /source/templates
COPY loadtests /source/loadtests
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/build-repo \
 && /opt/build-repo/bin/pip install --quiet --constraint /source/constraints.txt "/source[${EXTRAS}]" \
 && requirement="$(tensorrt-requirement "${TENSORRT_VERSION}")" \
 && if [ -n "${requirement}" ]; then /opt/build-repo/bin/pip install --quiet "${requirement}"; fi \
 && ln -s /opt/build-repo/bin/build-repo /usr/local/bin/build-repo
RUN mkdir -m 1777 /work /cache
ENV BUILD_REPO_CACHE=/cache HOME=/tmp
WORKDIR /work
USER 1000:1000
CMD ["build-repo", "doctor"]
