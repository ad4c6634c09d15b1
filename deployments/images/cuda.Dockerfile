# Dask workers and runs on NVIDIA GPUs. PyTorch brings its own CUDA libraries; the host brings the driver and the
# NVIDIA container toolkit. The base image is named by its digest, which `python deployments/pin.py` writes here: nothing
# is built before.
#
#     docker build -f deployments/images/cuda.Dockerfile -t portrait-reenactment:cuda .
FROM nvidia/cuda:13.0.1-base-ubuntu24.04@sha256:run-deployments-pin.py

# Python of the distribution, and a C compiler with Python's headers, which runner.compile=true needs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

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

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/app/.venv/bin:$PATH
# Where the user may write when the image's files are read-only; /cache may be a volume that several containers share.
ENV HOME=/tmp XDG_CACHE_HOME=/cache
WORKDIR /app

# Packages first, since they change less often than the program: the files whose hashes are listed, and no others.
COPY deployments/images/requirements.txt /tmp/
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY data ./data
COPY portrait_core ./portrait_core
COPY tasks ./tasks
COPY flows ./flows
COPY deployments ./deployments
# The folders that volumes are mounted on belong to the user, so that new volumes do too.
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --no-index --editable . \
    && userdel --remove ubuntu \
    && useradd --uid 1000 --no-create-home portrait \
    && install -d -o portrait -g portrait /inputs /models /out /cache

USER 1000:1000
CMD ["portrait", "--help"]
