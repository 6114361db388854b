# Trainer and inference, which share the layer that holds torch. From the repository's root: docker compose build trainer
#
# For GPUs give a base with Python 3.11 and CUDA's runtime as BASE (CUDA_BASE in .env), a pip that finds the CUDA build
# of torch (PIP_FIND_LINKS), and a C compiler for Triton's kernels (SYSTEM_PACKAGES). By default: the CPU.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
RUN python3 -m venv /venv
COPY constraints.txt /build/
COPY requirements /build/requirements
# torch by itself first: the heaviest layer changes only with its version
RUN /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
      -c /build/constraints.txt torch
RUN /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
      -c /build/constraints.txt -r /build/requirements/trainer.txt -r /build/requirements/inference.txt \
 && /venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
      -c /build/constraints.txt --no-deps -r /build/requirements/unsloth.txt \
 && /venv/bin/python -m compileall -q -j 0 /venv/lib || true

FROM ${BASE} AS engine
ARG SYSTEM_PACKAGES=""
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 ${SYSTEM_PACKAGES} && rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv
RUN /venv/bin/python -c "import torch, transformers, trl, peft, fastapi, xllamacpp"
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 HOME=/tmp \
    HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false UNSLOTH_DISABLE_STATISTICS=1 UNSLOTH_AUTO_INSTALL=0
COPY shared /app/shared
COPY services/__init__.py /app/services/__init__.py
# What is compiled while running goes to the working folder, so that must be one to write in.
WORKDIR /tmp
USER 1000:1000

FROM engine AS trainer
COPY services/trainer /app/services/trainer
CMD ["celery", "-q", "-A", "services.trainer.app", "worker", "-c", "1", "--loglevel", "INFO"]

FROM engine AS inference
# vLLM serves on GPUs alone: it comes with torch for CUDA
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
COPY constraints.txt /build/
COPY requirements /build/requirements
USER 0:0
RUN if python -c "import sys, torch; sys.exit(not torch.version.cuda)"; then \
      python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
        -c /build/constraints.txt --no-deps -r /build/requirements/vllm.txt \
      && python -c "import vllm"; \
    fi
USER 1000:1000
COPY services/inference /app/services/inference
EXPOSE 8000
CMD ["python", "-m", "services.inference", "--host", "0.0.0.0", "--port", "8000"]
