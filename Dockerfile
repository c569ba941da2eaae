# The package on Debian's Python, for Ray head and workers alike.
#   docker build --tag human-motion .                                   embedded profile and S3
#   docker build --tag human-motion:paper --build-arg EXTRAS=paper,s3 .  the paper's engines, with CUDA builds of torch
FROM python:3.11-slim-bookworm

# KubeRay's probes call wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir uv

ARG EXTRAS=s3
WORKDIR /opt/human-motion
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY curation curation
COPY flows flows
COPY manifests manifests
COPY stages stages
COPY training training
RUN uv pip install --system --no-cache --constraint requirements.lock ".[${EXTRAS}]"

RUN useradd --create-home ray
USER ray
WORKDIR /home/ray
ENV RAY_USAGE_STATS_ENABLED=0
CMD ["python", "-m", "curation.run", "--help"]
