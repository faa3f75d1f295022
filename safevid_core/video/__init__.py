"""Ids of clips, and the only code that opens and decodes video files."""
