# syntax=docker/dockerfile:1

# docker build -t linserve --build-arg TORCH_INDEX=ADDRESS .
# docker run --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -p 8000:8000 linserve
# ADDRESS is that of PyTorch's own package index for the build of torch that is wanted, CPU or a version of CUDA, as
# PyTorch's page "Start locally" names it. Without it, pip takes the package index's default build.
FROM python:3.11-slim AS build
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /venv
COPY constraints.txt .
# First and by itself: the layer of torch is the largest and changes least.
RUN /venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home linserve \
    && mkdir -p /service/state && chown linserve /service /service/state
WORKDIR /service
COPY --from=build /venv /venv
COPY --chown=linserve models models
USER linserve
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LINSERVE_MODELS=/service/models \
    LINSERVE_STATE=/service/state \
    UVICORN_HOST=0.0.0.0 \
    UVICORN_PORT=8000
VOLUME ["/service/models", "/service/state"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"UVICORN_PORT\"]}/health/live', timeout=2)"]
CMD ["linserve"]
