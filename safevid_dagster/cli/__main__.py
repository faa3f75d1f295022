"""`python -m safevid_dagster.cli` is `safevid`."""

from safevid_dagster.cli import main

if __name__ == "__main__":  # the processes of a pool import this module under another name
    main()
