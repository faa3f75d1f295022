"""The review of SafeVidBench-Challenge by people: exports a sheet and a page, imports the filled sheet."""
