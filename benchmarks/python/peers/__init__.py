"""Other programs that Titer is measured against, each in its own folder and its own process."""
