# vfiod in a container. The host's VFIO has to be given to it, and the sockets to the clients:
#   docker run --device /dev/vfio --ulimit memlock=-1 --pid host --cap-add SYS_PTRACE \
#     -v /run/vfiod:/run/vfiod vfiod
# Without any hardware: docker run -v /run/vfiod:/run/vfiod vfiod --sim

FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN node scripts/build.mjs && npm prune --omit=dev

FROM node:24-bookworm-slim
ENV UV_THREADPOOL_SIZE=64 \
    MALLOC_MMAP_THRESHOLD_=33554432 \
    MALLOC_TRIM_THRESHOLD_=536870912
WORKDIR /opt/vfiod
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/proto ./proto
COPY --from=build /src/dist ./dist
RUN mkdir -p /run/vfiod
ENTRYPOINT ["node", "/opt/vfiod/dist/daemon/main.js"]
