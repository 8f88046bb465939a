# syntax=docker/dockerfile:1

# docker build -t linserve --build-arg TORCH_INDEX=ADDRESS .
# docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --stop-timeout 30 -p 8000:8000 \
#   -v linserve-models:/service/models -v linserve-state:/service/state linserve
#
# ADDRESS is the package index of PyTorch's CPU builds, which PyTorch's page "Start locally" shows. For CUDA, give the
# address of that build's index and its name: --build-arg TORCH_BUILD=+cu130. With an empty TORCH_BUILD and no address,
# pip takes the build of its default index. On x86-64 this is a build with CUDA, and the image has 5.6 GB.
ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
ARG TORCH_INDEX=
ARG TORCH_BUILD=+cpu
WORKDIR /src
COPY constraints.txt .
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir -c constraints.txt pip setuptools dumb-init==1.2.5.post1
# A layer of its own, early, because torch is the largest package and changes least.
RUN /venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt \
        "$(grep '^torch==' constraints.txt)$TORCH_BUILD" \
    || { echo "There is no torch$TORCH_BUILD. Give the address of its index: --build-arg TORCH_INDEX=ADDRESS"; exit 1; }
COPY pyproject.toml README.md LICENSE ./
COPY app app
# The service needs no pip, and no tests, headers or static libraries of its packages.
RUN /venv/bin/pip install --no-cache-dir --no-build-isolation -c constraints.txt . \
    && /venv/bin/pip uninstall --yes pip setuptools \
    && cd /venv/lib/python3*/site-packages \
    && find . -depth -type d \( -name tests -o -name include \) -exec rm -rf {} + \
    && find . -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.pxd' \) -delete \
    && rm -rf torch/share torch/test torch/bin/protoc* pyarrow/src
# Check that every module of the service, and what it imports only when needed, can still be imported.
RUN cd / && PYTHONDONTWRITEBYTECODE=1 /venv/bin/python -c "import pkgutil, app, prometheus_client.multiprocess, \
pyarrow.csv, pyarrow.parquet, scipy.special, torch, uvloop; \
[__import__(module.name) for module in pkgutil.walk_packages(app.__path__, 'app.')]"
# Compile the templates of the pages, because a container compiles them at each start otherwise. Jinja lets only root read them.
RUN cd / && /venv/bin/python -c "from app.pages.rendering import load_templates; load_templates()" && \
    find /venv -name '__jinja2_*' -exec chmod a+r {} +
# SageMaker runs the image with the argument `serve`.
RUN printf '#!/bin/sh\nexec linserve-server serve "$@"\n' >/venv/bin/serve && chmod 755 /venv/bin/serve
# Copy only the shipped version, without versions that were trained in this folder. Any user of group 0 may write,
# because OpenShift runs the image as such a user.
COPY models/crop-yield/000001.safetensors /service/models/crop-yield/
RUN ln -s 000001.safetensors /service/models/crop-yield/current \
    && mkdir /service/state \
    && chmod -R u=rwX,g=u,o=rX /service/models \
    && chmod 770 /service/state

FROM ${BASE}
RUN useradd --system --uid 10001 --gid 0 --no-create-home --no-log-init linserve
WORKDIR /service
COPY --from=build /venv /venv
COPY --from=build --chown=10001:0 /service /service
USER 10001:0
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LINSERVE_MODELS_DIR=/service/models \
    LINSERVE_STATE_DIR=/service/state \
    UVICORN_HOST=0.0.0.0
VOLUME ["/service/models", "/service/state"]
# 8080 with the argument `serve`, and with AIP_HTTP_PORT=8080, which Vertex AI sets.
EXPOSE 8000 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["linserve-health"]
# The first process of a container has to pass signals on from its start, and to reap orphans.
ENTRYPOINT ["dumb-init", "--single-child", "--"]
CMD ["linserve-server"]
