"""The review of SafeVidBench-Challenge by people: a sheet to fill in, a page to look at, and the way back."""
