# The service with the shipped artifacts, without PyTorch:
#   docker build --tag persona .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 persona

FROM python:3.11-slim-bookworm AS builder
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Without pip: the one of the base image installs into it.
RUN python -m venv --without-pip /opt/persona

# Dependencies first: they change less often than the code, so this layer is kept. The build
# backend stays in this stage.
COPY requirements/build.txt requirements/serve.txt requirements/
RUN pip install --no-deps --require-hashes --requirement requirements/build.txt \
    && pip --python /opt/persona/bin/python install --no-deps --require-hashes \
        --requirement requirements/serve.txt

COPY pyproject.toml README.md LICENSE ./
COPY persona persona
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/persona/bin/python install --no-deps dist/*.whl
COPY service /app/service
COPY artifacts /artifacts
# Nothing imports the tests, type stubs and conversion tools of the dependencies here. All that
# is left is readable for the user below, whatever the umask of the checkout was.
RUN python -m compileall -q /app \
    && cd /opt/persona/lib/python3.11/site-packages \
    && rm -rf onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find . -type f '(' -name '*.pyi' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' ')' -delete \
    && chmod -R a+rX /app /artifacts .


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Persona" \
      org.opencontainers.image.description="Turns a person's click history into a user embedding." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/persona /opt/persona
COPY --from=builder /app /app
COPY --from=builder /artifacts /artifacts
# The builder compiled the bytecode. Every PERSONA_* variable of docs/configuration.md can be given
# with --env, and options of `persona serve` after the image's name.
ENV PATH=/opt/persona/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    PERSONA_ARTIFACTS=/artifacts \
    PERSONA_HOST=0.0.0.0 \
    PERSONA_PORT=8000
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PERSONA_PORT\"]}/health/ready', timeout=3)"]
ENTRYPOINT ["persona", "serve"]
