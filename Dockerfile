# One image for every Meterbridge process; the command says which: run, post, migrate, ...
# Dependencies come from the hash-checked lock file, in a layer of their own.

FROM python:3.12.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/meterbridge
WORKDIR /build
COPY requirements.lock ./
RUN /opt/meterbridge/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY cli ./cli
COPY config ./config
COPY console ./console
COPY core ./core
COPY flows ./flows
COPY operators ./operators
COPY queries ./queries
COPY sinks ./sinks
COPY sources ./sources
COPY stack ./stack
RUN /opt/meterbridge/bin/pip install --no-deps --no-build-isolation .

FROM python:3.12.12-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/meterbridge --create-home meterbridge
COPY --from=build /opt/meterbridge /opt/meterbridge
COPY docker/entrypoint.sh /usr/local/bin/meterbridge-entrypoint
ENV PATH=/opt/meterbridge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    METERBRIDGE_STATE_DIR=/var/lib/meterbridge
USER meterbridge
WORKDIR /var/lib/meterbridge
VOLUME /var/lib/meterbridge
STOPSIGNAL SIGTERM
ENTRYPOINT ["meterbridge-entrypoint"]
CMD ["--help"]
