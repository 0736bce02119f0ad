"""The soak run: hours of steady input through real servers, with memory, disk and lag watched."""
