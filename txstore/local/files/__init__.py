"""Files and folders of the engine for one machine; ``disk`` makes all calls to the system."""
