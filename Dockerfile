# One image with every binary of the services; compose.yaml chooses which one runs.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p gateway -p projector -p presence -p streams -p sql --bins \
 && mkdir /out \
 && cp target/release/gateway target/release/projector target/release/presence target/release/streams target/release/sql /out/

FROM debian:bookworm-slim
# curl is for the health checks.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home minitelegram \
 && install -d -o minitelegram -m 0700 /keys
COPY --from=build /out/ /usr/local/bin/
USER minitelegram
# The allocator gives memory back at once.
ENV MT_KEYS_DIR=/keys MIMALLOC_PURGE_DELAY=0
CMD ["gateway"]
