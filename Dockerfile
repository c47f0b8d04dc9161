# The service with the shipped artifacts, without PyTorch:
#   docker build --tag persona .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 persona

FROM python:3.11-slim-bookworm AS builder
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Without pip: the one of the base image installs into it.
RUN python -m venv --without-pip /opt/persona

# Dependencies first: they change less often than the code, so this layer is kept.
# pyarrow reads and writes click files, which is work for `persona score`, outside of here;
# it would be a third of the image.
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*(need for need in project['dependencies'] if not need.startswith('pyarrow')), sep='\n')" \
        >requirements.txt \
    && pip --python /opt/persona/bin/python install --requirement requirements.txt

COPY README.md LICENSE ./
COPY client client
COPY export export
COPY model model
COPY persona persona
COPY service service
RUN pip --python /opt/persona/bin/python install --no-deps .
COPY artifacts /artifacts
# Tests, type stubs and conversion tools of the dependencies: nothing imports them here. The rest
# is readable for the user below, whatever the umask of the checkout was.
RUN cd /opt/persona/lib/python3.11/site-packages \
    && rm -rf onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find . -type f '(' -name '*.pyi' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' ')' -delete \
    && chmod -R a+rX /artifacts .


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Persona" \
      org.opencontainers.image.description="Turns a person's click history into a user embedding." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/persona /opt/persona
COPY --from=builder /artifacts /artifacts
# Bytecode was compiled by pip. Every PERSONA_* variable of docs/configuration.md can be given
# with --env, and options of `persona serve` after the image's name.
ENV PATH=/opt/persona/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
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
