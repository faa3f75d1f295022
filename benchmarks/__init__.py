"""What the speed claims rest on. Each file runs alone and prints one JSON object as its last line."""
