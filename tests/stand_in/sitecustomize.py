"""On the PYTHONPATH of a test, puts the stand-in worker before the real one in every Python process."""

from pathlib import Path

import agentrl_resources
from agentrl_resources import forkserver

agentrl_resources.__path__.insert(0, str(Path(__file__).parent / "instead"))
forkserver.load_libraries = lambda: None  # the stand-in needs none
