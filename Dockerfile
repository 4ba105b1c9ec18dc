# The image of the service `colophond`, with the client `colophon` beside it.
#
#   docker build -t colophon .
#       compiles in BUILDER and puts the two programs on RUNTIME.
#   docker build -t colophon -f Dockerfile --target prebuilt FOLDER
#       takes the two programs from FOLDER; nothing is compiled and BUILDER is not used.
#
# RUNTIME needs a C library no older than the builder's, libgcc and certificate authorities, and
# nothing else: no shell is used. Both ways end in the same image. Needs BuildKit (Docker 23, or
# DOCKER_BUILDKIT=1 before) or buildah, which build only what the target asks for.
ARG BUILDER=rust:1.95-slim-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUNTIME} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Colophon" \
      org.opencontainers.image.description="Publishes container images and records every move of a tag" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV COLOPHON_CONFIG=/etc/colophon/colophon.toml
# By number, so that Kubernetes can tell that it is not root. Nothing is ever written to the image's
# file system, so it may be mounted read-only.
USER 65532:65532
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/colophond"]
CMD ["run"]

FROM base AS prebuilt
COPY colophond colophon /usr/local/bin/

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# Empty means one job for each core.
ARG JOBS=
RUN cargo build --release --locked ${JOBS:+--jobs ${JOBS}} -p colophond -p colophon

FROM base
COPY --from=build /src/target/release/colophond /src/target/release/colophon /usr/local/bin/
