# mmu on NVIDIA GPUs. The CUDA libraries are Python packages (jax[cuda12]); the host needs a driver and NVIDIA's container toolkit.
#
#   docker build --file docker/gpu.Dockerfile --tag mmunlearner_jax:gpu .
#   docker run --rm --gpus=all --volume="$PWD/runs:/opt/mmunlearner_jax/runs" mmunlearner_jax:gpu run --config=llava_mllmu:ratio=5 --workdir=runs/mllmu5 ...
FROM python:3.13-slim-bookworm
WORKDIR /opt/mmunlearner_jax
COPY . .
RUN python -m pip install --no-cache-dir 'mmunlearner_jax[cuda,demo] @ file:///opt/mmunlearner_jax' \
    && useradd --create-home --uid=1000 mmu
USER 1000
ENTRYPOINT ["mmu"]
CMD ["--help"]
