# vfiod in a container, as a user without privileges: docs/deployment.md has the lines to run it with.
# There it has no helpers (vfiod-host): what needs more rights than it has is refused.
# Without any hardware: docker run --pid host -v /run/vfiod:/run/vfiod vfiod --sim

FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN node scripts/build.mjs && npm prune --omit=dev && rm -r node_modules/node-linux-*/include

# The Node that it runs on is among the packages, pinned by the lock file.
FROM debian:bookworm-slim
ENV MALLOC_MMAP_THRESHOLD_=33554432 \
    MALLOC_TRIM_THRESHOLD_=536870912
WORKDIR /opt/vfiod
COPY --from=build /src/package.json ./
COPY --from=build /src/bin ./bin
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/proto ./proto
COPY --from=build /src/dist ./dist
RUN install -d -o 65532 -g 65532 /run/vfiod
# Of podman builds only --format docker keeps it; it needs no role in the policy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s \
  CMD ["/opt/vfiod/bin/vfioctl", "health"]
# A number, so that whoever starts it can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/opt/vfiod/bin/vfiod"]
