# One image for operator, webhook and agent: `berth operator | webhook | agent`. It runs as nobody in particular (65532);
# the agent's DaemonSet makes that root, as its socket and the host's CNI folder are root's.
#
#     docker build -t berth:dev .          asks the package index for what requirements/ pins by hash
#     python3 -m e2e.image                 no docker, no registry, no network inside the build: see e2e/image.py
#
# For the second way the context holds more: requirements/wheels, and the shim in cni-plugin/bin. Then nothing is
# fetched or compiled in here (buildah's chroot isolation has no network of its own, and unpacking 400 MB of compiler
# for 15 KB of shim takes longer than all the rest). .dockerignore keeps both out of a plain docker build, which
# compiles the shim from its source each time.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS shim
ARG PIP_INDEX_URL=
WORKDIR /src
COPY pyproject.toml ./
COPY requirements/ requirements/
COPY cni-plugin/ cni-plugin/
# ziglang is a C compiler for both architectures; it opens all of its C library at once, hence ulimit. sed: its pin with
# all hashes, from where it is pinned already.
RUN if [ ! -x cni-plugin/bin/amd64/berth ] || [ ! -x cni-plugin/bin/arm64/berth ]; then \
        apt-get update && apt-get install --yes --no-install-recommends make \
        && python3 -m venv /zig \
        && sed -n '/^ziglang==/,/[^\\]$/p' requirements/dev.txt > /zig/requirements.txt \
        && /zig/bin/pip install --no-cache-dir --require-hashes --requirement /zig/requirements.txt \
        && ulimit -n "$(ulimit -H -n)" \
        && make -C cni-plugin/shim PYTHON=/zig/bin/python; \
    fi
RUN install -D -m 755 cni-plugin/bin/amd64/berth /shim/amd64/berth \
    && install -D -m 755 cni-plugin/bin/arm64/berth /shim/arm64/berth \
    && case "$(uname -m)" in aarch64) ln -s arm64/berth /shim/berth ;; *) ln -s amd64/berth /shim/berth ;; esac


FROM ${BASE} AS build
ARG PIP_INDEX_URL=
ARG PIP_NO_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_FIND_LINKS=requirements/wheels
WORKDIR /src
COPY requirements/ requirements/
# Two environments: /pip has pip and hatchling and stays here, /opt/berth has what runs.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/berth \
    && /pip/bin/pip --python /opt/berth install --require-hashes --requirement requirements/runtime.txt
RUN sed -nE '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' requirements/dev.txt > /pip/build.txt \
    && /pip/bin/pip install --require-hashes --requirement /pip/build.txt
COPY pyproject.toml README.md ./
COPY operator/ operator/
COPY webhook/ webhook/
COPY cni-plugin/berth_cni/ cni-plugin/berth_cni/
RUN /pip/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /pip/dist . \
    && /pip/bin/pip --python /opt/berth install --no-index --no-deps /pip/dist/*.whl


FROM ${BASE}
LABEL org.opencontainers.image.title="berth" \
      org.opencontainers.image.description="IP address management for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
# kopf asks for the user's name, which a number alone does not have.
RUN echo 'berth:x:65532:65532:berth:/:/usr/sbin/nologin' >> /etc/passwd && echo 'berth:x:65532:' >> /etc/group
COPY --from=build /opt/berth /opt/berth
COPY --from=shim /shim /opt/berth/shim
ENV PATH=/opt/berth/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BERTH_SHIM=/opt/berth/shim/berth
USER 65532:65532
ENTRYPOINT ["berth"]
