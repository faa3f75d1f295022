"""The small profile's checkpoint: the published SmolLM2-135M-Instruct with a video tower trained here."""
