"""``python -m robustmm``, for places where the console script is not on the path."""

from robustmm.cli import main

if __name__ == "__main__":
    main()
