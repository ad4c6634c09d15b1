# Runs everything: the command line, Prefect's server and worker, Dask's scheduler and workers on CPUs.
#
#     docker build -f deployments/images/cpu.Dockerfile -t portrait-reenactment:cpu .
FROM python:3.11-slim

# As in deployments/settings.env, which says why. A test holds both to what the program sets.
ENV PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    PREFECT_LOGGING_LEVEL=WARNING \
    PREFECT_LOGGING_TO_API_ENABLED=false \
    PREFECT_CLIENT_MAX_RETRIES=3 \
    PREFECT_LOGGING_INTERNAL_LEVEL=CRITICAL \
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=180 \
    DASK_LOGGING__DISTRIBUTED=error \
    OMP_WAIT_POLICY=PASSIVE \
    GOMP_SPINCOUNT=20000 \
    OPENBLAS_NUM_THREADS=1 \
    DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0 \
    DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False \
    DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT=180s \
    DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT=60s \
    DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=60s \
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY=180

ENV PYTHONUNBUFFERED=1 UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 PATH=/app/.venv/bin:$PATH
WORKDIR /app

# Packages first: they change less often than the program.
RUN pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml README.md LICENSE ./
RUN uv sync --no-dev --no-cache --no-install-project
COPY data ./data
COPY portrait_core ./portrait_core
COPY tasks ./tasks
COPY flows ./flows
COPY deployments ./deployments
# The folders that volumes are mounted on belong to the user, so that new volumes do too.
RUN uv sync --no-dev --no-cache \
    && useradd --uid 1000 --create-home portrait \
    && install -d -o portrait -g portrait /inputs /models /out

USER 1000:1000
CMD ["portrait", "--help"]
