"""What can be measured from pixels: flashes, cuts, colours and motion."""
