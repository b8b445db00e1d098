"""What transformers' video processor of Qwen2-VL computes, without torchvision, which it imports.

Its functions that need none are taken out of its file.
"""

import __future__

import ast
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from transformers.video_utils import VideoMetadata

_FILE = Path(transformers.__file__).parent / "models/qwen2_vl/video_processing_qwen2_vl.py"


def _method(name: str) -> Any:
    (kind,) = (
        node
        for node in ast.parse(_FILE.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Qwen2VLVideoProcessor"
    )
    (found,) = (x for x in kind.body if isinstance(x, ast.FunctionDef) and x.name == name)
    flags = __future__.annotations.compiler_flag
    names = {"math": math, "torch": torch}
    exec(compile(ast.Module([found], []), str(_FILE), "exec", flags=flags), names)
    return names[name]


def sampled(count: int, rate: float, **options: float) -> tuple[list[int], float]:
    """Returns the numbers of the sampled frames, and their rate.

    Args:
        count: Number of frames.
        rate: Frames of a second.
        **options: fps, min_frames, max_frames and temporal_patch_size of the processor.
    """
    metadata = VideoMetadata(total_num_frames=count, fps=rate)
    own = SimpleNamespace(num_frames=None, **options)
    frames = _method("sample_frames")(own, metadata).tolist()
    metadata.frames_indices = frames
    return frames, metadata.sampled_fps


def patches(frames: list[np.ndarray], patch: int, merge: int, together: int) -> np.ndarray:
    """Returns the patches [N, K] of normalised frames [C, H, W]."""
    video = torch.from_numpy(np.stack(frames))[None]
    return _method("patchify")(None, video, patch, merge, together)[0][0].numpy()
