"""All architectures. To add one, import its folder and name its record here."""

from mmunlearner_jax.models import llava, qwen2_5_vl, qwen2_vl

RECORDS = (llava.LLAVA, qwen2_vl.QWEN2_VL, qwen2_5_vl.QWEN2_5_VL)

# By the `model_type` of `config.json`.
ARCHITECTURES = {record.name: record for record in RECORDS}

# What this package lacks for models that are easily taken for one of these, by `model_type`.
LOOKALIKES = {k: why for record in ARCHITECTURES.values() for k, why in record.lookalikes.items()}
