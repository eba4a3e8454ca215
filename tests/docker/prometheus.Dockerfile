# Prometheus from Debian, where no image registry is reached: the same program and command line as prom/prometheus.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
 && apt-get install -y --no-install-recommends prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
