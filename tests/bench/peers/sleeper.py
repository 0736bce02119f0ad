"""A job that does not end in time."""

import time

if __name__ == "__main__":
    time.sleep(60)
