"""The method: importance, saliency mask, losses, transforms, schedule. No input or output here."""
