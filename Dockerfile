# The container: the program alone on a slim base, as a user without rights, with a root file system that may be
# read-only. Build with docker, podman or buildah:
#
#     docker build -t vestibule .
#
# Volumes: /data (certificates, sealed keys, jobs; back it up) and /keys (the key that opens them; keep it apart).
# Both must be writable by uid 10001. The configuration is /etc/vestibule/proxy.toml; mount your own over it.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --bin vestibule \
    && install -D target/dist/vestibule /out/usr/local/bin/vestibule \
    && install -D -m 644 deploy/container/proxy.toml /out/etc/vestibule/proxy.toml \
    && install -D -m 644 -t /out/usr/share/doc/vestibule LICENSE-MIT LICENSE-APACHE \
    && install -d -m 755 /out/etc/vestibule/tenants.d \
    && install -d -m 700 -o 10001 -g 10001 /out/data /out/keys

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="vestibule" \
      org.opencontainers.image.description="HTTPS for every tenant's own domain, from its first handshake" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/ /
USER 10001:10001
VOLUME ["/data", "/keys"]
# HTTP (challenges and redirects), HTTPS, and health with metrics.
EXPOSE 8080 8443 9180
# The program asks itself: the image needs no curl. A draining edge is alive, so /healthz and not /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["vestibule", "health", "--url", "http://127.0.0.1:9180/healthz"]
# SIGTERM drains: give it longer than drain_delay, drain_idle and drain_deadline together before killing it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["vestibule"]
CMD ["run", "--config", "/etc/vestibule/proxy.toml"]
