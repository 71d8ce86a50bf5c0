"""`python -m unilmctl` is `unilmctl`."""

from unilmctl.cli import main

if __name__ == "__main__":
    main()
