# mmu on TPU VMs and GKE: the IMAGE of launch/gke_xpk.sh, with the configs in its working directory.
#
#   docker build --file docker/tpu.Dockerfile --tag mmunlearner_jax:tpu .
#   docker run --rm --privileged --net=host --volume=/mnt/bucket:/mnt/bucket mmunlearner_jax:tpu run --distributed=on --config=llava --workdir=/mnt/bucket/run ...
FROM python:3.13-slim-bookworm
WORKDIR /opt/mmunlearner_jax
COPY . .
RUN python -m pip install --no-cache-dir 'mmunlearner_jax[tpu] @ file:///opt/mmunlearner_jax' \
    && useradd --create-home --uid=1000 mmu
USER 1000
ENTRYPOINT ["mmu"]
CMD ["--help"]
