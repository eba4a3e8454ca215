# Locust with the load test of loadtests/, as master or worker:  IMAGE --master …  or  IMAGE --worker …
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends python3

FROM python AS packages
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends python3-venv
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
COPY constraints.txt /source/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/locust \
 && /opt/locust/bin/pip install --quiet --constraint /source/constraints.txt locust 'tritonclient[grpc,http]' numpy

FROM python
RUN useradd --uid 1000 --create-home locust
COPY --from=packages /opt/locust /opt/locust
COPY loadtests /loadtests
ENV PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /home/locust
EXPOSE 8089 5557
ENTRYPOINT ["/opt/locust/bin/locust", "--locustfile", "/loadtests/locustfile.py"]
